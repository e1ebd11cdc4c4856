"""Pictures, by their numbers: tints, outlines, labels."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.metrics.panoptic_quality import PanopticQuality
from tf_panoptic_fpn.visualize import (
    DIFFERENCES,
    difference_map,
    draw_difference,
    draw_instances,
    draw_panoptic,
    draw_semantic,
    side_by_side,
)
from tf_panoptic_fpn.visualize.colors import relative_luminance, segment_colors, text_color
from tf_panoptic_fpn.visualize.labels import place_labels
from tf_panoptic_fpn.visualize.tint import OUTLINE

CAT, SKY, ROAD = 17, 92, 100
TABLE = CategoryTable(
    (
        Category(CAT, "cat", True),
        Category(SKY, "sky", False, (70, 130, 180)),
        Category(ROAD, "road", False),
    )
)


def scene(shade=100, size=(500, 600)):
    """Sky in rows 0-199, a cat in rows 200-399 of columns 0-299, void elsewhere."""
    ids = np.zeros(size, np.int32)
    ids[:200] = 5
    ids[200:400, :300] = 70000
    segments = [{"id": 5, "category_id": SKY}, {"id": 70000, "category_id": CAT, "score": 0.876}]
    return np.full((*size, 3), shade, np.uint8), ids, segments


@pytest.mark.parametrize("shade", [0, 100, 255])
def test_tints_and_outlines(shade):
    image, ids, segments = scene(shade)
    picture = draw_panoptic(image, ids, segments, TABLE)
    assert picture.shape == image.shape
    assert picture.dtype == np.uint8
    sky, cat = np.array(segment_colors(segments, TABLE), np.float32)
    np.testing.assert_allclose(picture[20, 20], (sky + shade) / 2, atol=1)
    np.testing.assert_allclose(picture[380, 20], (cat + shade) / 2, atol=1)
    np.testing.assert_array_equal(picture[450, 20], image[450, 20])  # void stays clear
    assert (picture[199, :] == OUTLINE).all()  # between sky and what lies below
    assert (picture[200:400, 299] == OUTLINE).all()  # to the right of the cat


def test_ids_that_are_not_listed_stay_clear():
    image, ids, segments = scene()
    ids[420:480] = 9
    picture = draw_panoptic(image, ids, segments, TABLE)
    np.testing.assert_array_equal(picture[450], image[450])


def test_labels_are_drawn_inside_their_segments():
    """Each label shows a solid block of its colour, and text of the colour that stands out."""
    image, ids, segments = scene()
    picture = draw_panoptic(image, ids, segments, TABLE)
    for segment, color in zip(segments, segment_colors(segments, TABLE), strict=True):
        ys, xs = np.nonzero((picture == color).all(axis=-1))
        assert (ids[ys, xs] == segment["id"]).all()
        box = picture[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
        assert 14 <= box.shape[0] <= 24
        assert 20 <= box.shape[1] <= 90
        # Strokes of letters are antialiased: not all of their pixels are pure.
        difference = np.abs(box.astype(int) - text_color(color)).max(axis=-1)
        assert (difference <= 8).sum() > 5


def test_only_things_show_a_score():
    """A score makes the label of a thing wider, and leaves that of stuff as it is."""
    image, ids, segments = scene()
    scored = draw_panoptic(image, ids, [{**s, "score": 0.5} for s in segments], TABLE)
    plain = draw_panoptic(image, ids, [{**s, "score": None} for s in segments], TABLE)
    np.testing.assert_array_equal(scored[:200], plain[:200])
    color = segment_colors(segments, TABLE)[1]
    assert (scored == color).all(axis=-1).sum() > (plain == color).all(axis=-1).sum()


def test_crowds_are_named():
    image, ids, segments = scene()
    crowd = [segments[0], {**segments[1], "iscrowd": 1}]
    picture = draw_panoptic(image, ids, crowd, TABLE)
    assert (picture != draw_panoptic(image, ids, segments, TABLE)).any()


def test_small_images_are_enlarged():
    image, ids, segments = scene()
    picture = draw_panoptic(image[::10, ::10], ids[::10, ::10], segments, TABLE)
    assert picture.shape == (480, 576, 3)
    sky = np.array(segment_colors(segments, TABLE)[0], np.float32)
    np.testing.assert_allclose(picture[20, 20], (sky + 100) / 2, atol=1)


def test_nothing_to_draw():
    image = np.full((480, 500, 3), 77, np.uint8)
    ids = np.zeros((480, 500), np.int32)
    np.testing.assert_array_equal(draw_panoptic(image, ids, [], TABLE), image)
    absent = [{"id": 4, "category_id": CAT}]
    np.testing.assert_array_equal(draw_panoptic(image, ids, absent, TABLE), image)


def test_a_segment_of_one_pixel_is_labelled():
    image, ids = np.zeros((480, 500, 3), np.uint8), np.zeros((480, 500), np.int32)
    ids[301, 201] = 8
    segments = [{"id": 8, "category_id": CAT}]
    picture = draw_panoptic(image, ids, segments, TABLE)
    ys, xs = np.nonzero((picture == segment_colors(segments, TABLE)[0]).all(axis=-1))
    assert ys.min() <= 301 <= ys.max()
    assert xs.min() <= 201 <= xs.max()


def test_labels_leave_most_of_a_crowded_picture_visible():
    """500 instances of 20 x 20 pixels: labels for all would hide the picture."""
    ids = np.zeros((480, 640), np.int32)
    for index in range(500):
        y, x = 24 * (index // 25), 25 * (index % 25)
        ids[y : y + 20, x : x + 20] = index + 1
    segments = [{"id": index + 1, "category_id": CAT} for index in range(500)]
    image = np.full((480, 640, 3), 90, np.uint8)
    picture = draw_panoptic(image, ids, segments, TABLE)
    colors = np.array(segment_colors(segments, TABLE), np.int64)
    is_label = np.isin(picture @ [65536, 256, 1], colors @ [65536, 256, 1])
    assert 0.08 < is_label.mean() < 0.2


def test_colors():
    segments = [{"category_id": c} for c in [SKY, CAT, CAT, ROAD, CAT, SKY]]
    colors = segment_colors(segments, TABLE)
    assert colors[0] == colors[5] == (70, 130, 180)
    assert len({*colors}) == 5
    assert colors == segment_colors(segments, TABLE)
    assert segment_colors(segments[3:4], TABLE) == colors[3:4]
    assert all(0 <= channel <= 255 for color in colors for channel in color)


def test_shades_of_many_instances_differ():
    colors = segment_colors([{"category_id": CAT}] * 30, TABLE)
    distances = np.abs(np.array(colors)[:, None] - np.array(colors)[None]).sum(axis=-1)
    assert distances[~np.eye(30, dtype=bool)].min() >= 6
    gray = CategoryTable((Category(1, "gray", True, (0, 0, 0)),))
    assert len({*segment_colors([{"category_id": 1}] * 5, gray)}) == 5


def test_semantic_map():
    """Class 0 is every thing; 255 stays clear."""
    image = np.full((480, 500, 3), 100, np.uint8)
    classes = np.full((480, 500), 255, np.uint8)
    classes[:160], classes[160:320] = 0, 1  # things, sky
    picture = draw_semantic(image, classes, TABLE)
    np.testing.assert_allclose(picture[10, 10], [114] * 3, atol=1)  # (100 + 128) / 2
    sky = segment_colors([{"category_id": SKY}], TABLE)[0]
    np.testing.assert_allclose(picture[170, 10], (np.array(sky) + 100) / 2, atol=1)
    np.testing.assert_array_equal(picture[400, 10], [100] * 3)
    assert (picture == sky).all(axis=-1).sum() > 200  # its label


def test_semantic_map_that_tells_the_things_apart():
    image = np.full((480, 500, 3), 100, np.uint8)
    picture = draw_semantic(image, np.zeros((480, 500), int), TABLE.with_semantic_things("all"))
    cat = segment_colors([{"category_id": CAT}], TABLE)[0]
    np.testing.assert_allclose(picture[10, 10], (np.array(cat) + 100) / 2, atol=1)
    with pytest.raises(DataError, match=r"Semantic classes must be in 0\.\.2\. Received: \[7\]"):
        draw_semantic(image, np.full((480, 500), 7), TABLE)


@pytest.mark.parametrize("shade", [0, 100, 255])
def test_instances(shade):
    """Two masks that overlap: the first gives the tint; each has its outline and its box."""
    image = np.full((480, 500, 3), shade, np.uint8)
    masks = np.zeros((2, 480, 500), bool)
    masks[0, 100:200, 100:300] = masks[1, 150:300, 200:400] = True
    boxes = [[80, 80, 220, 320], [130, 180, 320, 420]]
    picture = draw_instances(image, boxes, [CAT, CAT], TABLE, [0.9, 0.8], iter(masks))
    first, second = (
        np.array(color, np.float32) for color in segment_colors([{"category_id": CAT}] * 2, TABLE)
    )
    np.testing.assert_allclose(picture[110, 110], (first + shade) / 2, atol=1)
    np.testing.assert_allclose(picture[180, 250], (first + shade) / 2, atol=1)  # both
    np.testing.assert_allclose(picture[280, 380], (second + shade) / 2, atol=1)
    np.testing.assert_array_equal(picture[199, 110:170], np.tile(first, (60, 1)))  # the outline
    np.testing.assert_array_equal(picture[219, 80:170], np.tile(first, (90, 1)))  # the box
    np.testing.assert_array_equal(picture[319, 180:420], np.tile(second, (240, 1)))
    np.testing.assert_array_equal(picture[400, 10], [shade] * 3)


def test_boxes_are_enlarged_with_small_images():
    image = np.full((48, 60, 3), 100, np.uint8)
    picture = draw_instances(image, [[10, 20, 30, 50]], [CAT], TABLE)
    assert picture.shape == (480, 600, 3)
    ys, xs = np.nonzero((picture != 100).any(axis=-1))
    assert (ys.min(), xs.min(), ys.max() + 1, xs.max() + 1) == (100, 200, 300, 500)


def test_instances_that_do_not_fit_together():
    image, masks = np.zeros((480, 500, 3), np.uint8), np.zeros((2, 480, 500))
    boxes = [[0, 0, 9, 9]] * 2
    np.testing.assert_array_equal(draw_instances(image, [], [], TABLE, [], []), image)
    with pytest.raises(DataError, match=r"must be as many\. Received: 2, 1 and 2"):
        draw_instances(image, boxes, [CAT], TABLE)
    with pytest.raises(DataError, match=r"as many as boxes, 2\. Received: 1"):
        draw_instances(image, boxes, [CAT] * 2, TABLE, masks=masks[:1])
    with pytest.raises(DataError, match=r"as many as boxes, 1\. Received: more"):
        draw_instances(image, boxes[:1], [CAT], TABLE, masks=masks)
    with pytest.raises(DataError, match="one size"):
        draw_instances(image, boxes[:1], [CAT], TABLE, masks=[np.zeros((480, 499))])


def test_fifty_instances_are_labelled_without_collisions():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, (380, 520), (50, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(20, 100, (50, 2))], axis=1)
    image = np.full((480, 640, 3), 30, np.uint8)
    picture = draw_instances(image, boxes, [CAT] * 50, TABLE)
    colors = segment_colors([{"category_id": CAT}] * 50, TABLE)
    labelled = sum((picture == color).all(axis=-1).sum() > 300 for color in colors)
    assert labelled >= 40


# Void, sky (two columns), two cats, a crowd of cats and road (two columns), of ten rows.
GT = np.repeat([[0, 1, 1, 2, 3, 4, 5, 5]], 10, axis=0)
GT_SEGMENTS = [
    {"id": 1, "category_id": SKY},
    {"id": 2, "category_id": CAT},
    {"id": 3, "category_id": CAT},
    {"id": 4, "category_id": CAT, "iscrowd": 1},
    {"id": 5, "category_id": ROAD},
]


ALL = {1: SKY, 2: CAT, 3: CAT, 5: ROAD}


@pytest.mark.parametrize(
    ("columns", "segments", "expected"),
    [
        # All as it is; void and crowds are not scored.
        ([0, 1, 1, 2, 3, 0, 5, 5], ALL, [0, 1, 1, 1, 1, 0, 1, 1]),
        # Nothing at all.
        ([0] * 8, {}, [0, 3, 3, 3, 3, 0, 3, 3]),
        # One cat over both cats has IoU 1/2 with each: neither is found.
        ([0, 1, 1, 2, 2, 0, 5, 5], {1: SKY, 2: CAT, 5: ROAD}, [0, 1, 1, 3, 3, 0, 1, 1]),
        # A cat on the crowd of cats is ignored, a sky is not; on void anything is.
        (
            [0, 1, 1, 2, 3, 9, 5, 5],
            {**ALL, 9: CAT},
            [0, 1, 1, 1, 1, 0, 1, 1],
        ),
        (
            [0, 1, 1, 2, 3, 9, 5, 5],
            {**ALL, 9: SKY},
            [0, 1, 1, 1, 1, 2, 1, 1],
        ),
        (
            [9, 1, 1, 2, 3, 0, 5, 5],
            {**ALL, 9: SKY},
            [0, 1, 1, 1, 1, 0, 1, 1],
        ),
        # The road as sky; the sky in two halves.
        (
            [0, 1, 8, 2, 3, 0, 5, 5],
            {**ALL, 5: SKY, 8: SKY},
            [0, 3, 3, 1, 1, 0, 4, 4],
        ),
        # Void does not count in the union.
        ([1, 1, 1, 2, 3, 0, 5, 5], ALL, [0, 1, 1, 1, 1, 0, 1, 1]),
    ],
)
def test_difference_map(columns, segments, expected):
    listed = [{"id": i, "category_id": category} for i, category in segments.items()]
    kinds = difference_map(GT, GT_SEGMENTS, np.repeat([columns], 10, axis=0), listed)
    np.testing.assert_array_equal(kinds, np.repeat([expected], 10, axis=0))


def test_what_another_prediction_matches_is_a_false_positive():
    """A cat of 10 columns: 7 are one prediction, which matches, and 3 another."""
    gt, pred = np.ones((4, 10), int), np.repeat([[1] * 7 + [2] * 3], 4, axis=0)
    segments = [{"id": i, "category_id": CAT} for i in (1, 2)]
    kinds = difference_map(gt, segments[:1], pred, segments)
    np.testing.assert_array_equal(kinds, np.repeat([[1] * 7 + [2] * 3], 4, axis=0))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_differences_are_those_of_panoptic_quality(seed):
    """Segments with a correct pixel are as many as PQ's true positives."""
    rng = np.random.default_rng(seed)
    maps = [np.kron(rng.integers(0, 4, (3, 4)), np.ones((4, 4), int)) for _ in range(2)]
    maps[1] = np.where(rng.random((12, 16)) < 0.8, maps[0], maps[1])
    lists = [
        [
            {"id": i, "category_id": int(rng.choice([CAT, SKY])), "iscrowd": int(i == 3 and not k)}
            for i in range(1, 4)
            if (ids == i).any()
        ]
        for k, ids in enumerate(maps)
    ]
    quality = PanopticQuality(TABLE)
    quality.update(maps[0], lists[0], maps[1], lists[1])
    per_class = quality.result()["per_class"].values()
    kinds = difference_map(maps[0], lists[0], maps[1], lists[1])
    assert len(np.unique(maps[0][kinds == 1])) == sum(c["tp"] for c in per_class)
    scored = np.isin(maps[0], [s["id"] for s in lists[0] if not s["iscrowd"]])
    assert (kinds[scored] > 0).all()


