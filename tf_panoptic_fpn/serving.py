"""Image in, panoptic segmentation out, as one TensorFlow graph: prediction and export."""

import pathlib
import shutil

import keras
import numpy as np
import tensorflow as tf

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.config import MergeConfig
from tf_panoptic_fpn.data.decode import decode_plain_image, exif_orientation
from tf_panoptic_fpn.models.mask_head import MASK_SIZE
from tf_panoptic_fpn.ops.boxes import clip_boxes, scale_boxes
from tf_panoptic_fpn.ops.panoptic_merge import panoptic_merge
from tf_panoptic_fpn.ops.resize import resize_bilinear, upsample_bilinear

# Beside the keys of the merge, for each image. TF Serving's REST interface encodes strings in
# base64 where the name ends in `_bytes`, and breaks otherwise.
PANOPTIC_PNG = "panoptic_png_bytes"  # string [], a PNG, id = R + 256 G + 65536 B
IMAGE_SIZE = "image_size"  # int32 [2], (H0, W0)


class Predictor:
    """Runs a model on whole images: resize, model, merge at the original size.

    Args:
        model: a `PanopticFPN`.
        categories: `CategoryTable` of the data set it was trained on.
        merge: `MergeConfig`.
        split: `SplitConfig`; its first short side and its long side say how images are resized.
        class_shares: float `[S]`, the share of each semantic class in the training data, or None.
            Given, a pixel's semantic class is the most probable one in relation to its share, see
            `balance_classes`.

    Call: uint8 `[H0, W0, 3]` RGB -> dict of numpy arrays: the keys of the merge (`schema`),
    SEMANTIC_MAP and INSTANCES. With a model of one task the merge has its segments alone, and the
    key of the other task is missing.
    """

    def __init__(self, model, categories, merge, split, class_shares=None):
        self.model = model
        self.categories = categories
        self.merge = merge
        self.class_shares = class_shares
        self.short_side = split.short_sides[0]
        self.max_long_side = split.max_long_side
        self._predict = tf.function(
            self.predict_images,
            input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)],
            autograph=False,
        )

    def __call__(self, image):
        return self.predict_batch(image[None])[0]

    def predict_batch(self, images):
        """uint8 `[B, H0, W0, 3]`, images of one size -> list of B dicts, as a call returns one."""
        outputs = tf.nest.map_structure(lambda value: value.numpy(), self._predict(images))
        return [
            tf.nest.map_structure(lambda value, row=row: value[row], outputs)
            for row in range(len(images))
        ]

    def predict_images(self, images):
        """The graph for images of one size.

        Args:
            images: uint8 `[B, H0, W0, 3]`, RGB.

        Returns:
            Dict of tensors with a leading B: the keys of the merge, SEMANTIC_MAP and INSTANCES.
        """
        original = tf.shape(images)[1:3]
        size = self.network_size(original)
        x = self.resize(images, size)
        sizes = tf.tile(size[None], [tf.shape(images)[0], 1])
        outputs = self.model({schema.IMAGES: x, schema.IMAGE_SIZES: sizes}, training=False)
        return tf.map_fn(
            lambda row: self._merge_image(
                self._semantic_logits(row, size, original), self._instances(row, size, original)
            ),
            outputs,
            fn_output_signature=self._merged_signature(),
        )

    @staticmethod
    def resize(images, size):
        """Pillow's bilinear resizing, antialiased, of a tensor `[B, H, W, 3]`."""
        x = tf.cast(images, tf.float32)
        # Pillow resizes the rows first and rounds to whole levels after each pass.
        for shape in ([tf.shape(images)[1], size[1]], size):
            x = tf.floor(tf.image.resize(x, shape, antialias=True) + 0.5)
        return tf.clip_by_value(x, 0.0, 255.0)

    def network_size(self, original):
        """`data.images.resized_size` on a tensor: int32 `[2]` -> int32 `[2]`."""
        return network_size(original, self.short_side, self.max_long_side)

    def _merge_image(self, logits, instances):
        """One image's semantic logits and detections, both at its size -> its dict."""
        if self.class_shares is not None:
            logits = balance_classes(logits, self.class_shares)
        semantic = tf.argmax(logits, axis=-1, output_type=tf.int32)
        merged = merge_outputs(
            instances, semantic, self.categories, self.semantic_things, self.merge
        )
        if "semantic" in self.tasks:
            merged[schema.SEMANTIC_MAP] = semantic
        if "instance" in self.tasks:
            merged[schema.INSTANCES] = instances
        return merged

    @property
    def tasks(self):
        return self.model.config["tasks"]

    @property
    def semantic_things(self):
        return self.model.config["semantic_things"]

    def _semantic_logits(self, outputs, size, original):
        """Float `[H0, W0, S]`; one class alone, where nothing is stuff, without the task."""
        if "semantic" not in self.tasks:
            return tf.zeros([original[0], original[1], 1])
        logits = upsample_bilinear(outputs[schema.SEMANTIC_LOGITS][None], 4)
        return resize_bilinear(logits[:, : size[0], : size[1]], original)[0]

    def _instances(self, outputs, size, original):
        """The detections in pixels of the original image; padding alone without the task."""
        if "instance" not in self.tasks:
            return no_instances(self.model.config["max_detections"])
        scale = tf.cast(original, tf.float32) / tf.cast(size, tf.float32)
        boxes = clip_boxes(scale_boxes(outputs[schema.BOXES], scale), original)
        names = (schema.SCORES, schema.CLASSES, schema.MASK_PROBS, schema.NUM_DETECTIONS)
        return {schema.BOXES: boxes, **{name: outputs[name] for name in names}}

    def _merged_signature(self):
        detections = self.model.config["max_detections"]
        segments = detections + len(self.categories.stuff)
        signature = {
            schema.PANOPTIC_MAP: tf.TensorSpec([None, None], tf.int32),
            schema.CATEGORY_IDS: tf.TensorSpec([segments], tf.int32),
            schema.IS_THING: tf.TensorSpec([segments], tf.bool),
            schema.SCORES: tf.TensorSpec([segments], tf.float32),
            schema.AREAS: tf.TensorSpec([segments], tf.int32),
            schema.BOXES: tf.TensorSpec([segments, 4], tf.float32),
            schema.NUM_SEGMENTS: tf.TensorSpec([], tf.int32),
        }
        if "semantic" in self.tasks:
            signature[schema.SEMANTIC_MAP] = tf.TensorSpec([None, None], tf.int32)
        if "instance" in self.tasks:
            mask_shape = [detections, MASK_SIZE, MASK_SIZE]
            signature[schema.INSTANCES] = {
                schema.BOXES: tf.TensorSpec([detections, 4], tf.float32),
                schema.SCORES: tf.TensorSpec([detections], tf.float32),
                schema.CLASSES: tf.TensorSpec([detections], tf.int32),
                schema.MASK_PROBS: tf.TensorSpec(mask_shape, tf.float32),
                schema.NUM_DETECTIONS: tf.TensorSpec([], tf.int32),
            }
        return signature

    def serve_images(self, images):
        """Endpoint `tensor`: uint8 `[B, H0, W0, 3]` -> flat dict of tensors with a leading B."""
        outputs = self.predict_images(images)
        instances = outputs.pop(schema.INSTANCES, None)
        outputs[PANOPTIC_PNG] = tf.map_fn(
            _encode_ids, outputs[schema.PANOPTIC_MAP], fn_output_signature=tf.string
        )
        outputs[IMAGE_SIZE] = tf.tile(tf.shape(images)[None, 1:3], [tf.shape(images)[0], 1])
        if instances is not None:
            thing_ids = tf.constant(self.categories.thing_ids, tf.int32)
            classes = instances.pop(schema.CLASSES)
            instances[schema.CATEGORY_IDS] = tf.where(
                classes >= 0, tf.gather(thing_ids, tf.maximum(classes, 0)), 0
            )
            outputs.update(_served_detections(instances))
        return outputs

    def serve_bytes(self, image_bytes):
        """Endpoint `serving_default`: encoded images, string `[B]` -> as `serve_images`.

        JPEGs are turned upright by their EXIF orientation. Images may differ in size; each is run
        by itself, so its result does not depend on the others, and the maps are padded with 0 at
        the right and bottom to the largest.
        """
        signature = self._served_signature()
        maps = [m for m in (schema.PANOPTIC_MAP, schema.SEMANTIC_MAP) if m in signature]
        for name in maps:
            signature[name] = tf.RaggedTensorSpec([None, None], tf.int32, ragged_rank=1)

        def serve_one(encoded):
            image = decode_plain_image(encoded, exif_orientation(encoded))
            outputs = self.serve_images(image[None])
            row = {name: value[0] for name, value in outputs.items()}
            for name in maps:
                row[name] = tf.RaggedTensor.from_tensor(row[name], ragged_rank=1)
            return row

        outputs = tf.map_fn(serve_one, image_bytes, fn_output_signature=signature)
        return {
            name: value.to_tensor() if name in maps else value for name, value in outputs.items()
        }

    def _served_signature(self):
        signature = self._merged_signature()
        instances = signature.pop(schema.INSTANCES, None)
        signature[PANOPTIC_PNG] = tf.TensorSpec([], tf.string)
        signature[IMAGE_SIZE] = tf.TensorSpec([2], tf.int32)
        if instances is not None:
            instances[schema.CATEGORY_IDS] = instances.pop(schema.CLASSES)
            signature.update(_served_detections(instances))
        return signature


