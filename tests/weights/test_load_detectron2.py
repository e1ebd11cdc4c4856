"""Loading detectron2's checkpoints, and refusing what does not fit."""

import pickle

import numpy as np
import pytest
from foreign_checkpoints import HEADS, STD, TINY, to_caffe2
from keras import ops
from small_model import make_small_model

from tf_panoptic_fpn import PanopticFPN
from tf_panoptic_fpn.backbones.resnet import ResNet
from tf_panoptic_fpn.weight_files.checkpoint_files import Checkpoint
from tf_panoptic_fpn.weights import PREDICTORS, WeightsError, load_detectron2
from tf_panoptic_fpn.weights.detectron2 import detectron2_source
from tf_panoptic_fpn.weights.detectron2_layout import detectron2_arrays, weight_plan
from tf_panoptic_fpn.weights.infer_model import infer_model


def write_pkl(path, arrays, author="Detectron2 Model Zoo"):
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": author}, protocol=2))
    return path


def test_every_weight_of_the_network_is_set(model):
    planned = {variable.path for variable, _, _ in weight_plan(model)}
    assert planned == {weight.path for layer in model.layers for weight in layer.weights}


def test_report_names_everything(model, golden, capsys, assert_loaded):
    source = {
        **golden,
        "pixel_std": np.ones((3, 1, 1), np.float32),
        "pixel_mean": np.float32([103.53, 116.28, 123.675]).reshape(3, 1, 1),
        "proposal_generator.anchor_generator.cell_anchors.0": np.zeros((3, 4)),
    }
    report = load_detectron2(model, source)
    assert_loaded(rtol=0)
    assert (report.left_over, report.missing) == ((), ())
    assert [name for name, _ in report.unused] == sorted(set(source) - set(golden))
    path, names, shape = report.matched[0]
    assert path == "backbone/stem/conv/kernel"
    assert (names, shape) == (("backbone.bottom_up.stem.conv1.weight",), (7, 7, 3, 8))
    assert len(report.matched) == sum(1 for _ in weight_plan(model))
    printed = capsys.readouterr().out
    assert "mask_head/deconv/kernel (2, 2, 16, 16) <- roi_heads.mask_head.deconv.weight" in printed
    assert "Self-check: finite outputs" in printed


def test_pkl_of_the_model_zoo(model, golden, tmp_path, assert_loaded):
    load_detectron2(model, write_pkl(tmp_path / "model_final.pkl", golden))
    assert_loaded(rtol=0)


def test_rgb_checkpoint(model, golden, assert_loaded):
    stem = "backbone.bottom_up.stem.conv1.weight"
    load_detectron2(model, {**golden, stem: golden[stem][:, ::-1]}, channel_order="rgb")
    assert_loaded(rtol=0)
    with pytest.raises(ValueError, match="channel_order"):
        load_detectron2(model, golden, channel_order="yuv")


def test_rgb_is_read_off_the_mean(model, golden, assert_loaded):
    stem = "backbone.bottom_up.stem.conv1.weight"
    mean = np.float32([123.675, 116.28, 103.53]).reshape(3, 1, 1)
    load_detectron2(model, {**golden, stem: golden[stem][:, ::-1], "pixel_mean": mean})
    assert_loaded(rtol=0)


def test_half_precision(model, golden):
    """It is folded in float64: the only rounding is that of the file."""
    source = {name: value.astype(np.float16) for name, value in golden.items()}
    load_detectron2(model, source)
    name = "backbone.bottom_up.res3.0.conv1.norm"
    weight, variance = (
        source[f"{name}.{end}"].astype(np.float64) for end in ("weight", "running_var")
    )
    scale = ops.convert_to_numpy(model.backbone.res3[0].conv1.norm.scale)
    np.testing.assert_allclose(scale, weight / np.sqrt(variance + 1e-5), rtol=1e-7)


def test_mask_rcnn(model, golden, assert_loaded):
    source = {n: v for n, v in golden.items() if not n.startswith("sem_seg_head")}
    with pytest.raises(WeightsError, match=r"allow_missing=\('semantic_head/\*',\)"):
        load_detectron2(model, source)
    report = load_detectron2(model, source, allow_missing=("semantic_head/*",))
    assert {path.split("/")[0] for path, _ in report.missing} == {"semantic_head"}
    assert_loaded(kept=("semantic_head/",), rtol=0)


def test_a_single_pattern_is_not_read_as_letters(model, golden, unchanged):
    source = {n: v for n, v in golden.items() if not n.startswith(("sem_seg_head", "roi_heads"))}
    with pytest.raises(WeightsError, match=r"20 missing from the source: box_head/fc1"):
        load_detectron2(model, source, allow_missing="semantic_head/*")