def test_picture_of_a_difference():
    image = np.full((480, 600, 3), (200, 100, 50), np.uint8)
    grey = 200 * 0.299 + 100 * 0.587 + 50 * 0.114
    gt, pred = np.zeros((2, 480, 600), int)
    gt[:, 100:400], pred[:, 100:200] = 1, 1
    gt[:, 400:500], pred[:, 400:600] = 2, 2
    gt_segments = [{"id": 1, "category_id": SKY}, {"id": 2, "category_id": ROAD}]
    picture = draw_difference(image, gt, gt_segments, pred, gt_segments, legend=False)
    assert picture.shape == image.shape
    # The sky has an IoU of 1/3, the road of 1 without void.
    missed, correct = np.array(DIFFERENCES["missed"]), np.array(DIFFERENCES["correct"])
    np.testing.assert_allclose(picture[9, 9], grey, atol=1)
    np.testing.assert_allclose(picture[9, 150], 0.3 * grey + 0.7 * missed, atol=1)
    np.testing.assert_allclose(picture[9, 450], 0.65 * grey + 0.35 * correct, atol=1)
    np.testing.assert_array_equal(picture[:, 399], np.full((480, 3), 255))
    with_legend = draw_difference(image, gt, gt_segments, pred, gt_segments)
    np.testing.assert_array_equal(with_legend[:480], picture)
    legend = with_legend[480:]
    assert 20 <= len(legend) <= 60
    for color in DIFFERENCES.values():
        assert (legend == color).all(axis=-1).sum() == 15 * 15
    with pytest.raises(DataError, match="one size"):
        draw_difference(image, gt, gt_segments, pred[1:], gt_segments)


