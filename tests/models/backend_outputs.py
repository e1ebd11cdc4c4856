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

from small_model import make_batch, make_small_model, stack_images  # noqa: E402

from tf_panoptic_fpn import schema  # noqa: E402
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
    }
    return {name: ops.convert_to_numpy(value) for name, value in results.items()}


def to_float(value):
    return ops.cast(value, "float32")


if __name__ == "__main__":
    np.savez(sys.argv[2], **backend_outputs(pathlib.Path(sys.argv[1])))
