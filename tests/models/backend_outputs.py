"""Runs the goldens' small model on the Keras backend of the environment and stores its numbers.

    KERAS_BACKEND=jax python backend_outputs.py GOLDENS OUTPUT.npz

Other backends than TensorFlow run without it.
"""

import os
import pathlib
import sys

if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    sys.modules["tensorflow"] = None

import keras
import numpy as np
from keras import ops

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from small_model import (  # noqa: E402
    TINY_MIT,
    TINY_SWIN,
    make_batch,
    make_small_model,
    stack_images,
)

from tf_panoptic_fpn import schema  # noqa: E402
from tf_panoptic_fpn.backbones.deformable_conv import DeformableConvNorm  # noqa: E402
from tf_panoptic_fpn.models.cascade import CascadeBoxHead, cascade_losses  # noqa: E402
from tf_panoptic_fpn.ops.panoptic_merge import panoptic_merge  # noqa: E402
from tf_panoptic_fpn.ops.resize import upsample_bilinear  # noqa: E402
from tf_panoptic_fpn.weights.detectron2 import load_detectron2  # noqa: E402


def compiled(function):
    """JAX is slow where it compiles every loop by itself."""
    if keras.backend.backend() != "jax":
        return function
    import jax

    return jax.jit(function)


def backend_outputs(goldens):
    """Dict of arrays: features, outputs, panoptic map and loss terms of the small model."""
    model = make_small_model()
    load_detectron2(model, goldens / "weights_small.npz")
    images, sizes = stack_images(dict(np.load(goldens / "infer_a.npz")))
    # The features are outputs too, so that the backbone is compiled once.
    features = dict(zip(("P2", "P3", "P4", "P5", "P6"), model.fpn.output, strict=True))
    with_features = keras.Model(model.input, {**features, **model.output})

    def infer(images, sizes):
        outputs = with_features({schema.IMAGES: images, schema.IMAGE_SIZES: sizes})
        semantic = upsample_bilinear(outputs[schema.SEMANTIC_LOGITS], 4)
        merged = panoptic_merge(
            outputs[schema.BOXES][0],
            outputs[schema.SCORES][0],
            outputs[schema.CLASSES][0],
            outputs[schema.MASK_PROBS][0],
            ops.argmax(semantic[0], axis=-1),
            ops.arange(5),
            ops.arange(101, 105),
            stuff_area=256,
        )
        return {**outputs, **{f"merged/{name}": value for name, value in merged.items()}}

    def train(batch):
        inputs = {name: batch[name] for name in (schema.IMAGES, schema.IMAGE_SIZES)}
        terms = model.loss_terms(model(inputs, training=True), batch)
        return {f"loss/{name}": ops.stack([*map(to_float, pair)]) for name, pair in terms.items()}

    batch = {name: ops.convert_to_tensor(value) for name, value in make_batch(2).items()}
    results = {
        **compiled(infer)(ops.convert_to_tensor(images), ops.convert_to_tensor(sizes)),
        **compiled(train)(batch),
        **cascade_outputs(),
        **backbone_outputs(),
    }
    return {name: ops.convert_to_numpy(value) for name, value in results.items()}


