"""A run with every option of precision and optimisation, from the configuration to a result."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_panoptic_fpn import load_config
from tf_panoptic_fpn.evaluation.evaluate_run import evaluate_run
from tf_panoptic_fpn.inference.model_source import find_model
from tf_panoptic_fpn.models.build_model import load_model
from tf_panoptic_fpn.training.loop import train

pytestmark = pytest.mark.usefixtures("short_backbones")

TINY = pathlib.Path(__file__).parents[1] / "tiny.yaml"
OPTIONS = [
    "train.deterministic=false",  # it would hold for the tests that follow
    "train.precision=mixed_float16",
    "train.accumulate=2",
    "train.average_decay=0.5",
    "train.rematerialize=true",
    "train.class_weights={star: 2.0}",
    "data.repeat_threshold=0.9",
    "optimizer.algorithm=adamw",
    "optimizer.schedule=cosine",
    "optimizer.backbone_lr_factor=0.5",
    "merge.score_threshold=0.0",
]


@pytest.mark.slow
def test_a_run_goes_on_and_ends_with_the_average(tmp_path):
    train(load_config(TINY, [*OPTIONS, "train.steps=2"]), tmp_path)
    train(load_config(TINY, [*OPTIONS, "train.steps=3"]), tmp_path)
    checkpoint = tf.train.load_checkpoint(str(tmp_path / "checkpoints"))

    def value(name):
        return checkpoint.get_tensor(f"{name}/.ATTRIBUTES/VARIABLE_VALUE")

    # The scale begins too high for this model: a step or two are skipped, and halve it.
    finite = value("state/average/num_steps")
    assert 1 <= finite <= 3
    (count,) = (name for name in checkpoint.get_variable_to_shape_map() if "_iterations" in name)
    assert checkpoint.get_tensor(count) == finite
    assert value("state/loss_scale/value") == 2.0 ** (15 - (3 - finite))
    model = load_model(tmp_path / "model.keras")
    assert model.dtype_policy.name == "mixed_float16"
    kernel = keras.ops.convert_to_numpy(model.backbone.stem.conv.kernel)
    np.testing.assert_array_equal(kernel, value("state/average/averages/0"))
    assert np.isfinite(evaluate_run(find_model(tmp_path))["panoptic"]["All"]["PQ"])
