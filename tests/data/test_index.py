import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_dataset import CAR, PERSON, TinyDataset

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.data.index import batch_schedule, build_index, is_portrait
from tf_panoptic_fpn.formats.records import ImageRecord, PanopticSplit, Segment

CATEGORIES = CategoryTable(
    (
        Category(9, "sky", False),
        Category(3, "car", True),
        Category(1, "wall", False),
        Category(7, "person", True),
    )
)


def _record(number, height, width, segments):
    return ImageRecord(
        number, f"{number}.jpg", f"i/{number}.jpg", f"p/{number}.png", height, width, segments
    )


def test_build_index_by_hand():
    split = PanopticSplit(
        CATEGORIES,
        (
            _record(4, 10, 20, (Segment(5, 9), Segment(70000, 7, is_crowd=True))),
            _record(2, 30, 25, (Segment(1, 3), Segment(2, 1), Segment(3, 7))),
        ),
    )
    index = build_index(split)
    assert len(index) == 2
    assert index.categories is CATEGORIES
    assert index.map_format == "rgb"
    assert index.image_paths.tolist() == [b"i/4.jpg", b"i/2.jpg"]
    assert index.map_paths.tolist() == [b"p/4.png", b"p/2.png"]
    assert index.sizes.tolist() == [[10, 20], [30, 25]]
    assert index.needs_pillow.tolist() == [True, True]  # neither file is there
    assert index.label_offsets.tolist() == [0, 2, 5]
    assert index.label_ids.tolist() == [5, 70000, 1, 2, 3]
    assert index.label_classes.tolist() == [2, 0, 0, 1, 0]
    assert index.instance_offsets.tolist() == [0, 1, 3]
    assert index.instance_map_ids.tolist() == [70000, 1, 3]
    assert index.instance_classes.tolist() == [1, 0, 1]
    assert index.instance_is_crowd.tolist() == [True, False, False]
    assert index.run_offsets.tolist() == [0, 0, 0, 0]
    assert len(index.runs) == 0
    every = split.categories.with_semantic_things("all")
    labelled = dataclasses.replace(split, categories=every)
    assert build_index(labelled).label_classes.tolist() == [3, 1, 0, 2, 1]


def test_is_portrait():
    assert is_portrait(np.array([[3, 2], [2, 3], [2, 2]])).tolist() == [True, False, False]


def _sizes(portraits):
    return np.array([(30, 20) if portrait else (20, 30) for portrait in portraits], np.int32)


SPLITS = st.lists(st.booleans(), min_size=1, max_size=12).map(_sizes)


@settings(max_examples=60, deadline=None)
@given(
    sizes=SPLITS,
    batch_size=st.integers(1, 5),
    num_steps=st.integers(1, 30),
    seed=st.integers(0, 99),
)
def test_every_image_takes_its_turn(sizes, batch_size, num_steps, seed):
    schedule = batch_schedule(sizes, batch_size, num_steps, seed)
    assert schedule.shape == (num_steps, batch_size)
    assert schedule.dtype == np.int32
    portrait = is_portrait(sizes)
    of_batch = portrait[schedule]
    assert (of_batch == of_batch[:, :1]).all()
    for group in (True, False):
        members = np.flatnonzero(portrait == group)
        dealt = schedule[of_batch[:, 0] == group].ravel()
        # Whole epochs of the group follow one another without a gap.
        for start in range(0, len(dealt), max(len(members), 1)):
            epoch = dealt[start : start + len(members)]
            assert len(set(epoch)) == len(epoch)
            assert set(epoch) <= set(members)
    # No image waits for longer than the unfilled batches hold it up.
    counts = np.bincount(schedule.ravel(), minlength=len(sizes))
    dealt_images = num_steps * batch_size
    if len(set(portrait)) == 1:
        assert counts.max() - counts.min() <= 1
        assert counts.sum() == dealt_images
    else:
        assert counts.max() <= (dealt_images + 2 * (batch_size - 1)) // len(sizes) + 1


@settings(deadline=None)
@given(sizes=SPLITS, batch_size=st.integers(1, 5), seed=st.integers(0, 99))
def test_a_longer_schedule_begins_as_a_shorter_one(sizes, batch_size, seed):
    long = batch_schedule(sizes, batch_size, 25, seed)
    np.testing.assert_array_equal(batch_schedule(sizes, batch_size, 7, seed), long[:7])


def test_fewer_images_than_a_batch_holds():
    schedule = batch_schedule(_sizes([False] * 3), 7, 3, seed=0)
    assert np.bincount(schedule.ravel()).tolist() == [7, 7, 7]


def test_seeds_and_epochs_give_other_orders():
    sizes = _sizes([False] * 50)
    first, second = batch_schedule(sizes, 50, 2, seed=0)
    assert first.tolist() != second.tolist()
    assert first.tolist() != batch_schedule(sizes, 50, 1, seed=1)[0].tolist()


def test_the_order_is_the_same_for_ever():
    """A run that is resumed under another version of NumPy goes on with the same images."""
    sizes = _sizes([False, True, False, True, False])
    assert batch_schedule(sizes, 2, 6, seed=3).tolist() == [
        [4, 0],
        [1, 3],
        [2, 0],
        [2, 4],
        [1, 3],
        [0, 4],
    ]


def test_the_digest_tells_data_sets_apart_wherever_they_lie(tmp_path):
    digests = []
    for name, category in (("a", CAR), ("b", CAR), ("c", PERSON)):
        (tmp_path / name).mkdir()
        tiny = TinyDataset(tmp_path / name)
        tiny.add(np.ones((8, 8), int), {1: category})
        digests.append(build_index(tiny.read()).digest())
    assert digests[0] == digests[1] != digests[2]
