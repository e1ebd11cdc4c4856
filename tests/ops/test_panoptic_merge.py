import json

import numpy as np
import pytest
from keras import ops

from tf_panoptic_fpn.ops import canvas
from tf_panoptic_fpn.ops import panoptic_merge as panoptic_merge_module
from tf_panoptic_fpn.ops.panoptic_merge import panoptic_merge

THINGS = [11, 12, 13]
STUFF = [21, 22]


def merge(masks, scores, classes=None, semantic=None, boxes=None, **options):
    """Merges full-size masks, or masks in the frame of `boxes`, and returns arrays."""
    masks = np.asarray(masks, "float32")
    if semantic is None:
        semantic = np.zeros(masks.shape[1:], "int32")
    if boxes is None:  # the paste of a mask into the whole canvas is the identity
        boxes = [[0, 0, *np.shape(semantic)]] * len(masks)
    arguments = (
        np.array(boxes, "float32"),
        np.array(scores, "float32"),
        np.array(classes if classes is not None else [0] * len(masks), "int32"),
        masks,
        np.array(semantic, "int32"),
    )
    arguments = [ops.convert_to_tensor(x) for x in arguments]
    result = panoptic_merge(*arguments, THINGS, STUFF, **options)
    result = {key: ops.convert_to_numpy(value) for key, value in result.items()}
    check(result)
    return result


def check(result):
    """What holds for every merge: the rows describe the map."""
    num, panoptic_map = result["num_segments"], result["panoptic_map"]
    assert panoptic_map.dtype == result["areas"].dtype == "int32"
    assert set(np.unique(panoptic_map)) - {0} == set(range(1, num + 1))
    for i in range(num):
        rows, columns = np.nonzero(panoptic_map == i + 1)
        assert result["areas"][i] == len(rows)
        box = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
        np.testing.assert_array_equal(result["boxes"][i], box)
    for key in ("category_ids", "is_thing", "scores", "areas", "boxes"):
        padding = -1 if key == "category_ids" else 0
        assert (result[key][num:] == padding).all(), key


def rows_of(*spans, size=10):
    """Masks `[n, size, size]` of whole rows, each a (start, end)."""
    masks = np.zeros((len(spans), size, size))
    for mask, (start, end) in zip(masks, spans, strict=True):
        mask[start:end] = 1
    return masks


def golden_arguments(units):
    masks = units["merge_masks"].astype("float32")
    return (
        np.tile(np.float32([[0, 0, 180, 200]]), (14, 1)),
        units["merge_scores"],
        units["merge_classes"].astype("int32"),
        masks,
        units["merge_sem"].astype("int32"),
    )


def check_golden(units, result):
    result = {key: ops.convert_to_numpy(value) for key, value in result.items()}
    np.testing.assert_array_equal(result["panoptic_map"], units["merge_panoptic"])
    segments = json.loads(str(units["merge_segments_json"]))
    num = result["num_segments"]
    assert num == len(segments) and len(result["scores"]) == 14 + 4
    for i, segment in enumerate(segments):
        assert result["category_ids"][i] == segment["category_id"]
        assert result["is_thing"][i] == segment["isthing"]
        assert result["scores"][i] == pytest.approx(segment.get("score", 1))
        if not segment["isthing"]:
            assert result["areas"][i] == segment["area"]
    check(result)


def test_golden(units):
    check_golden(units, panoptic_merge(*golden_arguments(units), range(5), range(1, 5)))


def test_golden_compiled(units, compiled):
    function = compiled(lambda *a: panoptic_merge(*a, range(5), range(1, 5)))
    check_golden(units, function(*map(ops.convert_to_tensor, golden_arguments(units))))


def test_golden_with_unknown_sizes(units, tf):
    function = tf.function(
        lambda *a: panoptic_merge(*a, range(5), range(1, 5)),
        input_signature=[
            tf.TensorSpec([14, 4]),
            tf.TensorSpec([14]),
            tf.TensorSpec([14], "int32"),
            tf.TensorSpec([14, None, None]),
            tf.TensorSpec([None, None], "int32"),
        ],
        autograph=False,
    )
    check_golden(units, function(*golden_arguments(units)))


