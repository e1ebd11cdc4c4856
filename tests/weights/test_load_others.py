"""torchvision, mmdet and Keras Applications: the golden under their names gives its weights."""

import keras
import numpy as np
import pytest
from foreign_checkpoints import HEADS, TINY, to_mmdet, to_torchvision
from keras import ops

from tf_panoptic_fpn import PanopticFPN
from tf_panoptic_fpn.backbones.resnet import ResNet
from tf_panoptic_fpn.weight_files.checkpoint_files import Checkpoint
from tf_panoptic_fpn.weights import (
    WeightsError,
    load_keras_applications,
    load_mmdet,
    load_torchvision,
)
from tf_panoptic_fpn.weights.infer_model import infer_model
from tf_panoptic_fpn.weights.torchvision import torchvision_source

STRIDE = {"allow_config": ("stride_in_1x1",)}  # these networks stride in the 3x3, the golden not


def test_torchvision_mask_rcnn(model, golden, assert_loaded):
    source = to_torchvision(golden)
    report = load_torchvision(model, source, allow_missing=("semantic_head/*",), **STRIDE)
    assert_loaded(kept=("semantic_head/",))
    assert not report.left_over
    assert any("RoIAlign" in note for note in report.notes)


def test_torchvision_before_0_13(model, golden, assert_loaded):
    """Its feature pyramid, RPN and mask head were not nested."""
    source = {}
    for name, value in to_torchvision(golden).items():
        name = name.replace("_blocks.0.0.", "_blocks.0.").replace("_blocks.1.0.", "_blocks.1.")
        name = name.replace("_blocks.2.0.", "_blocks.2.").replace("_blocks.3.0.", "_blocks.3.")
        name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for i in range(4):
            name = name.replace(f"mask_head.{i}.0.", f"mask_head.mask_fcn{i + 1}.")
        source[name] = value
    load_torchvision(model, source, allow_missing=("semantic_head/*",), **STRIDE)
    assert_loaded(kept=("semantic_head/",))


def test_torchvision_classifier(model, golden, assert_loaded):
    source = to_torchvision(golden, body="")
    source |= {"fc.weight": np.zeros((10, 128)), "fc.bias": np.zeros(10)}
    source["bn1.num_batches_tracked"] = np.array(5)
    report = load_torchvision(model, source, **STRIDE)
    assert_loaded(kept=HEADS)
    assert [name for name, _ in report.unused] == [
        "bn1.num_batches_tracked",
        "fc.bias",
        "fc.weight",
    ]
    assert any(note.startswith("The stem is scaled") for note in report.notes)


def test_torchvision_epsilon(model, golden):
    source = to_torchvision(golden, body="")
    load_torchvision(model, source, norm_epsilon=0.0, **STRIDE)
    scale = source["layer1.0.bn1.weight"] / np.sqrt(source["layer1.0.bn1.running_var"])
    loaded = ops.convert_to_numpy(model.backbone.res2[0].conv1.norm.scale)
    np.testing.assert_allclose(loaded, scale, rtol=1e-6)


def test_the_published_detector_has_no_epsilon(golden):
    source = to_torchvision(golden)
    predictor = "roi_heads.box_predictor.cls_score"
    source[f"{predictor}.bias"] = np.zeros(91)
    name = "backbone.bottom_up.res2.0.conv1.norm.running_var"
    variance = source["backbone.body.layer1.0.bn1.running_var"]
    converted = torchvision_source(Checkpoint(source))
    np.testing.assert_allclose(converted.arrays[name], variance - 1e-5, rtol=1e-6)
    assert any("COCO_V1" in note for note in converted.notes)
    for other in (
        {**source, "backbone.body.bn1.num_batches_tracked": np.array(3)},
        to_torchvision(golden),
        to_torchvision(golden, body=""),
    ):
        converted = torchvision_source(Checkpoint(other))
        np.testing.assert_array_equal(converted.arrays[name], variance)
    np.testing.assert_array_equal(
        torchvision_source(Checkpoint(source), 1e-5).arrays[name], variance
    )


def test_torchvision_detector_is_inferred(golden):
    """It samples each bin of RoIAlign twice along an axis."""
    config = infer_model(torchvision_source(Checkpoint(to_torchvision(golden)))).config
    assert (config["roi_sampling_ratio"], config["num_thing_classes"]) == (2, 5)
    assert config["pixel_std"] == (58.395, 57.12, 57.375)


def test_stride_and_mean_must_be_the_model_s(model, golden, unchanged):
    with pytest.raises(WeightsError, match="stride_in_1x1 False and the model has True"):
        load_torchvision(model, to_torchvision(golden, body=""))


