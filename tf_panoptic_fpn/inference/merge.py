"""The panoptic merge of what a model predicts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.config import MergeConfig
from tf_panoptic_fpn.inference.semantic_map import log_shares
from tf_panoptic_fpn.ops.panoptic_merge import no_instances, panoptic_merge


class Thresholds(NamedTuple):
    """The settings of a merge, as the inputs of a graph."""

    score_threshold: Any  # float32, see `MergeConfig`
    overlap_threshold: Any  # float32
    stuff_area: Any  # int32
    max_detections: Any  # int32, of the detections with the highest scores

    @classmethod
    def specs(cls, shape: list[int | None]) -> "Thresholds":
        """`tf.TensorSpec`s of one shape, named."""
        dtypes = (tf.float32, tf.float32, tf.int32, tf.int32)
        return cls(
            *(tf.TensorSpec(shape, d, name) for name, d in zip(cls._fields, dtypes, strict=True))
        )


def balance_classes(logits: tf.Tensor, class_shares: Sequence[float]) -> tf.Tensor:
    """Scales the probability of each class by the inverse of its share, in logits.

    Args:
        logits: float `[..., S]`.
        class_shares: float `[S]`, shares of the pixels that add up to 1. A class of share 0, which
            was never trained, is ruled out.

    Returns:
        float `[..., S]`, logits whose softmax is that of `logits` over the shares, normalised.

    Reference: arXiv:2007.07314, section 4.1, with tau = 1.
    """
    return logits - tf.constant(log_shares(class_shares), logits.dtype)


def first_instances(instances: Mapping[str, tf.Tensor], count: tf.Tensor) -> dict[str, tf.Tensor]:
    """Makes padding of all but the first `count` of an image's INSTANCES, the best ones."""
    is_kept = tf.range(tf.shape(instances[schema.CLASSES])[0]) < count
    kept = {**instances, schema.CLASSES: tf.where(is_kept, instances[schema.CLASSES], -1)}
    kept[schema.SCORES] = tf.where(is_kept, instances[schema.SCORES], 0)
    if schema.NUM_DETECTIONS in instances:
        found = instances[schema.NUM_DETECTIONS]
        kept[schema.NUM_DETECTIONS] = tf.clip_by_value(count, 0, found)
    return kept


def merge_outputs(
    instances: Mapping[str, tf.Tensor],
    semantic: tf.Tensor,
    categories: CategoryTable,
    merge: MergeConfig | Thresholds,
) -> dict[str, tf.Tensor]:
    """`panoptic_merge` of one image's INSTANCES and SEMANTIC_MAP.

    Args:
        instances: dict of tensors, in pixels of the image.
        semantic: int32 `[H0, W0]`.
        categories: `CategoryTable`.
        merge: `MergeConfig`, or `Thresholds`, of which the last is not read.
    """
    # The merge discards what the semantic branch says of things: `other`, or each of them.
    things = categories.num_semantic_things
    stuff = semantic if things == 1 else tf.maximum(semantic - (things - 1), 0)
    return panoptic_merge(
        instances[schema.BOXES],
        instances[schema.SCORES],
        instances[schema.CLASSES],
        instances[schema.MASK_PROBS],
        stuff,
        tf.constant(categories.thing_ids or [0], tf.int64),  # no instance reads it
        tf.constant(categories.stuff_ids, tf.int64),
        score_threshold=merge.score_threshold,
        overlap_threshold=merge.overlap_threshold,
        stuff_area=merge.stuff_area,
    )


class Merger:
    """Merges what a predictor returned once more, at other thresholds.

    Args:
        categories: `CategoryTable`.

    Call: (INSTANCES, a dict of arrays, or None; SEMANTIC_MAP or None; (H0, W0); `MergeConfig`) ->
    dict of arrays, the keys of the merge.
    """

    def __init__(self, categories: CategoryTable) -> None:
        def merge(
            instances: dict[str, tf.Tensor],
            semantic: tf.Tensor,
            score: tf.Tensor,
            overlap: tf.Tensor,
            area: tf.Tensor,
        ) -> dict[str, tf.Tensor]:
            thresholds = Thresholds(score, overlap, area, max_detections=None)
            return merge_outputs(instances, semantic, categories, thresholds)

        # One graph for images of all sizes.
        self._merge = tf.function(merge, autograph=False, reduce_retracing=True)

    def __call__(
        self,
        instances: Mapping[str, np.ndarray] | None,
        semantic: np.ndarray | None,
        image_size: tuple[int, int],
        merge: MergeConfig,
    ) -> dict[str, np.ndarray]:
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
