import argparse

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.commands import show_data
from tf_panoptic_fpn.datatools import show
from tf_panoptic_fpn.datatools.show import (
    GAP,
    SHEET_WIDTH,
    SHORT_SIDE,
    contact_sheet,
    draw_sample_instances,
    paste_bitmap,
)
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.masks.segment_map import tight_boxes
from tf_panoptic_fpn.visualize.segments import OTHER

RED, GREEN = (255, 0, 0), (0, 200, 0)
CATEGORIES = CategoryTable(
    (Category(3, "car", True, RED), Category(5, "road", False, GREEN), Category(9, "sky", False))
)


def test_a_bitmap_is_pasted_by_pixel_centres():
    bitmap = np.array([[1, 0], [1, 1]])
    mask, place = paste_bitmap(bitmap, (1, 2, 5, 6), (6, 9))
    assert place == (1, 2)
    np.testing.assert_array_equal(mask, [[1, 1, 0, 0], [1, 1, 0, 0], [1] * 4, [1] * 4])
    # A box between pixels and over the border: the centres 0.5 and 1.5 of y, 7.5 and 8.5 of x.
    mask, place = paste_bitmap(bitmap, (-1.0, 6.9, 1.8, 10.9), (6, 9))
    assert place == (0, 7)
    np.testing.assert_array_equal(mask, [[1, 1], [1, 1]])
    mask, _ = paste_bitmap(bitmap, (2.6, 3.0, 3.4, 3.0), (6, 9))
    assert not mask.any()