def test_the_better_score_is_on_top():
    result = merge(rows_of((0, 6), (4, 10)), [0.6, 0.9], classes=[0, 2])
    np.testing.assert_array_equal(result["panoptic_map"][:, 0], [2] * 4 + [1] * 6)
    np.testing.assert_array_equal(result["category_ids"], [13, 11, -1, -1])
    np.testing.assert_allclose(result["scores"], [0.9, 0.6, 0, 0])
    np.testing.assert_array_equal(result["is_thing"], [True, True, False, False])
    np.testing.assert_array_equal(result["areas"], [60, 40, 0, 0])


def test_equal_scores_keep_their_order():
    result = merge(rows_of((0, 6), (5, 10)), [0.75, 0.75], classes=[2, 1])
    np.testing.assert_array_equal(result["category_ids"][:2], [13, 12])
    np.testing.assert_array_equal(result["areas"][:2], [60, 40])


@pytest.mark.parametrize("score, kept", [(0.5, 1), (0.4999, 0)])
def test_score_at_the_threshold_keeps(score, kept):
    assert merge(rows_of((0, 3)), [score])["num_segments"] == kept


def test_score_threshold_is_an_option():
    scores = [0.3, 0.2, 0.6]
    masks = rows_of((0, 2), (2, 4), (4, 6))
    assert merge(masks, scores)["num_segments"] == 1
    assert merge(masks, scores, score_threshold=0.25)["num_segments"] == 2
    assert merge(masks, scores, score_threshold=0.7)["num_segments"] == 0


@pytest.mark.parametrize("span, kept", [((2, 6), 2), ((1, 5), 1)])
def test_overlap_at_the_threshold_keeps(span, kept):
    # Rows 0..3 are taken: half of rows 2..5 is over them, three quarters of rows 1..4.
    assert merge(rows_of((0, 4), span), [0.9, 0.8])["num_segments"] == kept


def test_overlap_threshold_is_an_option():
    masks, scores = rows_of((0, 4), (1, 5)), [0.9, 0.8]
    assert merge(masks, scores, overlap_threshold=0.75)["num_segments"] == 2
    assert merge(rows_of((0, 4), (3, 7)), scores, overlap_threshold=0.2)["num_segments"] == 1


def test_overlap_counts_what_was_painted_only():
    # The second is dropped (over the first by 3/4), so the third is free of it.
    result = merge(rows_of((0, 4), (1, 5), (4, 6)), [0.9, 0.8, 0.7], classes=[0, 1, 2])
    np.testing.assert_array_equal(result["category_ids"][:3], [11, 13, -1])


def test_fully_covered_instance_is_no_segment():
    result = merge(rows_of((0, 4), (1, 3)), [0.9, 0.8], overlap_threshold=1.0)
    assert result["num_segments"] == 1


def test_empty_masks_and_padding_are_skipped():
    masks = rows_of((0, 0), (0, 4), (5, 6))
    result = merge(masks, [0.9, 0.8, 0.7], classes=[0, 1, -1])
    np.testing.assert_array_equal(result["category_ids"][:2], [12, -1])
    assert (result["panoptic_map"][5] == 0).all()


def test_all_padding():
    result = merge(
        np.ones((3, 28, 28)), [0, 0, 0], [-1] * 3, np.zeros((10, 10)), np.zeros((3, 4)),
        score_threshold=0.0,
    )  # fmt: skip
    assert result["num_segments"] == 0 and result["panoptic_map"].max() == 0


def test_mask_is_at_half_in_the_frame_of_its_box():
    masks = np.full((2, 16, 16), 0.5)
    masks[1] = 0.49
    result = merge(masks, [0.9, 0.8], semantic=np.zeros((64, 64)), boxes=[[4, 8, 20, 24]] * 2)
    # One pixel a mask cell, so nothing fades at the rim, and all is exact in float32.
    assert result["num_segments"] == 1
    np.testing.assert_array_equal(result["boxes"][0], [4, 8, 20, 24])
    assert result["areas"][0] == 16 * 16