def cascade_outputs():
    """A modulated deformable convolution with its gradient, and a cascade with its losses."""
    rng = np.random.default_rng(0)
    norm = {"norm": "group_norm", "norm_groups": 4}
    conv = DeformableConvNorm(8, 3, strides=2, deform_groups=2, modulated=True, **norm)
    head = {"num_classes": 3, "units": 8, "design": "four_conv_one_fc", "channels": 8, **norm}
    weights = [(10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0)]
    cascade = CascadeBoxHead((0.5, 0.6), weights, head)
    features = {
        f"P{i}": ops.convert_to_tensor(rng.normal(size=(1, 64 >> i, 96 >> i, 8)), "float32")
        for i in range(2, 6)
    }
    conv.build(features["P2"].shape)
    cascade.build({name: value.shape for name, value in features.items()})
    for variable in (*conv.weights, *cascade.weights):
        variable.assign(rng.normal(0.1, 0.5, variable.shape))
    boxes = np.float32([[[4, 6, 40, 50], [5, 8, 44, 40], [0, 0, 64, 96], [30, 40, 60, 90]]])
    targets = {
        "rois": boxes,
        "classes": np.int32([[1, 3, 3, 2]]),
        "matched_boxes": boxes - 2,
        "is_valid": np.array([[True, True, True, False]]),
        "gt_boxes": boxes[:, :2] - 2,
        "gt_classes": np.int32([[1, 2]]),
        "gt_is_valid": np.array([[True, True]]),
        "image_sizes": np.int32([[64, 96]]),
    }
    targets = {name: ops.convert_to_tensor(value) for name, value in targets.items()}

    def run(features, targets):
        rois, logits, deltas = cascade(features, targets["rois"], targets["image_sizes"])
        results = {"rois": rois, "deltas": deltas, "conv": conv(features["P2"])}
        results |= {f"logits{i}": value for i, value in enumerate(logits)}
        results["conv_gradient"] = gradient(lambda x: ops.sum(conv(x) ** 3), features["P2"])
        for name, pair in cascade_losses(cascade, features, targets).items():
            results[name] = ops.stack([*map(to_float, pair)])
        return {f"cascade/{name}": value for name, value in results.items()}

    return compiled(run)(features, targets)


def backbone_outputs():
    """Maps of a network of one's own with separable heads behind it, and of three transformers."""
    import keras_hub

    from tf_panoptic_fpn.backbones.keras_hub import KerasHubBackbone
    from tf_panoptic_fpn.backbones.make_backbone import make_backbone
    from tf_panoptic_fpn.models.fpn import FPN

    x = image = keras.Input((None, None, 3))
    for i in range(5):  # with names, by which the weights are drawn
        x = keras.layers.Conv2D(8, 3, 2, "same", groups=8 if i else 1, name=f"conv{i}")(x)
        x = keras.layers.LayerNormalization(name=f"norm{i}")(x)
        x = keras.layers.Activation("gelu")(x)
    options = {"norm": "sync_batch_norm", "freeze_at": 0, "drop_path": 0.0}
    transformer = keras_hub.models.DINOV2Backbone(
        14, 1, 16, 2, 32, image_shape=(56, 56, 3), position_embedding_shape=(56, 56, 3)
    )
    layers = [make_backbone(m, options) for m in (keras.Model(image, x), transformer)]
    layers[0].bgr = True
    layers.append(KerasHubBackbone("MiTBackbone", TINY_MIT))
    layers.append(KerasHubBackbone("SwinTransformerBackbone", TINY_SWIN))
    pyramid = FPN(8, separable=True)
    images = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype("float32")
    images = ops.convert_to_tensor(images)
    layers[1].build(images.shape)
    pyramid.build(layers[0].compute_output_shape(images.shape))
    rng = np.random.default_rng(1)
    for layer in (*layers, pyramid):
        for variable in sorted(layer.weights, key=lambda v: v.path):
            if variable.dtype == "float32":
                variable.assign(rng.normal(0, 0.3, variable.shape))

    def run(images):
        maps = [layer(images) for layer in layers]
        maps.append(pyramid(maps[0]))
        return {f"backbone/{i}/{n}": v for i, m in enumerate(maps) for n, v in m.items()}

    return compiled(run)(images)


def gradient(function, x):
    """Of a scalar, to `x`."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(function)(x)
    if keras.backend.backend() == "torch":
        x = x.detach().requires_grad_()
        function(x).backward()
        return x.grad
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x)


def to_float(value):
    return ops.cast(value, "float32")


if __name__ == "__main__":
    np.savez(sys.argv[2], **backend_outputs(pathlib.Path(sys.argv[1])))
