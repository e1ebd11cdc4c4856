"""Every op of a train step can run on a GPU, as far as TensorFlow's list of kernels says."""

import keras
import pytest
import tensorflow as tf
from gpu_kernels import gpu_kernels, ops_without_gpu_kernel
from small_model import TINY_OPTIONS, make_batch, make_tiny_model

from tf_panoptic_fpn import PanopticFPN
from tf_panoptic_fpn.backbones.resnet import ResNet
from tf_panoptic_fpn.training.optimizer import SGD
from tf_panoptic_fpn.training.step import make_train_step

pytestmark = [
    pytest.mark.usefixtures("short_backbones"),
    pytest.mark.skipif(
        not gpu_kernels("Conv2D"), reason="this build of TensorFlow knows no kernels of GPUs"
    ),
]


def missing(make_model=make_tiny_model):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = make_model()
        optimizer = SGD(0.01, momentum=0.9, weight_decay=1e-4, reduces_gradients=False)
        optimizer.build(model.trainable_variables)
    batch = {key: tf.constant(value) for key, value in make_batch(2).items()}
    train_step = make_train_step(model, optimizer, strategy, None, clip_norm=1.0)
    return ops_without_gpu_kernel(train_step.get_concrete_function(batch))


def test_what_no_gpu_has_is_found():
    @tf.function
    def example(x):
        return tf.gather(x, tf.range(2)) + tf.cast(tf.strings.length(["a"]), tf.uint8)

    found = ops_without_gpu_kernel(example.get_concrete_function(tf.TensorSpec([3], tf.uint8)))
    assert {text.partition("(")[0] for text in found} == {"GatherV2", "StringLength"}


def test_train_step():
    assert missing() == {}


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_train_step_in_half_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        found = missing()
    finally:
        keras.config.set_dtype_policy("float32")
    assert found == {}


def of_batch_norm():
    backbone = ResNet(50, "sync_batch_norm", 0, stem_channels=8, width=8, groups=2, name="backbone")
    return PanopticFPN(**{**TINY_OPTIONS, "backbone": backbone})


@pytest.mark.slow
@pytest.mark.parametrize(
    "make_model", [of_batch_norm, lambda: make_tiny_model(tasks=("semantic",))]
)
def test_train_step_of_variants(make_model):
    assert missing(make_model) == {}
