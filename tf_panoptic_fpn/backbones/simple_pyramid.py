"""A plain vision transformer as a backbone: one map of stride 16 becomes C2..C5 (ViTDet)."""

from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.backbones.backbone import LEVELS
from tf_panoptic_fpn.schema import Shape, Tensor, Tensors

EPSILON = 1e-6  # of the layer norms, as in vision transformers


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class SimplePyramid(keras.layers.Layer):
    """One map of stride 16 -> C2..C5, by deconvolution and pooling.

    C2: two 2x2 deconvolutions of stride 2, the first with layer norm and GELU; C3: one; C4: the map
    itself; C5: the largest of 2x2. ViTDet goes on with convolutions to 256 channels on each level,
    in whose place is the pyramid network here.

    Call: float `[B, H/16, W/16, D]` -> dict "C2".."C5" of `[B, H/4, W/4, D/4]`,
    `[B, H/8, W/8, D/2]`, `[B, H/16, W/16, D]`, `[B, H/32, W/32, D]`.

    Reference: Exploring Plain Vision Transformer Backbones for Object Detection, arXiv:2203.16527,
    section 3.
    """

    def build(self, input_shape: Shape) -> None:
        dim = input_shape[-1]
        self.channels = [dim // 4, dim // 2, dim, dim]
        self.up2 = self._deconv(dim // 2, "up2")
        self.norm2 = keras.layers.LayerNormalization(
            epsilon=EPSILON, dtype=self.dtype_policy, name="norm2"
        )
        self.up2_again = self._deconv(dim // 4, "up2_again")
        self.up3 = self._deconv(dim // 2, "up3")
        for layer in (self.up2, self.up3):
            layer.build((None, None, None, dim))
        for layer in (self.norm2, self.up2_again):
            layer.build((None, None, None, dim // 2))

    def _deconv(self, filters: int, name: str) -> keras.layers.Conv2DTranspose:
        return keras.layers.Conv2DTranspose(
            filters,
            2,
            strides=2,
            data_format="channels_last",
            dtype=self.dtype_policy,
            name=name,
        )

    def call(self, inputs: Tensor) -> Tensors:
        c2 = self.up2_again(ops.gelu(self.norm2(self.up2(inputs)), approximate=False))
        c5 = ops.max_pool(inputs, 2, strides=2, padding="valid", data_format="channels_last")
        return dict(zip(LEVELS, (c2, self.up3(inputs), inputs, c5), strict=True))

    def compute_output_shape(self, input_shape: Shape) -> dict[str, Shape]:
        batch, height, width, dim = input_shape
        shapes = {}
        for level, scale, channels in zip(LEVELS, (4, 2, 1, 0.5), (4, 2, 1, 1), strict=True):
            sizes = [None if size is None else int(size * scale) for size in (height, width)]
            shapes[level] = (batch, *sizes, dim // channels)
        return shapes


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class PositionEmbedding(keras.layers.Layer):
    """A trained embedding of each place of a square grid, interpolated to a grid of any size.

    `grid` has it, and `first` that of the class token.

    Args:
        side: int, cells of a side of the square grid.
        dim: int D.

    The interpolation is bicubic with half-pixel centres, as that of `tf.image.resize`.

    Reference: DINOv2, arXiv:2304.07193; the kernel is Keys' with a = -0.5.
    """

    def __init__(self, side: int, dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.side = side
        self.dim = dim
        self.grid = self.add_weight(
            shape=(side, side, dim),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            name="grid",
        )
        self.first = self.add_weight(shape=(1, 1, dim), initializer="zeros", name="first")
        self.built = True

    def interpolated(self, height: Any, width: Any) -> Tensor:
        """Returns float `[1, height * width, D]`, row by row; ints or scalars are taken."""
        grid = ops.convert_to_tensor(self.grid)
        known = isinstance(height, int) and isinstance(width, int)
        if not known or (height, width) != (self.side, self.side):
            rows = cubic_weights(self.side, height, grid.dtype)
            columns = cubic_weights(self.side, width, grid.dtype)
            grid = ops.einsum("Xx,Yxc->YXc", columns, ops.einsum("Yy,yxc->Yxc", rows, grid))
        return ops.reshape(grid, (1, -1, self.dim))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "side": self.side, "dim": self.dim}


def cubic_weights(extent: int, new_extent: Any, dtype: Any) -> Tensor:
    """Returns `[new_extent, extent]`, how much each cell weighs in each new one.

    Args:
        extent: int, cells.
        new_extent: int, or a scalar.
        dtype: of the weights.
    """
    cells = ops.arange(extent, dtype="float32")
    points = (ops.cast(ops.arange(new_extent, dtype="int32"), "float32") + 0.5) * (
        extent / ops.cast(new_extent, "float32")
    ) - 0.5
    distance = ops.abs(points[:, None] - cells)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = ops.where(distance <= 1, near, ops.where(distance < 2, far, 0.0))
    return ops.cast(weights / ops.sum(weights, axis=1, keepdims=True), dtype)