def test_model_of_one_task(golden):
    source = {n: v for n, v in golden.items() if not n.startswith("sem_seg_head")}
    mask_rcnn = infer_model(detectron2_source(Checkpoint(source)))
    assert mask_rcnn.semantic_head is None
    with pytest.raises(WeightsError, match=r"left over in the source: sem_seg_head\.p2"):
        load_detectron2(mask_rcnn, golden)
    report = load_detectron2(mask_rcnn, golden, allow_left_over=("sem_seg_head.*",))
    assert len(report.left_over) == sum(n.startswith("sem_seg_head") for n in golden)
    source = {n: v for n, v in golden.items() if not n.startswith(("roi_heads", "proposal"))}
    semantic_fpn = infer_model(detectron2_source(Checkpoint(source)))
    assert semantic_fpn.box_head is None
    assert not load_detectron2(semantic_fpn, source).missing


def test_caffe2_backbone(model, golden, tmp_path, assert_loaded):
    source = to_caffe2(golden)
    assert "res2_0_branch2a_bn_beta" in source
    source |= {"fc1000_w": np.zeros((10, 128)), "fc1000_b": np.zeros(10), "conv1_b": np.ones(8)}
    source["conv1_w_momentum"] = np.zeros((8, 3, 7, 7))
    report = load_detectron2(model, write_pkl(tmp_path / "R-50.pkl", source, "MSRA"))
    assert_loaded(kept=HEADS, rtol=0)
    assert [name for name, _ in report.unused] == [
        "conv1_b",
        "conv1_w_momentum",
        "fc1000_b",
        "fc1000_w",
    ]
    assert {path.split("/")[0] + "/" for path, _ in report.missing} == set(HEADS)


def test_caffe2_backbone_with_folded_statistics(model, golden):
    load_detectron2(model, to_caffe2(golden, folded=True))
    norm = model.backbone.res3[0].conv1.norm
    name = "backbone.bottom_up.res3.0.conv1.norm"
    scale = golden[f"{name}.weight"] / np.sqrt(np.float32(1 + 1e-5))
    np.testing.assert_allclose(ops.convert_to_numpy(norm.scale), scale, rtol=1e-6)
    np.testing.assert_array_equal(ops.convert_to_numpy(norm.shift), golden[f"{name}.bias"])


def test_backbone_converted_from_torchvision(model, golden, tmp_path, assert_loaded):
    """It reads RGB over a deviation; the model, which has none, takes that into its stem."""
    source = {
        name.removeprefix("backbone.bottom_up."): value
        for name, value in golden.items()
        if name.startswith("backbone.bottom_up.")
    }
    rgb = source["stem.conv1.weight"][:, ::-1]
    source["stem.conv1.weight"] = rgb * STD[:, None, None]
    source["stem.fc.weight"] = np.zeros((10, 128))
    source["stem.conv1.norm.num_batches_tracked"] = np.array(3)
    path = write_pkl(tmp_path / "R-50.pkl", source, "torchvision")
    with pytest.raises(WeightsError, match="stride_in_1x1 False and the model has True"):
        load_detectron2(model, path)
    report = load_detectron2(model, path, allow_config=("stride_in_1x1",))
    assert_loaded(kept=HEADS)
    assert len(report.unused) == 2
    assert any("58.395" in note for note in report.notes)


def test_other_pixel_mean_in_the_file(model, golden, unchanged):
    source = {**golden, "pixel_mean": np.float32([102.98, 115.95, 122.77]).reshape(3, 1, 1)}
    with pytest.raises(WeightsError, match=r"pixel_mean \(122.77, 115.95, 102.98\)"):
        load_detectron2(model, source)


def test_other_pixel_mean_allowed(model, golden, assert_loaded):
    source = {**golden, "pixel_mean": np.float32([102.98, 115.95, 122.77]).reshape(3, 1, 1)}
    report = load_detectron2(model, source, allow_config=("pixel_mean",))
    assert any(note.startswith("Allowed: ") for note in report.notes)
    assert_loaded(rtol=0)