def test_errors():
    image, ids, segments = scene()
    with pytest.raises(DataError, match=r"one size. Received: \(500, 600\) and \(500, 599\)"):
        draw_panoptic(image, ids[:, 1:], segments, TABLE)
    with pytest.raises(DataError, match=r"Unknown category\. Received: 3"):
        draw_panoptic(image, ids, [{"id": 5, "category_id": 3}], TABLE)


@settings(max_examples=200, deadline=None)
@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_text_stands_out_on_any_color(color):
    lighter, darker = sorted(map(relative_luminance, (color, text_color(color))), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5


@pytest.mark.parametrize(
    ("color", "luminance"),
    [((0, 0, 0), 0), ((255, 255, 255), 1), ((255, 0, 0), 0.2126), ((128, 128, 128), 0.2159)],
)
def test_relative_luminance(color, luminance):
    assert relative_luminance(color) == pytest.approx(luminance, abs=1e-4)


def assert_apart_and_inside(boxes, image_size):
    for index, (y1, x1, y2, x2) in enumerate(boxes):
        assert 0 <= y1 < y2 <= image_size[0]
        assert 0 <= x1 < x2 <= image_size[1]
        for v1, u1, v2, u2 in boxes[:index]:
            assert y2 <= v1 or v2 <= y1 or x2 <= u1 or u2 <= x1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10000))
