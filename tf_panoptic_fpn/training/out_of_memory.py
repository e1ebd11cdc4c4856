"""A step that does not fit into memory, and what would."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.config import TrainConfig
from tf_panoptic_fpn.errors import TrainingError

COPIES = 3  # of a trained weight: itself, its gradient, its momentum


@contextlib.contextmanager
def explaining_memory(
    settings: TrainConfig, model: keras.Model, batch: Mapping[str, Any]
) -> Iterator[None]:
    """Names what takes the memory of a step, and the settings that take less, where it runs out.

    Args:
        settings: `TrainConfig`.
        model: the model that is trained.
        batch: the distributed batch of the step (`schema`).

    Raises:
        TrainingError: in place of TensorFlow's error of several pages.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError:
        share, height, width, _ = _local(batch[schema.IMAGES]).shape
        masks = _local(batch[schema.GT_MASKS])
        images = share // settings.accumulate
        trained = sum(math.prod(weight.shape) for weight in model.trainable_variables)
        raise TrainingError(
            "A step does not fit into memory. Weights, gradients and momentum take "
            f"{_text(4 * COPIES * trained)}, {masks.shape[1]} masks an image "
            f"{_text(_bytes(masks))} (`data.max_instances`), the pictures "
            f"{_text(images * height * width * 12)}; "
            f"the rest is features of {images} image(s) of {height} x {width} at once: a larger "
            "`train.accumulate`, a smaller `train.batch_size` or `short_sides` of data.train, "
            "`train.rematerialize: true` or `train.precision: mixed_bfloat16` take less"
        ) from None


def _local(value: Any) -> tf.Tensor:
    """A tensor of the first replica."""
    return value.values[0] if hasattr(value, "values") else value


def _bytes(tensor: tf.Tensor) -> int:
    return int(tf.size(tensor)) * tensor.dtype.size


def _text(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.2f} MB"