def test_other_number_of_classes(model, golden, built, expected):
    before = {path: value.copy() for path, value in built[1].items()}
    source = dict(golden)
    for name in ("cls_score", "bbox_pred"):
        for end in ("weight", "bias"):
            key = f"roi_heads.box_predictor.{name}.{end}"
            source[key] = np.concatenate([golden[key], golden[key][:4]])
    with pytest.raises(WeightsError, match=r"number of classes differs.*PREDICTORS") as caught:
        load_detectron2(model, source)
    assert "box_head/classes/kernel is (64, 6) and the source has (64, 10)" in str(caught.value)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(model.box_head.fc1.kernel), before["box_head/fc1/kernel"]
    )
    report = load_detectron2(model, source, skip=PREDICTORS)
    assert len(report.missing) == 8 and not report.left_over
    for path in ("box_head/fc1/kernel", "semantic_head/p2_0/conv/kernel"):
        weight = next(weight for weight in model.weights if weight.path == path)
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), expected[path])
    np.testing.assert_array_equal(
        ops.convert_to_numpy(model.box_head.classes.kernel), before["box_head/classes/kernel"]
    )


def without(golden, *starts):
    return {name: value for name, value in golden.items() if not name.startswith(starts)}


def more_blocks(golden):
    start = "backbone.bottom_up.res4.5."
    extra = {n.replace("res4.5.", "res4.6."): v for n, v in golden.items() if n.startswith(start)}
    return {**golden, **extra}