def test_fifty_labels_do_not_overlap(seed):
    rng = np.random.default_rng(seed)
    anchors = [(int(y), int(x)) for y, x in rng.integers(0, (480, 640), (50, 2))]
    sizes = [(18, int(width)) for width in rng.integers(30, 110, 50)]
    boxes = place_labels(anchors, sizes, (480, 640))
    placed = [box for box in boxes if box]
    assert_apart_and_inside(placed, (480, 640))
    assert len(placed) >= 40
    for box, (height, width) in zip(boxes, sizes, strict=True):
        assert box is None or (box[2] - box[0], box[3] - box[1]) == (height, width)


def test_labels_by_hand():
    sizes = [(10, 40)] * 4
    boxes = place_labels([(50, 50), (50, 50), (0, 0), (99, 99)], sizes, (100, 100))
    assert boxes[0] == (45, 30, 55, 70)
    # The nearest free place is one height away.
    assert boxes[1] in {(35, 30, 45, 70), (55, 30, 65, 70)}
    assert boxes[2:] == [(0, 0, 10, 40), (90, 60, 100, 100)]


def test_labels_without_room_are_left_out():
    assert place_labels([(5, 5)], [(10, 200)], (100, 100)) == [None]
    boxes = place_labels([(5, 5)] * 5, [(10, 20)] * 5, (20, 20))
    assert sum(box is not None for box in boxes) == 2
    assert place_labels([], [], (20, 20)) == []


