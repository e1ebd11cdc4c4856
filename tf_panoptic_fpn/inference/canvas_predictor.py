"""Image in, panoptic segmentation out, on JAX and PyTorch."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from PIL import Image

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.config import MergeConfig, SplitConfig
from tf_panoptic_fpn.formats.images import resized_size
from tf_panoptic_fpn.inference.image_predictor import ImagePredictor
from tf_panoptic_fpn.models.normalize import STRIDE
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN
from tf_panoptic_fpn.models.semantic_head import UPSAMPLING
from tf_panoptic_fpn.ops.boxes import clip_boxes, scale_boxes
from tf_panoptic_fpn.ops.panoptic_merge import no_instances, panoptic_merge
from tf_panoptic_fpn.ops.resize import bilinear_weights
from tf_panoptic_fpn.schema import Tensor, Tensors

SIDE = 128  # pixels, of which the sides of an image's canvas are multiples
STRIP = 32  # rows whose logits are held at once

Size = tuple[int, int]


class CanvasPredictor(ImagePredictor):
    """Runs a model on whole images, as `inference.predictor.Predictor`, in `keras.ops` alone.

    JAX compiles all from the resized pixels to the segments as one program for each pair of
    canvases: that of the network, the smallest of `canvases` that holds the resized image, and that
    of the image itself, with sides rounded up to SIDE. Without a canvas that holds it, the network
    has the resized image with sides rounded up to its stride, as `Predictor` does; a larger canvas
    is in the statistics of a group norm, as in training. On PyTorch nothing is compiled.

    Args:
        model: a `PanopticFPN` of both tasks or one.
        categories: `CategoryTable` of the data set it was trained on.
        merge: `MergeConfig`.
        split: `SplitConfig`; its first short side and its long side say how images are resized.
        canvases: `(height, width)` pairs, pixels, as `data.canvases`.
    """

    def __init__(
        self,
        model: PanopticFPN,
        categories: CategoryTable,
        merge: MergeConfig,
        split: SplitConfig,
        canvases: Sequence[Size] = (),
    ) -> None:
        self.model = model
        self.categories = categories.with_semantic_things(model.config["semantic_things"])
        self.merge = merge
        self.short_side = split.short_sides[0]
        self.max_long_side = split.max_long_side
        self.canvases = sorted(canvases, key=math.prod)
        self.category_ids = np.array([*categories.thing_ids, *categories.stuff_ids, -1])
        self.compiled = _compile(model, self.predict_canvas)

    def run(self, images: np.ndarray) -> list[dict]:
        original: Size = images.shape[1], images.shape[2]
        size = resized_size(*original, self.short_side, self.max_long_side)
        canvas = np.zeros((len(images), *self._network_canvas(size), 3), np.uint8)
        for row, image in zip(canvas, images, strict=True):
            resized = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
            row[: size[0], : size[1]] = np.asarray(resized)
        sizes = np.array([size, original], np.int32)
        outputs = self.compiled(_rounded_up(original, SIDE), canvas, sizes)
        outputs = keras.tree.map_structure(ops.convert_to_numpy, outputs)
        return [
            self._of_image(
                keras.tree.map_structure(lambda value, row=row: value[row], outputs), original
            )
            for row in range(len(images))
        ]

    def predict_canvas(self, image_canvas: Size, images: Tensor, sizes: Tensor) -> dict[str, Any]:
        """What is compiled.

        Args:
            image_canvas: `(H1, W1)`, ints, at least the size of the images.
            images: uint8 `[B, H, W, 3]`, RGB, resized, each at the top left of its canvas.
            sizes: int32 `[2, 2]`, of the images as the network reads them, and as they are.

        Returns:
            Dict of tensors with a leading B: the keys of the merge, whose CATEGORY_IDS are places
            in `category_ids`, SEMANTIC_MAP and INSTANCES. Maps are `[B, H1, W1]`.
        """
        size, original = sizes[0], sizes[1]
        batch = images.shape[0]
        inputs = {
            schema.IMAGES: ops.cast(images, "float32"),
            schema.IMAGE_SIZES: ops.broadcast_to(size, (batch, 2)),
        }
        outputs = self.model(inputs, training=False)
        return ops.map(lambda row: self._merge_image(row, size, original, image_canvas), outputs)

    def _merge_image(
        self, outputs: Tensors, size: Tensor, original: Tensor, image_canvas: Size
    ) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        found = no_instances(self.model.config["max_detections"])
        if schema.BOXES in outputs:
            scale = ops.cast(original, "float32") / ops.cast(size, "float32")
            boxes = clip_boxes(scale_boxes(outputs[schema.BOXES], scale), original)
            names = (schema.SCORES, schema.CLASSES, schema.MASK_PROBS, schema.NUM_DETECTIONS)
            found = {schema.BOXES: boxes, **{name: outputs[name] for name in names}}
            merged[schema.INSTANCES] = found
        semantic = ops.zeros(image_canvas, "int32")
        if schema.SEMANTIC_LOGITS in outputs:
            logits = outputs[schema.SEMANTIC_LOGITS]
            semantic = _semantic_map(logits, size, original, image_canvas)
            merged[schema.SEMANTIC_MAP] = semantic
        things, stuff = len(self.categories.things), len(self.categories.stuff)
        return merged | panoptic_merge(
            found[schema.BOXES],
            found[schema.SCORES],
            found[schema.CLASSES],
            found[schema.MASK_PROBS],
            ops.maximum(semantic - (self.categories.num_semantic_things - 1), 0),
            # Ids of data sets may need 64 bits, which JAX lacks: their places stand for them.
            ops.arange(max(things, 1), dtype="int32"),
            ops.arange(things, things + stuff, dtype="int32"),
            score_threshold=self.merge.score_threshold,
            overlap_threshold=self.merge.overlap_threshold,
            stuff_area=self.merge.stuff_area,
        )

    def _network_canvas(self, size: Size) -> Size:
        for height, width in self.canvases:
            if height >= size[0] and width >= size[1]:
                return height, width
        return _rounded_up(size, STRIDE)

    def _of_image(self, outputs: dict[str, Any], size: Size) -> dict[str, Any]:
        """Of an image's arrays what `run` returns: maps of its size, ids of the data set."""
        outputs[schema.CATEGORY_IDS] = self.category_ids[outputs[schema.CATEGORY_IDS]]
        for name in (schema.PANOPTIC_MAP, schema.SEMANTIC_MAP):
            if name in outputs:
                outputs[name] = outputs[name][: size[0], : size[1]]
        return outputs


