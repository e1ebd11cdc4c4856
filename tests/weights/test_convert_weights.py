"""`python -m tf_panoptic_fpn convert-weights`."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import safetensors
from foreign_checkpoints import to_caffe2, to_mmdet, to_torchvision
from keras import ops
from safetensors.numpy import save_file

from tf_panoptic_fpn import PanopticFPN, load_model
from tf_panoptic_fpn import __main__ as command
from tf_panoptic_fpn.backbones.resnet import ResNet
from tf_panoptic_fpn.commands import convert_weights as commands
from tf_panoptic_fpn.errors import exit_on_error
from tf_panoptic_fpn.weight_files.checkpoint_files import Checkpoint
from tf_panoptic_fpn.weights import (
    WeightsError,
    convert_weights,
    load_detectron2,
    load_tf_panoptic_fpn,
)
from tf_panoptic_fpn.weights.convert import (
    SOURCES,
    check_output,
    find_source,
    open_source,
    write_model,
)
from tf_panoptic_fpn.weights.detectron2 import CHANNEL_ORDERS
from tf_panoptic_fpn.weights.infer_model import infer_model
from tf_panoptic_fpn.weights.mmdet import STYLES
from tf_panoptic_fpn.weights.set_weights import set_weights

CONFIG = """
model:
  backbone: resnet18
  fpn_channels: 8
  semantic_channels: 32
  box_head_units: 8
  mask_head_channels: 8
  num_thing_classes: 2
  num_stuff_classes: 2
  rpn_top_k_test: [20, 10]
"""


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["tf_panoptic_fpn", "convert-weights", *map(str, arguments)])
    exit_on_error(command.main)


def test_whole_detector_needs_no_configuration(
    monkeypatch, goldens_dir, model, golden, tmp_path, capsys
):
    output = tmp_path / "new" / "model.keras"
    run(monkeypatch, "--source=detectron2", goldens_dir / "weights_small.npz", output)
    assert "Self-check: finite outputs" in capsys.readouterr().out
    load_detectron2(model, golden)
    converted = load_model(output)
    loaded = {weight.path: ops.convert_to_numpy(weight) for weight in converted.weights}
    for layer in model.layers:
        for weight in layer.weights:
            np.testing.assert_array_equal(loaded[weight.path], weight, err_msg=weight.path)
    images = np.random.default_rng(0).uniform(0, 255, (1, 64, 96, 3)).astype(np.float32)
    np.testing.assert_allclose(
        converted(images)["semantic_logits"], model(images)["semantic_logits"], rtol=1e-5, atol=1e-5
    )


def test_configuration_for_a_backbone(monkeypatch, tmp_path, golden, capsys):
    """A ResNet-50 backbone does not fit a ResNet-18: one line, nothing written."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    np.savez(tmp_path / "R-50.npz", **to_caffe2(golden))
    arguments = ("--source=detectron2", tmp_path / "R-50.npz", tmp_path / "model.keras")
    for options, message in (
        (("--config", tmp_path / "config.yaml"), "of another shape: backbone/stem/conv/kernel"),
        ((), "cannot be read off the checkpoint"),
    ):
        with pytest.raises(SystemExit) as caught:
            run(monkeypatch, *options, *arguments)
        assert caught.value.code == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not (tmp_path / "model.keras").exists()


def test_patterns_and_options_on_the_command_line(monkeypatch, tmp_path, golden, capsys):
    source = to_mmdet(golden, style="caffe") | {"ema.weight": np.zeros(3)}
    np.savez(tmp_path / "mmdet.npz", **source)
    arguments = ("--source=mmdet", tmp_path / "mmdet.npz", tmp_path / "model.keras")
    for options, message in (
        (("--style=caffe",), "left over in the source: ema.weight"),
        (("--norm-epsilon=0",), "mmdet has no option `norm_epsilon`"),
    ):
        with pytest.raises(SystemExit):
            run(monkeypatch, *options, *arguments)
        assert message in capsys.readouterr().err
    run(monkeypatch, "--allow-left-over=ema.*", "--style=caffe", *arguments)
    model = load_model(tmp_path / "model.keras")
    assert tuple(model.config["pixel_std"]) == (1, 1, 1)
    assert model.backbone.config["stride_in_1x1"]
    stem = np.transpose(golden["backbone.bottom_up.stem.conv1.weight"], (2, 3, 1, 0))
    np.testing.assert_array_equal(model.backbone.stem.conv.kernel, stem[:, :, ::-1])


