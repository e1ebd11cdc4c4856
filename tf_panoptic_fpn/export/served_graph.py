"""What a SavedModel serves: the graphs behind its signatures."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.config import ServeConfig
from tf_panoptic_fpn.data.served_image import read_served_image
from tf_panoptic_fpn.export.coco_rle import encode_instance
from tf_panoptic_fpn.inference.merge import Thresholds
from tf_panoptic_fpn.inference.predictor import Predictor

# Beside the keys of the merge, for each image. TF Serving's REST interface encodes strings in
# base64 where the name ends in `_bytes`, and breaks otherwise.
PANOPTIC_PNG = "panoptic_png_bytes"  # string [], a PNG, id = R + 256 G + 65536 B
SEMANTIC_PNG = "semantic_png_bytes"  # string [], a grey PNG of category ids, 0 where there is none
DETECTION_RLES = "detection_rle_bytes"  # string [D], the `counts` of COCO's compressed RLE
IMAGE_SIZE = "image_size"  # int32 [2], (H0, W0)
ERROR = "error"  # string [], why an image was not served; empty where it was
PADDING = -1  # of category ids, which may be 0
_DETECTIONS = {  # served: in INSTANCES
    "detection_category_ids": schema.CATEGORY_IDS,
    "detection_boxes": schema.BOXES,
    "detection_scores": schema.SCORES,
    "detection_mask_probs": schema.MASK_PROBS,
    "num_detections": schema.NUM_DETECTIONS,
}
_MAPS = (schema.PANOPTIC_MAP, schema.SEMANTIC_MAP)


class ServedGraph:
    """The endpoints of a SavedModel; they share one graph of the model.

    Args:
        predictor: a `Predictor`.
        serve: `ServeConfig`.
    """

    def __init__(self, predictor: Predictor, serve: ServeConfig | None = None) -> None:
        self.predictor = predictor
        self.config = serve or ServeConfig()
        self.max_pixels = self.config.max_pixels
        self._serve_all = tf.function(
            self._serve_each,
            [tf.TensorSpec([None], tf.string), Thresholds.specs([None])],
            autograph=False,
        )

    def signatures(self) -> dict[str, Any]:
        """Dict: name -> `ConcreteFunction`, of all signatures that the model's tasks allow."""
        image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
        images = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
        signatures = {
            "serving_default": _traced(self.serve_bytes, image_bytes),
            "with_thresholds": _traced(
                self.serve_with_thresholds, image_bytes, *Thresholds.specs([None])
            ),
            "tensor": _traced(self.serve_images, images),
        }
        for height, width in self.config.canvases:
            shape = [self.config.batch, height, width, 3]
            static = tf.TensorSpec(shape, tf.uint8, name="images")
            signatures[f"compiled_{height}x{width}"] = _traced(self.serve_compiled, static)
        if "instance" in self.predictor.tasks:
            signatures["instances"] = _traced(self.serve_instances, image_bytes)
        if "semantic" in self.predictor.tasks and self._semantic_ids() is not None:
            signatures["semantic"] = _traced(self.serve_semantic, image_bytes)
        return signatures

    def serve_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Endpoint `tensor`: uint8 `[B, H0, W0, 3]` -> flat dict of tensors with a leading B."""
        thresholds = Thresholds(*map(tf.constant, self.predictor.thresholds))
        return self._serve_pixels(images, thresholds)

    def serve_compiled(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Endpoint `compiled_HxW`: as `serve_images`, of a static shape, by XLA but for PNGs."""
        run = tf.function(self.predictor.predict_images, autograph=False, jit_compile=True)
        return self._flat(run(images), tf.shape(images))

    def serve_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Endpoint `serving_default`: encoded images, string `[B]` -> as `serve_images`, and ERROR.

        JPEGs are turned upright by their EXIF orientation. Images may differ in size; each is run
        by itself, so its result does not depend on the others, and the maps are padded with 0 at
        the right and bottom to the largest. What is wrong with an image is in ERROR, and its row
        holds nothing.
        """
        count = tf.shape(image_bytes)
        return self._serve_all(
            image_bytes, Thresholds(*(tf.fill(count, value) for value in self.predictor.thresholds))
        )

    def serve_with_thresholds(
        self, image_bytes: tf.Tensor, *thresholds: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Endpoint `with_thresholds`: as `serve_bytes`, with `Thresholds` of each image, `[B]`."""
        return self._serve_all(image_bytes, Thresholds(*thresholds))

    def serve_instances(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Endpoint `instances`: the detections before the merge, masks as DETECTION_RLES."""
        served = self.serve_bytes(image_bytes)

        def encode(row: tuple[tf.Tensor, ...]) -> tf.Tensor:
            masks, boxes, count, size = row
            encoded = tf.map_fn(
                lambda i: encode_instance(masks[i], boxes[i], size),
                tf.range(count),
                fn_output_signature=tf.string,
            )
            return tf.concat([encoded, tf.fill([tf.shape(boxes)[0] - count], "")], 0)

        names = ("detection_mask_probs", "detection_boxes", "num_detections", IMAGE_SIZE)
        rles = tf.map_fn(
            encode,
            tuple(served[name] for name in names),
            fn_output_signature=tf.TensorSpec(served["detection_scores"].shape[1:], tf.string),
        )
        kept = {name: served[name] for name in (*_DETECTIONS, IMAGE_SIZE, ERROR)}
        del kept["detection_mask_probs"]
        return {**kept, DETECTION_RLES: rles}

    def serve_semantic(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Endpoint `semantic`: SEMANTIC_PNG, 8 bits a pixel or, where ids are above 255, 16."""
        served = self.serve_bytes(image_bytes)
        table = tf.constant(self._semantic_ids())

        def encode(row: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            classes, size = row
            ids = tf.gather(table, classes[: size[0], : size[1], None])
            return _encode_png(ids)

        rows = (served[schema.SEMANTIC_MAP], served[IMAGE_SIZE])
        pngs = tf.map_fn(encode, rows, fn_output_signature=tf.string)
        return {SEMANTIC_PNG: pngs, IMAGE_SIZE: served[IMAGE_SIZE], ERROR: served[ERROR]}

    def with_png(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Adds PANOPTIC_PNG to what a `Predictor` returns."""
        encoded = tf.map_fn(
            _encode_ids, outputs[schema.PANOPTIC_MAP], fn_output_signature=tf.string
        )
        return {**outputs, PANOPTIC_PNG: encoded}

    def _serve_pixels(self, images: tf.Tensor, thresholds: Thresholds) -> dict[str, tf.Tensor]:
        return self._flat(self.predictor.traced(images, thresholds), tf.shape(images))

    def _flat(self, outputs: dict[str, Any], shape: tf.Tensor) -> dict[str, tf.Tensor]:
        """What a predictor returns for images of a shape, as it is served."""
        outputs = self.with_png(outputs)
        outputs[IMAGE_SIZE] = tf.tile(shape[None, 1:3], [shape[0], 1])
        instances = outputs.pop(schema.INSTANCES, None)
        if instances is not None:
            thing_ids = tf.constant(self.predictor.categories.thing_ids, tf.int64)
            classes = instances.pop(schema.CLASSES)
            category_ids = tf.gather(thing_ids, tf.maximum(classes, 0))
            instances[schema.CATEGORY_IDS] = tf.where(classes >= 0, category_ids, PADDING)
            outputs.update({served: instances[name] for served, name in _DETECTIONS.items()})
        return outputs

    def _serve_each(self, image_bytes: tf.Tensor, thresholds: Thresholds) -> dict[str, tf.Tensor]:
        signature = self._served_signature()
        maps = [name for name in _MAPS if name in signature]
        nothing = {name: _nothing(name, spec) for name, spec in signature.items()}

        def serve_one(row: tuple[tf.Tensor, Thresholds]) -> dict[str, Any]:
            image, error = read_served_image(row[0], self.max_pixels, self.predictor.pixel_range)

            def serve() -> dict[str, tf.Tensor]:
                outputs = self._serve_pixels(image[None], row[1])
                return {name: tf.squeeze(value, 0) for name, value in outputs.items()}

            outputs = tf.cond(tf.strings.length(error) == 0, serve, lambda: nothing)
            for name in maps:
                outputs[name] = tf.RaggedTensor.from_tensor(outputs[name], ragged_rank=1)
            return {**outputs, ERROR: error}

        ragged = {name: tf.RaggedTensorSpec([None, None], tf.int32, ragged_rank=1) for name in maps}
        outputs = tf.map_fn(
            serve_one,
            (image_bytes, thresholds),
            fn_output_signature={**signature, **ragged, ERROR: tf.TensorSpec([], tf.string)},
        )
        return {
            name: value.to_tensor() if name in maps else value for name, value in outputs.items()
        }

    def _served_signature(self) -> dict[str, Any]:
        signature = self.predictor.merged_signature()
        instances = signature.pop(schema.INSTANCES, None)
        signature[PANOPTIC_PNG] = tf.TensorSpec([], tf.string)
        signature[IMAGE_SIZE] = tf.TensorSpec([2], tf.int32)
        if instances is not None:
            shape = instances.pop(schema.CLASSES).shape
            instances[schema.CATEGORY_IDS] = tf.TensorSpec(shape, tf.int64)
            signature.update({served: instances[name] for served, name in _DETECTIONS.items()})
        return signature

    def _semantic_ids(self) -> np.ndarray | None:
        """uint8 or uint16 `[S]`, the category id of each semantic class; None if one is larger."""
        classes = self.predictor.categories.semantic_classes
        ids = np.zeros(max(classes.values(), default=0) + 1, np.int64)
        for category_id, semantic_class in classes.items():
            category = self.predictor.categories.by_id[category_id]
            if not category.is_thing or self.predictor.categories.semantic_things == "all":
                ids[semantic_class] = category_id
        if ids.max() > np.iinfo(np.uint16).max:
            return None
        return ids.astype(np.uint8 if ids.max() <= np.iinfo(np.uint8).max else np.uint16)


def _traced(function: Callable, *specs: tf.TensorSpec) -> Any:
    return tf.function(function, input_signature=specs, autograph=False).get_concrete_function()


def _nothing(name: str, spec: tf.TensorSpec) -> tf.Tensor:
    """What an image that is not served has: a value that fits the spec."""
    shape = [side or 0 for side in spec.shape]
    if spec.dtype == tf.string:
        return tf.fill(shape, "")
    is_id = name in (schema.CATEGORY_IDS, "detection_category_ids")
    return tf.fill(shape, tf.cast(PADDING if is_id else 0, spec.dtype))


def _encode_ids(panoptic_map: tf.Tensor) -> tf.Tensor:
    # The four bytes of an id, on all that TensorFlow runs on, lowest first.
    return tf.io.encode_png(tf.bitcast(panoptic_map, tf.uint8)[..., :3])


def _encode_png(ids: tf.Tensor) -> tf.Tensor:
    """uint8 or uint16 `[H, W, 1]` -> string `[]`, empty where there are no pixels."""
    return tf.cond(tf.size(ids) > 0, lambda: tf.io.encode_png(ids), lambda: tf.constant(""))
