"""Checkpoints of cascades, deformable convolutions and group norms: read, and carried over."""

import numpy as np
import pytest
from keras import ops
from small_model import make_cascade_model

from tf_panoptic_fpn.weight_files.checkpoint_files import Checkpoint
from tf_panoptic_fpn.weights import WeightsError, load_detectron2
from tf_panoptic_fpn.weights.detectron2 import detectron2_source
from tf_panoptic_fpn.weights.detectron2_layout import detectron2_arrays
from tf_panoptic_fpn.weights.infer_model import _infer_heads, infer_model
from tf_panoptic_fpn.weights.initial_weights import predictor_rows
from tf_panoptic_fpn.weights.match_classes import ClassMatch, carry_over


@pytest.fixture(scope="module")
def golden(goldens_dir):
    return dict(np.load(goldens_dir / "detectron2_cascade" / "weights.npz"))


@pytest.fixture(scope="module")
def model(golden):
    model = make_cascade_model()
    load_detectron2(model, golden)
    return model


def test_arrays_are_those_that_were_read(model, golden):
    arrays = detectron2_arrays(model)
    assert set(arrays) == set(golden)
    for name, value in arrays.items():
        np.testing.assert_array_equal(value, golden[name], err_msg=name)


def test_a_classifiers_backbone_has_no_offsets(golden):
    """They keep their zeros, and the report lists them."""
    start = "backbone.bottom_up."
    backbone = {name: value for name, value in golden.items() if name.startswith(start)}
    plain = {name: value for name, value in backbone.items() if "_offset" not in name}
    model = make_cascade_model()
    report = load_detectron2(model, plain)
    missing = [path for path, _ in report.missing if "/offset/" in path]
    assert len(missing) == len(backbone) - len(plain) == 2 * 13
    conv = model.backbone.res3[0].conv2.conv
    assert not ops.convert_to_numpy(conv.offset.kernel).any()
    expected = golden[f"{start}res3.0.conv2.weight"]
    np.testing.assert_array_equal(ops.transpose(conv.kernel, (3, 2, 0, 1)), expected)
    with pytest.raises(WeightsError, match=r"missing from the source: .*offset"):
        load_detectron2(model, {k: v for k, v in golden.items() if "_offset" not in k})


def test_what_shapes_tell(golden):
    shapes = {name: value.shape for name, value in golden.items()}
    arguments = _infer_heads(shapes, lambda name, axis=0: shapes[name][axis], stages=3)
    assert arguments == {
        "num_thing_classes": 5,
        "box_head_units": 64,
        "class_agnostic_boxes": True,
        "cascade_ious": (0.5, 0.6, 0.7),
        "mask_head_channels": 16,
        "mask_head_convolutions": 4,
        "mask_head_norm": "group_norm",
    }
    # 32 groups are assumed, which 8 channels cannot have.
    with pytest.raises(WeightsError, match="model cannot be built"):
        infer_model(detectron2_source(Checkpoint(golden)))


def test_what_shapes_tell_of_a_head_of_convolutions():
    shapes = {f"roi_heads.box_head.conv{i}.weight": (64, 16, 3, 3) for i in range(1, 5)}
    shapes |= {"roi_heads.box_head.fc1.weight": (48, 3136)}
    shapes |= {"roi_heads.box_head.conv1.norm.weight": (64,)}
    shapes |= {"roi_heads.box_predictor.cls_score.weight": (4, 48)}
    shapes |= {"roi_heads.box_predictor.bbox_pred.weight": (12, 48)}
    shapes |= {f"roi_heads.mask_head.mask_fcn{i}.weight": (8, 16, 3, 3) for i in range(1, 9)}
    arguments = _infer_heads(shapes, lambda name, axis=0: shapes[name][axis], stages=0)
    assert arguments == {
        "num_thing_classes": 3,
        "box_head_units": 48,
        "class_agnostic_boxes": False,
        "cascade_ious": (),
        "mask_head_channels": 8,
        "mask_head_convolutions": 8,
        "mask_head_norm": "none",
        "box_head": "four_conv_one_fc",
        "box_head_channels": 64,
        "box_head_norm": "group_norm",
    }


def test_classes_are_carried_over_in_every_stage(model, golden):
    """Class 1 is the checkpoint's 4, the background stays, the rest starts as the model has it."""
    source = detectron2_source(Checkpoint(dict(golden)))
    assert predictor_rows(source) == {"instance": 6, "semantic": 5}
    carry_over(source, model, ClassMatch({1: 4}, {}, ()))
    for i in range(3):
        name = f"roi_heads.box_predictor.{i}.cls_score.weight"
        expected = golden[name].copy()
        expected[1] = golden[name][4]
        np.testing.assert_array_equal(source.arrays[name], expected)
        name = f"roi_heads.box_predictor.{i}.bbox_pred.weight"
        np.testing.assert_array_equal(source.arrays[name], golden[name])