@pytest.fixture(scope="module")
def ours():
    """A tiny Semantic FPN of this package with random weights, and those."""
    backbone = ResNet(18, "frozen_affine", stem_channels=8, width=4, name="backbone")
    model = PanopticFPN(
        backbone=backbone, tasks=("semantic",), semantic_channels=32, pixel_std=(58.0, 57.0, 57.0)
    )
    rng = np.random.default_rng(0)
    weights = [rng.uniform(0.01, 0.02, weight.shape) for weight in model.weights]
    for weight, value in zip(model.weights, weights, strict=True):
        weight.assign(value)
    return model, [ops.convert_to_numpy(weight) for weight in model.weights]


@pytest.fixture(scope="module")
def keras_file(ours, tmp_path_factory):
    path = tmp_path_factory.mktemp("ours") / "model.keras"
    write_model(ours[0], path)
    return path


def test_ours_to_safetensors_and_back(monkeypatch, ours, keras_file, tmp_path, capsys):
    """The weights are the same bits, the model has the same arguments; HOME and $X are found."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OURS", str(keras_file.parent))
    run(monkeypatch, "$OURS/model.keras", "~/model.safetensors")
    assert "0 left over in the source\n0 missing from the source" in capsys.readouterr().out
    path = tmp_path / "model.safetensors"
    with safetensors.safe_open(path, "np") as file:  # in detectron2's names and layouts
        kernel = file.get_tensor("backbone.fpn_output2.weight")
    wanted = np.transpose(ours[0].fpn.outputs[0].kernel, (3, 2, 0, 1))
    np.testing.assert_array_equal(kernel, wanted)

    source = open_source(path)
    configs = (infer_model(source).get_config(), ours[0].get_config())
    assert json.loads(json.dumps(configs[0])) == json.loads(json.dumps(configs[1]))
    model, weights = ours
    try:
        for weight in model.weights:
            weight.assign(np.zeros(weight.shape))
        report = load_tf_panoptic_fpn(model, path)
        assert not report.missing and not report.left_over
        for weight, value in zip(model.weights, weights, strict=True):
            if "seed" not in weight.path:
                np.testing.assert_array_equal(weight, value, err_msg=weight.path)
    finally:
        for weight, value in zip(model.weights, weights, strict=True):
            weight.assign(value)


def test_initial_weights_of_our_own(ours, keras_file):
    """Those of another number of classes are refused, in one line."""
    source = open_source(keras_file, "tf_panoptic_fpn")
    assert list(source.expects["pixel_std"]) == [58.0, 57.0, 57.0]
    assert source.expects["stride_in_1x1"] is True
    name = "sem_seg_head.predictor.bias"
    source.arrays[name] = np.zeros(3)
    with pytest.raises(WeightsError, match=r"number of classes differs") as caught:
        set_weights(ours[0], source)
    assert "\n" not in str(caught.value)


def test_our_safetensors_without_a_model(keras_file, tmp_path):
    arrays = {"backbone.fpn_output2.bias": np.ones(3, np.float32)}
    for config in ("{}", "[", '{"backbone": {"class_name": "Lambda"}}', '{"backbone": "resnet18"}'):
        save_file(arrays, tmp_path / "a.safetensors", {"tf_panoptic_fpn": config})
        with pytest.raises(WeightsError, match="does not say which model of this package"):
            open_source(tmp_path / "a.safetensors")
    config = {"pixel_mean": 1, "pixel_std": 1, "roi_sampling_ratio": 1, "stride_in_1x1": 1}
    config = json.dumps({"backbone": "resnet7", **config})
    save_file(arrays, tmp_path / "a.safetensors", {"tf_panoptic_fpn": config})
    with pytest.raises(WeightsError, match="the file's model cannot be built"):
        infer_model(open_source(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("suffix", [".keras", ".safetensors"])
def test_what_is_there_is_replaced_by_its_own_kind_only(ours, tmp_path, suffix, monkeypatch):
    path = tmp_path / f"model{suffix}"
    path.write_text("my thesis")
    with pytest.raises(WeightsError, match=rf"is there and no {suffix} file; it is not replaced"):
        convert_weights(None, tmp_path / "absent", path)
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(WeightsError, match="it is not replaced"):
        check_output(tmp_path / f"folder{suffix}")
    assert path.read_text() == "my thesis"
    path.unlink()
    write_model(ours[0], path)
    path.chmod(0o640)
    check_output(path)
    before = path.stat().st_ino
    write_model(ours[0], path)
    assert path.stat().st_ino != before and path.stat().st_mode & 0o777 == 0o640
    data = path.read_bytes()

    def fail(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(PanopticFPN, "save", fail)
    monkeypatch.setattr("safetensors.numpy.save_file", fail)
    with pytest.raises(WeightsError, match=r"cannot be written: No space left on device"):
        write_model(ours[0], path)
    assert path.read_bytes() == data
    assert {file.name for file in tmp_path.iterdir()} == {path.name, f"folder{suffix}"}


def test_the_source_is_told_by_the_names(golden):
    makers = {
        "detectron2": lambda: golden,
        "torchvision": lambda: to_torchvision(golden),
        "mmdet": lambda: to_mmdet(golden),
        "keras_applications": lambda: {"conv1_conv/kernel": 0, "conv2_block1_1_bn/gamma": 0},
    }
    for source, make in makers.items():
        for prefix in ("", "model.") if source != "keras_applications" else ("",):
            arrays = {prefix + name: np.asarray(value) for name, value in make().items()}
            assert find_source(Checkpoint(arrays)) == source
    assert find_source(Checkpoint(to_caffe2(golden))) == "detectron2"
    assert find_source(Checkpoint(to_torchvision(golden, body=""))) == "torchvision"
    assert find_source(Checkpoint({"transformer.w": np.ones(3)})) is None
    assert set(commands.SOURCES) == set(SOURCES)
    assert commands.CHANNEL_ORDERS == CHANNEL_ORDERS and commands.STYLES == STYLES


def test_names_of_no_source(tmp_path):
    np.savez(tmp_path / "a.npz", w=np.ones(3))
    with pytest.raises(WeightsError, match=r"a\.npz: its names are of none of .*--source"):
        convert_weights(None, tmp_path / "a.npz", tmp_path / "model.keras")


def test_a_keras_file_of_another_model(tmp_path, keras_file):
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    other.save(tmp_path / "other.keras")
    with pytest.raises(WeightsError, match=r"other\.keras: must hold a PanopticFPN. .*Sequential"):
        open_source(tmp_path / "other.keras")
    with pytest.raises(WeightsError, match="is a whole Keras model, of which load_tf_panoptic_fpn"):
        open_source(keras_file, "detectron2")
    (tmp_path / "half.keras").write_bytes(keras_file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"half\.keras: truncated"):
        open_source(tmp_path / "half.keras")


def test_help_and_readers_need_no_framework():
    program = (
        "import sys, argparse, tf_panoptic_fpn.commands.convert_weights as command\n"
        "command.add_arguments(argparse.ArgumentParser())\n"
        "from tf_panoptic_fpn import weights; from tf_panoptic_fpn.weights import zoo, convert\n"
        "weights.WeightsError, weights.PREDICTORS, weights.load_mmdet, weights.MODEL_ZOO\n"
        "sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_bad_arguments(tmp_path):
    with pytest.raises(WeightsError, match=r"must end in \.keras"):
        convert_weights("detectron2", "a.pkl", tmp_path / "model.h5")
    with pytest.raises(WeightsError, match="source must be one of detectron2"):
        convert_weights("caffe", "a.pkl", tmp_path / "model.keras")
    with pytest.raises(WeightsError, match="no such file"):
        convert_weights("mmdet", tmp_path / "a.pth", tmp_path / "model.keras")