def network_size(original, short_side, max_long_side):
    """`data.images.resized_size` on a tensor: int32 `[2]` -> int32 `[2]`."""
    sides = tf.cast(original, tf.float64)
    scale = tf.minimum(short_side / tf.reduce_min(sides), max_long_side / tf.reduce_max(sides))
    return tf.maximum(tf.cast(sides * scale + 0.5, tf.int32), 1)


def balance_classes(logits, class_shares):
    """Scales the probability of each class by the inverse of its share, in logits.

    Args:
        logits: float `[..., S]`.
        class_shares: float `[S]`, shares of the pixels that add up to 1. A class of share 0, which
            was never trained, is ruled out.

    Returns:
        float `[..., S]`, logits whose softmax is that of `logits` over the shares, normalised.

    Reference: arXiv:2007.07314, section 4.1, with tau = 1.
    """
    shares = np.asarray(class_shares, np.float32)
    return logits - tf.constant(np.log(np.where(shares > 0, shares, np.inf)), logits.dtype)


def no_instances(count):
    """Detections that are padding alone, for a model that does not detect."""
    return {
        schema.BOXES: tf.zeros([count, 4]),
        schema.SCORES: tf.zeros([count]),
        schema.CLASSES: tf.fill([count], -1),
        schema.MASK_PROBS: tf.zeros([count, MASK_SIZE, MASK_SIZE]),
    }