@given(st.integers(0, 1000))
@settings(deadline=None)
def test_pasting_undoes_the_frame_of_the_box(seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :50]
    (cy, cx), (ry, rx) = rng.uniform(10, 30, 2), rng.uniform(4, 14, 2)
    ids = ((((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2) < 1).astype(int)
    ((y1, x1, y2, x2),), _ = tight_boxes(ids, [1])
    cells = (np.arange(112) + 0.5) / 112
    bitmap = ids[np.ix_((y1 + cells * (y2 - y1)).astype(int), (x1 + cells * (x2 - x1)).astype(int))]
    mask, (top, left) = paste_bitmap(bitmap, (y1, x1, y2, x2), ids.shape)
    pasted = np.zeros(ids.shape, int)
    pasted[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    np.testing.assert_array_equal(pasted, ids)


def make_batch(sizes, canvas=(64, 96)):
    """Grey images; a car in the upper left quarter, a crowd below it, road to the right."""
    count = len(sizes)
    boxes, masks = np.zeros((count, 4, 4), np.float32), np.zeros((count, 4, 112, 112), np.uint8)
    semantic = np.full((count, *canvas), schema.IGNORED, np.int32)
    for i, (height, width) in enumerate(sizes):
        boxes[i, 0] = (4, 4, height / 2, width / 2)
        boxes[i, 1] = (height / 2, 0, height, width / 2)
        masks[i, 0, :, :56] = masks[i, 1] = 1
        semantic[i, :height, width // 2 : width] = 1
        semantic[i, : height // 2, : width // 2] = 0
    return {
        schema.IMAGES: np.full((count, *canvas, 3), 100, np.float32),
        schema.IMAGE_SIZES: np.array(sizes, np.int32),
        schema.GT_BOXES: boxes,
        schema.GT_CLASSES: np.tile(np.array([0, 0, -1, -1], np.int32), (count, 1)),
        schema.GT_IS_CROWD: np.tile([False, True, False, False], (count, 1)),
        schema.GT_MASKS: masks,
        schema.SEMANTIC: semantic,
    }


def test_instances_are_tinted_and_crowds_hatched():
    sample = {key: value[0] for key, value in make_batch([(64, 96)]).items()}
    image = np.full((480, 720, 3), 100, np.uint8)
    picture = draw_sample_instances(image, sample, CATEGORIES, (7.5, 7.5)).astype(int)
    assert picture.shape == image.shape
    inside, beside = picture[60:220, 60:180], picture[60:220, 210:340]
    assert (inside == (170, 55, 55)).all()  # 100 + 0.45 (255 - 100), 100 - 0.45 * 100
    assert (beside == 100).all()  # of the box, not of the mask
    assert (picture[:, 400:] == 100).all()
    crowd = picture[290:450, 40:300, 0].ravel()
    values, counts = np.unique(crowd, return_counts=True)
    assert len(values) == 2  # lines of the hatch and the ground between them
    assert counts.min() / crowd.size == pytest.approx(0.25, abs=0.01)
    # The frame of the box, with a dark one inside.
    np.testing.assert_array_equal(picture[29:34, 200], [[100] * 3, RED, RED, [0] * 3, [100] * 3])


def test_a_sheet_has_every_sample_once():
    sizes = [(64, 96), (60, 40), (32, 64)]
    batches = [make_batch(sizes[:2]), make_batch(sizes[2:])]
    sheet = contact_sheet(batches, CATEGORIES)
    widths = [2 * SHORT_SIDE * max(w / h, 1) + 8 for h, w in sizes]
    heights = [SHORT_SIDE * max(h / w, 1) + 30 for h, w in sizes]
    assert widths[0] + widths[1] + 3 * GAP < SHEET_WIDTH < sum(widths) + 4 * GAP
    assert sheet.shape[1] == widths[0] + widths[1] + 3 * GAP
    assert sheet.shape[0] == max(heights[:2]) + heights[2] + 3 * GAP
    # The semantic labels of the first sample: other, road, and ignored ground that stays clear.
    top, left = GAP + 30, GAP + 720 + 8
    label = sheet[top : top + 480, left : left + 720].astype(int)
    colors = {(int((100 + c[0]) / 2 + 0.5), int((100 + c[1]) / 2 + 0.5)) for c in (OTHER, GREEN)}
    assert colors == {(114, 114), (50, 150)}
    assert tuple(label[20, 20]) == (114, 114, 114)
    assert tuple(label[20, 700]) == (50, 150, 50)
    assert (label[260:470, 10:350] == 100).all()


def test_things_of_a_semantic_branch_that_tells_them_apart():
    batch = make_batch([(64, 96)])  # class 0 is the car, 1 the road
    sheet = contact_sheet([batch], CATEGORIES.with_semantic_things("all"))
    assert tuple(sheet[GAP + 50, GAP + 720 + 28]) == (178, 50, 50)


def test_crowded_and_empty_samples():
    batch = make_batch([(64, 96)])
    rng = np.random.default_rng(0)
    corners = rng.uniform((0, 0), (60, 90), (300, 2))
    batch[schema.GT_BOXES] = np.concatenate([corners, corners + rng.uniform(0, 4, (300, 2))], 1)[
        None
    ]
    batch[schema.GT_CLASSES] = np.zeros((1, 300), np.int32)
    batch[schema.GT_IS_CROWD] = np.zeros((1, 300), bool)
    batch[schema.GT_MASKS] = np.ones((1, 300, 112, 112), np.uint8)
    crowded = contact_sheet([batch], CATEGORIES)
    batch[schema.GT_CLASSES][:] = -1
    batch[schema.SEMANTIC][:] = schema.IGNORED
    empty = contact_sheet([batch], CATEGORIES)
    assert crowded.shape == empty.shape == (480 + 30 + 2 * GAP, 2 * 720 + 8 + 2 * GAP, 3)
    assert (empty[GAP + 30 : -GAP, GAP : GAP + 720] == 100).all()


def run(*arguments):
    parser = argparse.ArgumentParser()
    show_data.add_arguments(parser)
    show_data.run(parser.parse_args([str(argument) for argument in arguments]))


def test_the_command(tiny, tmp_path, capsys, monkeypatch):
    for _ in range(2):
        tiny.add_plain(40, 60)
    tiny.read()
    config = tmp_path / "config.yaml"
    paths = "images: images, panoptic_json: panoptic.json, panoptic_dir: panoptic"
    config.write_text(
        f"data: {{root: {tmp_path}, train: {{{paths}, short_sides: [48]}}, "
        f"validation: {{{paths}, short_sides: [24]}}}}"
    )
    sizes = []

    def spy(batches, *arguments):
        batches = list(batches)
        sizes.extend(batch[schema.IMAGE_SIZES].tolist() for batch in batches)
        return contact_sheet(batches, *arguments)

    monkeypatch.setattr(show, "contact_sheet", spy)
    output = tmp_path / "sheet.png"
    run(f"--config={config}", f"--output={output}", "--split=validation", "--count=2")
    assert sizes == [[[24, 36]]] * 2
    assert capsys.readouterr().out == f"{output}: 1480x1068 pixels\n"
    with Image.open(output) as image:
        assert image.size == (1480, 1068)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("--output=a.png", "--count=0"), "--count must be above 0"),
        (("--output=sheet.txt",), "must be a .png or .jpg. Received: sheet.txt"),
        (("--output=absent/a.png",), "absent/a.png: its folder does not exist"),
    ],
)
def test_arguments_must_fit(arguments, fault):
    with pytest.raises(ConfigError, match=fault):
        run("--config=absent.yaml", *arguments)
