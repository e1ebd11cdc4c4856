"""Plain vision transformers of KerasHub (DINOv2, DINOv3) as backbones."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone, freeze
from tf_panoptic_fpn.backbones.drop_path import DropPath, drop_path_rates
from tf_panoptic_fpn.backbones.hub_network import hub_network
from tf_panoptic_fpn.backbones.network import building
from tf_panoptic_fpn.backbones.simple_pyramid import PositionEmbedding, SimplePyramid
from tf_panoptic_fpn.ops.resize import resize_bilinear
from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Shape, Tensor, Tensors

TRANSFORMERS = ("DINOV2Backbone", "DINOV3Backbone")
CELL = 16  # pixels of the canvas that a patch covers


@keras.saving.register_keras_serializable(package="tf_panoptic_fpn")
class VisionTransformer(Backbone):
    """A plain vision transformer with a simple pyramid.

    A patch covers 16 pixels of the canvas: with patches of 14, the image is brought to 14/16 of
    its size first, so that canvases of any size fit. DINOv2's position embeddings are interpolated
    to the canvas, and trained as those of their own grid; DINOv3's rotate with the place.

    Args:
        architecture: "DINOV2Backbone" or "DINOV3Backbone".
        arguments: those of the class; its own drop path is not used.
        pixel_mean: RGB of 0 to 255, see `Backbone`.
        pixel_std: RGB.
        norm: not used, the layer norms are trained.
        freeze_at: int 0-5, fifths of the depths, embeddings and blocks, that are not trained.
        drop_path: float, probability that the last block is left out for an image in training; it
            grows linearly from 0 at the first.
        source: an instance whose weights are taken; not part of the layer's configuration.

    Raises:
        ConfigError: if KerasHub is not installed.
    """

    def __init__(
        self,
        architecture: str,
        arguments: Mapping[str, Any],
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        norm: str = "frozen_affine",
        freeze_at: int = 2,
        drop_path: float = 0.0,
        source: keras.Model | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pixel_mean, self.pixel_std = tuple(pixel_mean), tuple(pixel_std)
        self.config: dict[str, Any] = {
            "architecture": architecture,
            "arguments": {**arguments, "drop_path_rate": 0.0},
            "pixel_mean": self.pixel_mean,
            "pixel_std": self.pixel_std,
            "norm": norm,
            "freeze_at": freeze_at,
            "drop_path": drop_path,
        }
        with building(self.name, self.dtype_policy):
            self.transformer = hub_network(architecture, self.config["arguments"])
            self.pyramid = SimplePyramid(dtype=self.dtype_policy, name="pyramid")
            self.pyramid.build((None, None, None, self.transformer.hidden_dim))
            self.positions = self._make_positions()
        if source is not None:
            self.transformer.set_weights(source.get_weights())
        self._take_over_positions()
        self.patch_size, self.dim = self.transformer.patch_size, self.transformer.hidden_dim
        self.channels = [self.dim // 4, self.dim // 2, self.dim, self.dim]
        self.blocks = self.transformer.encoder.layers
        rates = drop_path_rates(drop_path, len(self.blocks)) if drop_path else []
        self.drop_paths = [DropPath(rate, name=f"drop_path_{i}") for i, rate in enumerate(rates)]
        freeze(self, freeze_at)

    def _make_positions(self) -> PositionEmbedding | None:
        if not hasattr(self.transformer.embeddings, "position_embeddings"):
            return None
        table = self.transformer.embeddings.position_embeddings
        side = round((table.shape[1] - 1) ** 0.5)
        return PositionEmbedding(
            side, table.shape[2], dtype=self.dtype_policy, name="position_embedding"
        )

    def _take_over_positions(self) -> None:
        """KerasHub has two tables, for one size of images; which is trained is lost on saving."""
        embeddings = self.transformer.embeddings
        for name in ("mask_token", "position_embeddings", "interpolated_position_embeddings"):
            if hasattr(embeddings, name):
                getattr(embeddings, name).trainable = False
        if self.positions is not None:
            table = embeddings.position_embeddings
            self.positions.first.assign(table[:, :1])
            self.positions.grid.assign(ops.reshape(table[:, 1:], self.positions.grid.shape))

    def depths(self) -> list[list[keras.layers.Layer]]:
        stem = [self.transformer.embeddings, *filter(None, [self.positions])]
        depths = [stem, *([block] for block in self.blocks)]
        depths[-1].append(self.transformer.layernorm)
        return depths

    def build(self, input_shape: Shape) -> None:
        pass  # the parts are

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensors:
        batch, height, width = sides(inputs)[:3]
        rows, columns = height // CELL, width // CELL
        x = inputs
        if self.patch_size != CELL:
            x = resize_bilinear(x, (rows * self.patch_size, columns * self.patch_size))
        tokens = self.tokens(x, training)
        cells = tokens[:, 1 + self.transformer.num_register_tokens :]
        return self.pyramid(ops.reshape(cells, (batch, rows, columns, self.dim)))

    def tokens(self, images: Tensor, training: bool | None = None) -> Tensor:
        """The transformer's own output, its last layer norm included.

        Args:
            images: float `[B, h * patch_size, w * patch_size, 3]`, normalised.
            training: bool, whether blocks are left out.

        Returns:
            float `[B, 1 + registers + h * w, D]`: the class, the registers, the patches.
        """
        embeddings = self.transformer.embeddings
        batch, height, width = sides(images)[:3]
        rows, columns = height // self.patch_size, width // self.patch_size
        x = embeddings.patch_embeddings(images)
        first = ops.convert_to_tensor(embeddings.cls_token)
        options: dict[str, Any] = {}
        if self.positions is not None:
            x = x + self.positions.interpolated(rows, columns)
            first = first + self.positions.first
        else:
            frequencies = self.transformer.rope_embedding.inv_freq
            options["position_embeddings"] = rotation(frequencies, rows, columns, x.dtype)
            options["num_prefix_tokens"] = 1 + self.transformer.num_register_tokens
        prefix = [ops.cast(first, x.dtype)]
        if self.transformer.num_register_tokens:
            prefix.append(ops.cast(embeddings.register_tokens, x.dtype))
        x = ops.concatenate([*(ops.repeat(t, batch, axis=0) for t in prefix), x], axis=1)
        for i, block in enumerate(self.blocks):
            y = block(x, training=training, **options)
            x = x + self.drop_paths[i](y - x, training=training) if self.drop_paths else y
        return self.transformer.layernorm(x)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}


def rotation(frequencies: Tensor, rows: Any, columns: Any, dtype: Any) -> tuple[Tensor, Tensor]:
    """What DINOv3's queries and keys are rotated by; KerasHub's takes sides that are known.

    Args:
        frequencies: float32 `[f]`, of half a side of the image, in turns.
        rows: int or int32 `[]`, patches.
        columns: int or int32 `[]`.
        dtype: of the results.

    Returns:
        Cosines and sines, `[rows * columns, 4 f]`.
    """
    angles = []
    for count, axes in ((rows, (1, 2)), (columns, (0, 2))):
        centers = (ops.cast(ops.arange(count), "float32") + 0.5) / ops.cast(count, "float32")
        angle = ops.expand_dims(2.0 * math.pi * (2.0 * centers - 1.0), axes) * frequencies
        angles.append(ops.broadcast_to(angle, (rows, columns, len(frequencies))))
    angle = ops.reshape(ops.concatenate(angles * 2, axis=-1), (-1, 4 * len(frequencies)))
    return ops.cast(ops.cos(angle), dtype), ops.cast(ops.sin(angle), dtype)