def test_torchvision_v2_detector_is_another_architecture(model, golden, unchanged):
    source = to_torchvision(golden)
    for name in list(source):
        if name.startswith("backbone.fpn"):
            source[name.replace(".0.weight", ".1.weight")] = source.pop(name)
    with pytest.raises(WeightsError, match=r"missing .* fpn/lateral2/.*left over .*inner_blocks"):
        load_torchvision(model, source, allow_missing=("semantic_head/*",), **STRIDE)


def test_mmdet_panoptic_fpn(model, golden, assert_loaded):
    source = to_mmdet(golden)
    source["data_preprocessor.mean"] = np.zeros(3)
    report = load_mmdet(model, source, **STRIDE)
    assert_loaded()
    assert len(report.unused) == 1 and not report.left_over


def test_mmdet_caffe_style(model, golden, assert_loaded):
    load_mmdet(model, to_mmdet(golden, style="caffe"), style="caffe")
    assert_loaded(rtol=0)
    with pytest.raises(ValueError, match="style"):
        load_mmdet(model, {}, style="tensorflow")


def test_mmdet_mask_rcnn(model, golden, assert_loaded):
    source = {n: v for n, v in to_mmdet(golden).items() if not n.startswith("semantic_head")}
    load_mmdet(model, source, allow_missing=("semantic_head/*",), **STRIDE)
    assert_loaded(kept=("semantic_head/",))


def test_mmdet_wants_its_stride(model, golden, unchanged):
    with pytest.raises(WeightsError, match="stride_in_1x1 False and the model has True"):
        load_mmdet(model, to_mmdet(golden))


@pytest.fixture(scope="module")
def keras_resnet():
    """A narrow ResNet of Keras Applications with random statistics, and its stages' outputs."""
    resnet = pytest.importorskip("keras.src.applications.resnet")

    def stages(x):
        for stage, blocks in enumerate((3, 4, 6, 3), start=2):
            options = {"stride1": 1} if stage == 2 else {}
            x = resnet.stack_residual_blocks_v1(x, 2**stage, blocks, name=f"conv{stage}", **options)
        return x

    network = resnet.ResNet(
        stages, False, True, weights=None, include_top=False, input_shape=(64, 96, 3)
    )
    rng = np.random.default_rng(0)
    for weight in network.weights:
        if weight.path.endswith("variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif len(weight.shape) == 1:
            weight.assign(rng.normal(0.5, 0.2, weight.shape))
    names = ["conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"]
    outputs = [network.get_layer(name).output for name in names]
    return network, keras.Model(network.input, outputs)


@pytest.fixture(scope="module")
def keras_model():
    """A model for it, with the mean of its preprocessing."""
    backbone = ResNet(50, stem_channels=64, width=4, name="backbone")
    return PanopticFPN(backbone=backbone, pixel_mean=(123.68, 116.779, 103.939), **TINY)


@pytest.mark.parametrize("top", [False, True])
def test_keras_applications(keras_resnet, keras_model, tmp_path, top):
    h5py = pytest.importorskip("h5py")
    network, stages = keras_resnet
    path = tmp_path / "resnet50_weights.h5"
    with h5py.File(path, "w") as file:  # the layout of the published files
        for layer in network.layers:
            group = file.create_group(layer.name)
            for weight in layer.weights:
                group[f"{layer.name}/{weight.name}:0"] = ops.convert_to_numpy(weight)
        if top:
            file["predictions/predictions/kernel:0"] = np.zeros((128, 10))
            file["predictions/predictions/bias:0"] = np.zeros(10)
    report = load_keras_applications(keras_model, path)
    assert len(report.unused) == 2 * top
    assert ("conv1_conv/bias" in report.matched[2][1]) and not report.left_over

    images = np.random.default_rng(1).uniform(0, 255, (1, 64, 96, 3)).astype(np.float32)
    bgr = images[..., ::-1] - np.float32([103.939, 116.779, 123.68])
    features = keras_model.backbone(keras_model.normalize(images)[0])
    for i, feature in enumerate(stages(bgr)):
        feature = ops.convert_to_numpy(feature)
        tolerance = 1e-5 * np.abs(feature).max()
        np.testing.assert_allclose(features[f"C{i + 2}"], feature, rtol=0, atol=tolerance)


def test_keras_bias_of_another_shape_is_left_over(model, unchanged):
    source = {"conv1_conv/bias": np.zeros(3), "conv1_bn/moving_mean": np.zeros(8)}
    with pytest.raises(WeightsError, match="left over in the source: conv1_conv/bias"):
        load_keras_applications(model, source)


def test_keras_applications_mean(keras_resnet, tmp_path, model, unchanged):
    source = {
        f"{layer.name}/{weight.name}": ops.convert_to_numpy(weight)
        for layer in keras_resnet[0].layers
        for weight in layer.weights
    }
    with pytest.raises(WeightsError, match=r"pixel_mean \(123.68, 116.779, 103.939\)"):
        load_keras_applications(model, source)