def test_side_by_side():
    first = np.full((40, 30, 3), 10, np.uint8)
    second = np.full((20, 50, 3), 200, np.uint8)
    joined = side_by_side([first, second], ["a", "b"])
    assert joined.shape == (70, 88, 3)
    np.testing.assert_array_equal(joined[30:, :30], first)
    np.testing.assert_array_equal(joined[30:50, 38:], second)
    assert (joined[50:, 38:] == 255).all()
    assert (joined[:30, :30] < 128).any()
    assert (joined[:30, 38:] < 128).any()
    with pytest.raises(ValueError, match="shorter"):
        side_by_side([first, second], ["a"])


def test_real_images(samples):
    """Every category of the picture keeps a label, in its colour."""
    folder = samples / "coco_panoptic_2"
    data = json.loads((folder / "panoptic.json").read_text())
    table = CategoryTable.from_coco(data["categories"])
    for annotation in data["annotations"]:
        name = annotation["file_name"].removesuffix(".png")
        image = np.asarray(Image.open(folder / "images" / f"{name}.jpg").convert("RGB"))
        ids = np.asarray(Image.open(folder / "panoptic" / f"{name}.png")) @ [1, 256, 65536]
        segments = annotation["segments_info"]
        picture = draw_panoptic(image, ids, segments, table)
        assert min(picture.shape[:2]) == 480
        colors = segment_colors(segments, table)
        shown = {
            segment["category_id"]
            for segment, color in zip(segments, colors, strict=True)
            if (picture == color).all(axis=-1).sum() > 300
        }
        assert shown == {segment["category_id"] for segment in segments}