def _rounded_up(size: Size, step: int) -> Size:
    return -(-size[0] // step) * step, -(-size[1] // step) * step


def _compile(model: PanopticFPN, function: Callable[..., Any]) -> Callable[..., Any]:
    """Of `function(canvas, images, sizes)`, which calls the model, one JAX program a canvas."""
    if keras.backend.backend() != "jax":
        return function
    import jax

    # The weights are arguments: as constants they would be compiled into each program.
    @functools.partial(jax.jit, static_argnums=1)
    def compiled(weights: list[Tensor], canvas: Size, images: Tensor, sizes: Tensor) -> Any:
        with keras.StatelessScope(zip(model.variables, weights, strict=True)):
            return function(canvas, images, sizes)

    return lambda *arguments: compiled([v.value for v in model.variables], *arguments)


def _semantic_map(logits: Tensor, size: Tensor, original: Tensor, image_canvas: Size) -> Tensor:
    """The best class of each pixel, in strips; 0, which no merge paints, beside the image.

    Args:
        logits: float `[h, w, S]`, of one image.
        size: int32 `[2]`, of the image as the network reads it.
        original: int32 `[2]`, of the image.
        image_canvas: `(H1, W1)`, ints.

    Returns:
        int32 `[H1, W1]`.
    """
    rows, columns = (
        _to_image(logits.shape[axis], size[axis], original[axis], image_canvas[axis])
        for axis in (0, 1)
    )
    logits = ops.cast(logits, "float32")

    def label(weights: Tensor) -> Tensor:
        strip = ops.einsum("Yh,hws->Yws", weights, logits)
        return ops.argmax(ops.einsum("Xw,Yws->YXs", columns, strip), axis=-1)

    strips = ops.map(label, ops.reshape(rows, (-1, STRIP, rows.shape[1])))
    labels = ops.cast(ops.reshape(strips, image_canvas), "int32")
    inside = [ops.arange(image_canvas[i], dtype="int32") < original[i] for i in (0, 1)]
    return ops.where(inside[0][:, None] & inside[1], labels, 0)


def _to_image(extent: int, size: Tensor, original: Tensor, points: int) -> Tensor:
    """Float32 `[points, extent]`: upsampled, cut to `size`, and resized to `original`."""
    upsampled = extent * UPSAMPLING
    resized = bilinear_weights(size, original, "float32", cells=upsampled, points=points)
    return ops.matmul(resized, bilinear_weights(extent, upsampled, "float32"))
