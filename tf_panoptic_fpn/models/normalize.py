"""From images to what the backbone reads."""

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.ops.precision import full_dtype
from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Tensor

STRIDE = 32  # of the coarsest backbone feature; the canvas is padded to a multiple


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class Normalize(keras.layers.Layer):
    """RGB 0-255 -> normalised input: (x - mean) / std, padding 0, sides multiples of 32.

    Call: (images `[B, H, W, 3]`, image_sizes int32 `[B, 2]` or None, the whole canvas) -> float
    `[B, ceil32(H), ceil32(W), 3]` and image_sizes int32 `[B, 2]`.
    """

    def __init__(self, mean: Iterable[float], std: Iterable[float], **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.mean = tuple(mean)
        self.std = tuple(std)

    def in_words(self) -> str:
        """Returns what is done to pixels, for a log."""
        mean, std = (", ".join(f"{x:g}" for x in values) for values in (self.mean, self.std))
        return f"RGB of 0 to 255, minus ({mean}), divided by ({std})"

    def call(self, images: Tensor, image_sizes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        batch, height, width = sides(images)[:3]
        if image_sizes is None:
            canvas = ops.stack([ops.cast(height, "int32"), ops.cast(width, "int32")])
            image_sizes = ops.broadcast_to(canvas, (batch, 2))
        image_sizes = ops.cast(image_sizes, "int32")
        dtype = full_dtype(self.compute_dtype)
        mean, std = (ops.convert_to_tensor(x, dtype=dtype) for x in (self.mean, self.std))
        x = (ops.cast(images, dtype) - mean) / std
        rows = ops.arange(height, dtype="int32") < image_sizes[:, :1]
        columns = ops.arange(width, dtype="int32") < image_sizes[:, 1:]
        inside = rows[:, :, None, None] & columns[:, None, :, None]
        x = ops.where(inside, x, 0.0)
        x = ops.pad(x, ((0, 0), (0, -height % STRIDE), (0, -width % STRIDE), (0, 0)))
        return ops.cast(x, self.compute_dtype), image_sizes

    def compute_output_spec(
        self, images: Tensor, image_sizes: Tensor | None = None
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        batch, height, width, channels = images.shape
        sizes = [None if size is None else size + -size % STRIDE for size in (height, width)]
        return (
            keras.KerasTensor((batch, *sizes, channels), dtype=self.compute_dtype),
            keras.KerasTensor((batch, 2), dtype="int32"),
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean": self.mean, "std": self.std}
