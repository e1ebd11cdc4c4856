"""Tiles that were labelled exactly give the exact labels of the whole; what is joined, by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.large_images.disk_map import DiskMap
from tf_panoptic_fpn.large_images.grid import Grid, Side
from tf_panoptic_fpn.large_images.stitching import Stitcher, same_instances


def flood(classes):
    """The 8-connected regions of a map of classes, by a flood; 0 and below stay as they are."""
    labels = np.minimum(classes, 0).astype(np.int32)
    categories = []
    for start in np.argwhere(classes > 0).tolist():
        if labels[*start]:
            continue
        categories.append(int(classes[*start]))
        waiting = [start]
        while waiting:
            y, x = waiting.pop()
            if labels[y, x] or classes[y, x] != categories[-1]:
                continue
            labels[y, x] = len(categories)
            waiting += [
                [a, b]
                for a in range(max(y - 1, 0), min(y + 2, len(classes)))
                for b in range(max(x - 1, 0), min(x + 2, classes.shape[1]))
            ]
    return labels, categories


def stitch(classes, tile, overlap, folder, label=flood, stuff_area=0, num_stuff=2):
    """Stitches what `label` says of each tile; returns the ids and the segments."""
    grid = Grid(*classes.shape, tile, overlap)
    stitcher = Stitcher(grid, num_stuff, folder)
    for part in grid:
        labels, categories = label(classes[part.top : part.bottom, part.left : part.right])
        stitcher.add(part, labels, categories, [c / 10 for c in categories])
    stitched = stitcher.finish([101 + k for k in range(num_stuff)], stuff_area)
    ids = stitched.read(0, classes.shape[0], 0, classes.shape[1])
    stitcher.close()
    return ids, stitched.segments


def check_segments(ids, segments):
    """The segments say what the map holds."""
    assert [segment["id"] for segment in segments] == list(range(1, ids.max() + 1))
    for segment in segments:
        y, x = np.nonzero(ids == segment["id"])
        assert segment["area"] == len(y)
        box = [x.min(), y.min(), x.max() + 1 - x.min(), y.max() + 1 - y.min()]
        assert segment["bbox"] == box


def same_partition(a, b):
    """Whether two maps of labels are equal up to their numbers."""
    pairs = set(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    return len(pairs) == len({p for p, _ in pairs}) == len({q for _, q in pairs})


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    st.integers(4, 12).flatmap(lambda t: st.tuples(st.just(t), st.integers(2, t - 1))),
    st.integers(0, 2**32 - 1),
    st.integers(1, 2),
)
def test_exact_tiles_give_the_exact_whole(tmp_path_factory, size, tiles, seed, coarse):
    """Regions of random shapes, of two things, two stuff classes and void."""
    rng = np.random.default_rng(seed)
    classes = rng.choice([-2, -1, 0, 1, 2], size, p=rng.dirichlet(np.ones(5)))
    classes = classes.repeat(coarse, axis=0).repeat(coarse, axis=1)
    folder = tmp_path_factory.mktemp("stitch")
    ids, segments = stitch(classes, *tiles, folder)
    expected, categories = flood(classes)
    assert same_partition(ids, expected)
    assert ((ids == 0) == (classes == 0)).all()
    check_segments(ids, segments)
    things = [s for s in segments if s["category_id"] < 100]
    assert len(things) == len(categories)
    assert [s["score"] for s in things] == sorted((c / 10 for c in categories), reverse=True)
    for segment in segments:
        (found,) = set(classes[ids == segment["id"]].tolist())
        assert segment["category_id"] == (found if found > 0 else 100 - found)


@given(
    st.integers(1, 3000),
    st.integers(3, 700).flatmap(lambda t: st.tuples(st.just(t), st.integers(2, t - 1))),
)
def test_tiles_cover_a_side_and_keep_their_overlap(length, tiles):
    tile, overlap = tiles
    side = Side(length, tile, overlap)
    assert side.starts[0] == side.cuts[0] == 0
    assert side.ends[-1] == side.cuts[-1] == length
    assert {b - a for a, b in zip(side.starts, side.ends, strict=True)} == {min(tile, length)}
    for i in range(1, len(side.starts)):
        assert side.ends[i - 1] - side.starts[i] >= overlap
        assert side.starts[i] < side.cuts[i] < side.ends[i - 1]
        assert min(side.cuts[i] - side.starts[i], side.ends[i - 1] - side.cuts[i]) >= overlap // 2
    fewer = (len(side.starts) - 1) * (tile - overlap) + overlap
    assert len(side.starts) == 1 or fewer < length


def test_tiles_of_a_side_by_hand():
    side = Side(20, 10, 4)
    assert side.starts == [0, 5, 10]
    assert side.cuts == [0, 7, 12, 20]
    assert Side(10, 10, 4).starts == Side(3, 10, 4).starts == [0]


@pytest.mark.parametrize("tiles", [(64, 64), (64, 1), (1, 0), (64, -4)])
def test_an_overlap_that_cannot_be(tiles):
    with pytest.raises(ConfigError, match=f"a tile of {tiles[0]} and an overlap of {tiles[1]}"):
        Grid(100, 100, *tiles)


def strip(*maps, categories=(0, 5, 5, 5, 5)):
    first, second = (np.array([[*map(int, row)] for row in text.split()]).T for text in maps)
    return same_instances(first, second, len(first) // 2, categories)


@pytest.mark.parametrize(
    ("first", "second", "pairs"),
    [
        # IoU 3/6 and 3/7 of what does not cross the cut.
        ("111000 111000", "300000 330000", [(1, 3)]),
        ("111100 111000", "300000 330000", []),
        # One that crosses is joined to what covers half of it, not to what covers less.
        ("111111 111111", "003300 000000", [(1, 3)]),
        ("001111 000000", "333000 000000", []),
        # One that only reaches into the strip is not joined to the neighbour that covers it.
        ("100000 100000", "333333 333333", []),
        # Two arms that the first tile sees apart.
        ("111111 000000 222222", "333333 000000 333333", [(1, 3), (2, 3)]),
        # Of two neighbours that touch, a border that is seen two pixels apart joins none.
        ("1111112222 1111112222", "3333444444 3333444444", [(1, 3), (2, 4)]),
    ],
)
def test_what_is_joined(first, second, pairs):
    """The columns of the texts run along the strip; the cut is in its middle."""
    assert strip(first, second) == pairs


def test_categories_are_never_joined():
    assert strip("111111", "333333", categories=(0, 5, 5, 6)) == []
    assert strip("111111", "333333") == [(1, 3)]


@pytest.mark.parametrize("is_beside", [False, True])
def test_the_cut_is_where_tiles_are_compared(tmp_path, is_beside):
    """Rows 6 and 7 of the first tile and 7 to 9 of the second share half of what crosses row 7."""
    sides = (1, 14) if is_beside else (14, 1)
    grid = Grid(*sides, 10, 6)
    stitcher = Stitcher(grid, 0, tmp_path)
    for tile, rows in zip(grid, ([6, 7], [3, 4, 5]), strict=True):
        labels = np.zeros((10, 1), np.int32)
        labels[rows] = 1
        stitcher.add(tile, labels.T if is_beside else labels, [3], [0.5])
    (segment,) = stitcher.finish([], 0).segments
    assert segment["area"] == 4
    assert segment["bbox"] == ([6, 0, 4, 1] if is_beside else [0, 6, 1, 4])
    stitcher.close()


def test_small_stuff_is_decided_on_the_whole(tmp_path):
    """Stuff 1 has 9 pixels in three tiles, stuff 2 has 8."""
    classes = np.zeros((4, 40), int)
    classes[0, 10:19] = -1
    classes[2, 10:18] = -2
    ids, segments = stitch(classes, 8, 4, tmp_path, stuff_area=9)
    assert segments == [{"id": 1, "category_id": 101, "area": 9, "bbox": [10, 0, 9, 1]}]
    np.testing.assert_array_equal(ids, classes == -1)


def test_a_fragment_keeps_the_highest_score(tmp_path):
    stitcher = Stitcher(Grid(4, 12, 8, 4), 0, tmp_path)
    for tile, score in zip(stitcher._grid, (0.6, 0.9), strict=True):
        stitcher.add(tile, np.ones((4, 8), np.int32), [3], [score])
    (segment,) = stitcher.finish([], 0).segments
    assert segment == {"id": 1, "category_id": 3, "area": 48, "bbox": [0, 0, 12, 4], "score": 0.9}
    stitcher.close()


def test_a_map_on_the_disk(tmp_path):
    disk = DiskMap(tmp_path / "ids", (6, 7))
    expected = np.zeros((6, 7), np.int32)
    expected[2:5, 3:7] = np.arange(12).reshape(3, 4) - 5
    disk.write(2, 3, expected[2:5, 3:7])
    np.testing.assert_array_equal(disk.read(0, 6, 0, 7), expected)
    np.testing.assert_array_equal(disk.read(1, 4, 2, 5), expected[1:4, 2:5])
    disk.close()