def test_stuff_fills_the_rest_by_class():
    semantic = np.zeros((10, 10))
    semantic[:5], semantic[5:8] = 2, 1
    result = merge(rows_of((0, 2)), [0.9], semantic=semantic, stuff_area=30)
    np.testing.assert_array_equal(
        result["panoptic_map"][:, 0], [1, 1, 3, 3, 3, 2, 2, 2, 0, 0]  # other stays void
    )  # fmt: skip
    np.testing.assert_array_equal(result["category_ids"], [11, 21, 22])
    np.testing.assert_array_equal(result["is_thing"], [True, False, False])
    np.testing.assert_allclose(result["scores"], [0.9, 1, 1])


@pytest.mark.parametrize("area, kept", [(30, 1), (31, 0)])
def test_stuff_area_is_what_is_left_over_and_equality_keeps(area, kept):
    semantic = np.zeros((10, 10))
    semantic[:5] = 1  # 50 pixels, 20 under the instance
    result = merge(rows_of((0, 2)), [0.9], semantic=semantic, stuff_area=area)
    assert result["num_segments"] == 1 + kept


def test_stuff_area_is_4096_by_default():
    semantic = np.ones((64, 64))
    masks, boxes = np.zeros((1, 28, 28)), [[0, 0, 4, 4]]
    assert merge(masks, [0.9], semantic=semantic, boxes=boxes)["num_segments"] == 1
    semantic[0, 0] = 0
    assert merge(masks, [0.9], semantic=semantic, boxes=boxes)["num_segments"] == 0


def test_absent_stuff_is_no_segment_without_a_limit():
    result = merge(rows_of((0, 2)), [0.1], semantic=np.full((10, 10), 2), stuff_area=0)
    np.testing.assert_array_equal(result["category_ids"], [22, -1, -1])


def test_crowd_of_instances():
    # 100 instances, one a pixel of a diagonal, in random order of score.
    masks = np.zeros((100, 100, 100))
    masks[np.arange(100), np.arange(100), np.arange(100)] = 1
    scores = np.random.default_rng(0).permutation(np.linspace(0.5, 1, 100))
    result = merge(masks, scores, classes=np.arange(100) % 3)
    assert result["num_segments"] == 100
    rank = np.argsort(np.argsort(-scores)) + 1
    np.testing.assert_array_equal(np.diagonal(result["panoptic_map"]), rank)


def test_painting_in_boxes_equals_painting_on_the_whole(tf, monkeypatch):
    """To the bit: boxes of all sizes, over the border, of one pixel, without area, and padding."""
    rng = np.random.default_rng(0)
    size, count = (90, 150), 24
    starts = rng.uniform(-5, [85, 145], (count, 2))
    boxes = np.concatenate([starts, starts + rng.uniform(0.3, [60, 100], (count, 2))], axis=1)
    boxes[:4] = [[0, 0, *size], [3, 64, 4, 65], [5, 5, 5, 9], [-9, -9, 99, 199]]
    arguments = [
        boxes.astype("float32"),
        rng.uniform(size=count).astype("float32"),
        rng.integers(-1, 3, count).astype("int32"),
        rng.uniform(size=(count, 28, 28)).astype("float32"),
        rng.integers(0, 3, size).astype("int32"),
    ]

    def run():
        options = {"score_threshold": 0.2, "overlap_threshold": 0.8, "stuff_area": 1}
        graph = tf.function(lambda *a: panoptic_merge(*a, THINGS, STUFF, **options))
        return {name: value.numpy() for name, value in graph(*arguments).items()}

    in_boxes = run()
    check(in_boxes)
    for module in (canvas, panoptic_merge_module):
        monkeypatch.setattr(module, "use_tensorflow_kernels", lambda: False)
    whole = run()
    assert whole["num_segments"] > 10
    for name, value in whole.items():
        np.testing.assert_array_equal(in_boxes[name], value, err_msg=name)