BROKEN = {
    "a block is missing": (
        lambda golden: without(golden, "backbone.bottom_up.res4.5."),
        "missing from the source: backbone/res4_5/conv1/conv/kernel",
    ),
    "a block is left over": (more_blocks, r"left over in the source: backbone.bottom_up.res4.6."),
    "no mask head": (
        lambda golden: without(golden, "roi_heads.mask_head"),
        r"missing from the source: mask_head/conv1/\(kernel, bias\)",
    ),
    "another width": (
        lambda golden: {**golden, "backbone.fpn_output2.bias": np.zeros(32, np.float32)},
        r"fpn/output2/bias is \(16,\) and the source has \(32,\) in backbone.fpn_output2.bias",
    ),
    "another rank": (
        lambda golden: {**golden, "backbone.fpn_output2.weight": np.zeros(7, np.float32)},
        r"fpn/output2/kernel is \(3, 3, 16, 16\) and the source has \(7,\)",
    ),
    "deltas that are no fours": (
        lambda golden: {**golden, "roi_heads.box_predictor.bbox_pred.bias": np.zeros(21)},
        r"box_head/deltas/bias is \(20,\) and the source has \(21,\)",
    ),
    "a stem of another rank": (
        lambda golden: {**golden, "backbone.bottom_up.stem.conv1.weight": np.float32(3)},
        r"backbone/stem/conv/kernel is \(7, 7, 3, 8\) and the source has \(\)",
    ),
    "not a number": (
        lambda golden: {**golden, "backbone.fpn_lateral3.bias": np.full(16, np.nan)},
        "1 not finite: backbone.fpn_lateral3.bias",
    ),
    "outputs overflow": (
        lambda golden: {**golden, "backbone.fpn_lateral3.bias": np.full(16, 3e38, np.float32)},
        "self-check failed, the model is unchanged: features",
    ),
    "another network": (
        lambda golden: {"conv1.weight": np.zeros((8, 3, 7, 7)), "fc.weight": np.zeros((10, 8))},
        "left over in the source: conv1.weight, fc.weight",
    ),
    "two names for one": (
        lambda golden: {**golden, "stem.conv1.weight": np.zeros((8, 3, 7, 7))},
        "both stand for backbone.bottom_up.stem.conv1.weight",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_refused_and_unchanged(model, golden, case, unchanged):
    make, message = BROKEN[case]
    with pytest.raises(WeightsError, match=message) as caught:
        load_detectron2(model, make(golden))
    assert "\n" not in str(caught.value)


def test_other_backbone_layer(golden):
    backbone = ResNet(18, stem_channels=8, width=4, name="backbone")
    model = PanopticFPN(backbone=backbone, **TINY)
    model.backbone = model.fpn
    with pytest.raises(WeightsError, match="Received: FPN"):
        load_detectron2(model, golden)


def random_backbone(model, rng):
    """Arrays under detectron2's names for each weight of a backbone."""
    arrays = {}
    for variable, names, _ in weight_plan(model):
        if not names[0].startswith("backbone.bottom_up"):
            continue
        shape = variable.shape
        if len(shape) == 4:
            arrays[names[0]] = rng.normal(0, 0.1, (shape[3], shape[2], *shape[:2]))
        else:
            arrays |= {name: rng.uniform(0.5, 1, shape[-1]) for name in names}
    return arrays


@pytest.mark.parametrize("depth", [18, 50])
def test_sync_batch_norm_equals_frozen_affine(depth):
    rng = np.random.default_rng(depth)
    frozen, trained = (
        PanopticFPN(backbone=ResNet(depth, norm, stem_channels=8, width=4, name="backbone"), **TINY)
        for norm in ("frozen_affine", "sync_batch_norm")
    )
    arrays = random_backbone(frozen, rng)
    images = rng.uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    features = []
    for model in (frozen, trained):
        load_detectron2(model, arrays)
        features.append(model.backbone(model.normalize(images)[0]))
    for level, feature in features[0].items():
        np.testing.assert_allclose(feature, features[1][level], rtol=1e-4, atol=1e-4)


def test_group_norm_backbone():
    model = PanopticFPN(
        backbone=ResNet(18, "group_norm", stem_channels=32, width=32, name="backbone"), **TINY
    )
    arrays = random_backbone(model, np.random.default_rng(0))
    load_detectron2(model, arrays)
    name = "backbone.bottom_up.res3.0.conv2.norm.weight"
    gamma = ops.convert_to_numpy(model.backbone.res3[0].conv2.norm.gamma)
    np.testing.assert_array_equal(gamma, arrays[name].astype(np.float32))
    arrays["backbone.bottom_up.stem.conv1.norm.running_mean"] = np.zeros(32)
    with pytest.raises(WeightsError, match=r"left over in the source: .*running_mean"):
        load_detectron2(model, arrays)


def test_inferred_model_is_the_one_that_was_saved(golden):
    config = infer_model(detectron2_source(Checkpoint(golden))).get_config()
    wanted = make_small_model().get_config()
    assert config["backbone"]["config"] == {
        **wanted["backbone"]["config"],
        "name": "backbone",
    }
    keys = ("fpn_channels", "semantic_channels", "box_head_units", "mask_head_channels")
    for key in (*keys, "num_thing_classes", "num_stuff_classes", "pixel_std", "tasks"):
        assert config[key] == wanted[key], key


def test_inferred_resnext(golden):
    """Two groups of two channels: detectron2 strides in the 3x3 and divides by a deviation."""
    source = dict(golden)
    for name, value in golden.items():
        if "bottom_up.res" in name and name.endswith("conv2.weight"):
            source[name] = value[:, : value.shape[1] // 2]
    model = infer_model(detectron2_source(Checkpoint(source)))
    config = model.backbone.get_config()
    assert (config["groups"], config["group_width"], config["stride_in_1x1"]) == (2, 2, False)
    assert model.config["pixel_std"] == (58.395, 57.12, 57.375)
    assert not load_detectron2(model, source).missing


def test_checkpoint_that_fits_no_model(golden):
    with pytest.raises(WeightsError, match=r"no ResNet has \[3, 4, 7, 3\] blocks"):
        infer_model(detectron2_source(Checkpoint(more_blocks(golden))))
    with pytest.raises(WeightsError, match="give --config"):
        infer_model(detectron2_source(Checkpoint(to_caffe2(golden))))


VARIANTS = {
    "Panoptic FPN": ({}, {}),
    "Mask R-CNN, two anchors": ({}, {"tasks": ("instance",), "anchor_ratios": (0.5, 2.0)}),
    "Semantic FPN of every class": ({}, {"tasks": ("semantic",), "semantic_things": "all"}),
    "ResNeXt, grouped pyramid": (
        {"depth": 50, "groups": 4, "group_width": 8, "stride_in_1x1": False},
        {"fpn_groups": 2},
    ),
    "batch norms, the early semantic branch": (
        {"depth": 50, "norm": "sync_batch_norm"},
        {"semantic_design": "two_conv", "semantic_fuse": "concat", "semantic_channels": 64},
    ),
    "group norms": ({"norm": "group_norm"}, {}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip_is_exact(variant):
    """A model's weights under detectron2's names, loaded again, are the same bits."""
    backbone, options = VARIANTS[variant]
    backbone = {"depth": 18, "stem_channels": 32, "width": 32, **backbone}
    model = PanopticFPN(backbone=ResNet(**backbone, name="backbone"), **{**TINY, **options})
    weights = [weight for layer in model.layers for weight in layer.weights]
    rng = np.random.default_rng(0)
    for weight in weights:
        weight.assign(rng.uniform(0.01, 0.02, weight.shape))
    first, source = [ops.convert_to_numpy(weight) for weight in weights], detectron2_arrays(model)
    for weight in weights:
        weight.assign(np.zeros(weight.shape))
    report = load_detectron2(model, source)
    assert not report.missing and not report.left_over
    for weight, value in zip(weights, first, strict=True):
        np.testing.assert_array_equal(weight, value, err_msg=weight.path)
