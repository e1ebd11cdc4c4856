"""What a backbone is: a layer from images to C2..C5 that says what it was trained with."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.schema import Shape

LEVELS = ("C2", "C3", "C4", "C5")
STRIDES = (4, 8, 16, 32)
IMAGENET_MEAN = (123.675, 116.28, 103.53)  # RGB
IMAGENET_STD = (58.395, 57.12, 57.375)
NO_DECAY = ("gamma", "beta", "grid", "first")  # of norms and position embeddings


class Backbone(keras.layers.Layer):
    """Normalised images -> maps of stride 4, 8, 16 and 32.

    Call: float `[B, H, W, 3]`, RGB, `(pixel - pixel_mean) / pixel_std`, H and W multiples of 32 ->
    dict "C2".."C5" of `[B, H/4, W/4, channels[0]]`..`[B, H/32, W/32, channels[3]]`.

    Attributes:
        channels: 4 ints, the channels of C2..C5.
        pixel_mean: RGB of 0 to 255, what a model subtracts unless told otherwise.
        pixel_std: RGB, what it divides by.
    """

    channels: Sequence[int]
    pixel_mean: tuple[float, ...] = IMAGENET_MEAN
    pixel_std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def depths(self) -> list[list[keras.layers.Layer]]:
        """The layers whose weights start from a checkpoint, by depth, the stem first.

        Freezing and layer-wise decay of the learning rate go by it.
        """
        raise NotImplementedError

    def compute_output_shape(self, input_shape: Shape) -> dict[str, Shape]:
        batch, height, width, _ = input_shape
        shapes = {}
        for level, stride, channels in zip(LEVELS, STRIDES, self.channels, strict=True):
            sizes = [None if size is None else size // stride for size in (height, width)]
            shapes[level] = (batch, *sizes, channels)
        return shapes


def freeze(backbone: Backbone, freeze_at: int) -> None:
    """Takes the first fifths of a backbone's depths out of training; 2 of 5 are stem and res2."""
    depths = backbone.depths()
    for layers in depths[: -(-freeze_at * len(depths) // 5)]:
        for layer in layers:
            layer.trainable = False


def rate_factors(backbone: keras.layers.Layer | None, decay: float) -> dict[str, float]:
    """Returns what a layer-wise decay multiplies the learning rate of a backbone's weights by.

    Of D depths the last has `decay`, the one before `decay^2`, the stem `decay^D`; what is not of
    the backbone's checkpoint, such as a pyramid of its own, has 1.

    Args:
        backbone: the layer.
        decay: float in (0, 1].

    Returns:
        Dict: path of a variable -> factor.

    Raises:
        ConfigError: if the layer has no depths.

    Reference: ViTDet, arXiv:2203.16527, appendix A.2; BEiT, arXiv:2106.08254.
    """
    if decay == 1.0:
        return {}
    if not isinstance(backbone, Backbone):
        raise ConfigError(
            "`optimizer.layer_decay` takes a backbone with depths. Received: "
            f"{type(backbone).__name__}"
        )
    depths = backbone.depths()
    return {
        variable.path: decay ** (len(depths) - i)
        for i, layers in enumerate(depths)
        for layer in layers
        for variable in layer.weights
    }


def variable_factors(variables: Sequence[keras.Variable], optimizer: Any) -> list[float]:
    """Returns what an optimizer multiplies the learning rate of each of a model's variables by.

    Args:
        variables: those of the model.
        optimizer: has `backbone_lr_factor`, for all of the backbone, and `depth_factors`, by the
            path of a variable, or None.
    """
    depths = optimizer.depth_factors or {}
    factor = optimizer.backbone_lr_factor
    backbone = [factor if v.path.startswith("backbone/") else 1.0 for v in variables]
    return [a * depths.get(v.path, 1.0) for a, v in zip(backbone, variables, strict=True)]


def decays(variable: keras.Variable) -> bool:
    """Says if weight decay acts on a variable: all but norms and position embeddings."""
    return variable.path.rsplit("/", 1)[-1] not in NO_DECAY


def check_maps(shapes: Any, size: Sequence[int]) -> None:
    """Raises ConfigError unless maps are C2..C5 of an image of some size."""
    given = isinstance(shapes, Mapping) and set(LEVELS) <= set(shapes)
    wanted = [tuple(side // stride for side in size) for stride in STRIDES]
    if not given or [tuple(shapes[level].shape[1:3]) for level in LEVELS] != wanted:
        received = (
            {name: tuple(getattr(value, "shape", ())) for name, value in shapes.items()}
            if isinstance(shapes, Mapping)
            else type(shapes).__name__
        )
        raise ConfigError(
            f"A backbone must give a dict of C2 to C5, of strides 4, 8, 16 and 32; received of an "
            f"image of {size[0]} x {size[1]}: {received}"
        )
