"""`python -m tf_panoptic_fpn convert-weights`."""

import sys

import numpy as np
import pytest
from foreign_checkpoints import to_caffe2, to_mmdet
from keras import ops

from tf_panoptic_fpn import __main__ as command
from tf_panoptic_fpn import load_model
from tf_panoptic_fpn.errors import exit_on_error
from tf_panoptic_fpn.weights import WeightsError, convert_weights, load_detectron2

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


def test_bad_arguments(tmp_path):
    with pytest.raises(WeightsError, match=r"must end in \.keras"):
        convert_weights("detectron2", "a.pkl", tmp_path / "model.h5")
    with pytest.raises(WeightsError, match="source must be one of detectron2"):
        convert_weights("caffe", "a.pkl", tmp_path / "model.keras")
    with pytest.raises(WeightsError, match="no such file"):
        convert_weights("mmdet", tmp_path / "a.pth", tmp_path / "model.keras")