def merge_outputs(instances, semantic, categories, semantic_things, merge):
    """`panoptic_merge` of one image's INSTANCES and SEMANTIC_MAP.

    Args:
        instances: dict of tensors, in pixels of the image.
        semantic: int32 `[H0, W0]`.
        categories: `CategoryTable`.
        semantic_things: "other" or "all", see `CategoryTable.semantic_classes`.
        merge: `MergeConfig`; its values may be tensors.
    """
    # The merge discards what the semantic branch says of things: `other`, or each of them.
    things = len(categories.things) if semantic_things == "all" else 1
    return panoptic_merge(
        instances[schema.BOXES],
        instances[schema.SCORES],
        instances[schema.CLASSES],
        instances[schema.MASK_PROBS],
        tf.maximum(semantic - (things - 1), 0),
        tf.constant(categories.thing_ids or [0], tf.int32),  # no instance reads it
        tf.constant(categories.stuff_ids, tf.int32),
        score_threshold=merge.score_threshold,
        overlap_threshold=merge.overlap_threshold,
        stuff_area=merge.stuff_area,
    )


class Merger:
    """Merges what a predictor returned once more, at other thresholds.

    Args:
        categories: `CategoryTable`.
        semantic_things: "other" or "all", see `CategoryTable.semantic_classes`.

    Call: (INSTANCES, a dict of arrays, or None; SEMANTIC_MAP or None; (H0, W0); `MergeConfig`) ->
    dict of arrays, the keys of the merge.
    """

    def __init__(self, categories, semantic_things):
        def merge(instances, semantic, *thresholds):
            thresholds = MergeConfig(*thresholds)
            return merge_outputs(instances, semantic, categories, semantic_things, thresholds)

        # One graph for images of all sizes.
        self._merge = tf.function(merge, autograph=False, reduce_retracing=True)

    def __call__(self, instances, semantic, image_size, merge):
        if instances is None:
            instances = no_instances(1)
        if semantic is None:
            semantic = np.zeros(image_size)
        merged = self._merge(
            {name: tf.constant(value) for name, value in instances.items()},
            tf.constant(semantic, tf.int32),
            tf.constant(merge.score_threshold),
            tf.constant(merge.overlap_threshold),
            tf.constant(merge.stuff_area),
        )
        return tf.nest.map_structure(np.asarray, merged)


def _served_detections(instances):
    """The flat names under which detections are served."""
    names = {
        "detection_category_ids": schema.CATEGORY_IDS,
        "detection_boxes": schema.BOXES,
        "detection_scores": schema.SCORES,
        "detection_mask_probs": schema.MASK_PROBS,
        "num_detections": schema.NUM_DETECTIONS,
    }
    return {served: instances[name] for served, name in names.items()}


def export_saved_model(predictor, output):
    """Writes a SavedModel that serves a predictor and needs neither Keras nor this package.

    Signatures: `serving_default`, `image_bytes` string `[B]` of JPEG or PNG files; `tensor`,
    `images` uint8 `[B, H, W, 3]`. Both return the keys of the merge, PANOPTIC_PNG, SEMANTIC_MAP,
    IMAGE_SIZE, and the detections as `detection_boxes`, `detection_scores`,
    `detection_category_ids`, `detection_mask_probs` and `num_detections`, with a leading B; a
    model of one task lacks the keys of the other. `assets/categories.json` has the categories.

    Args:
        predictor: a `Predictor`.
        output: the version's folder, such as `saved_model/1`; one that is there is replaced.
    """
    output = pathlib.Path(output)
    partial = output.with_name(f"partial_{output.name}")
    shutil.rmtree(partial, ignore_errors=True)

    archive = keras.export.ExportArchive()
    archive.track(predictor.model)
    archive.add_endpoint(
        "serving_default",
        predictor.serve_bytes,
        input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")],
    )
    archive.add_endpoint(
        "tensor",
        predictor.serve_images,
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")],
    )
    archive.write_out(str(partial), verbose=False)
    predictor.categories.save(partial / "assets" / "categories.json")
    shutil.rmtree(output, ignore_errors=True)
    partial.rename(output)


def _encode_ids(panoptic_map):
    channels = [panoptic_map % 256, panoptic_map // 256 % 256, panoptic_map // 65536]
    return tf.io.encode_png(tf.cast(tf.stack(channels, axis=-1), tf.uint8))
