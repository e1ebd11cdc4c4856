"""How much of the training data each semantic class takes up."""

import dataclasses

import numpy as np

from tf_panoptic_fpn.data.evaluation_samples import evaluation_samples
from tf_panoptic_fpn.errors import DataError


def class_shares(split):
    """Counts the pixels of each semantic class.

    Areas are those of the split's JSON; where it leaves one out, the maps are read.

    Args:
        split: `PanopticSplit`.

    Returns:
        float64 `[S]`, shares of the pixels that have a class; they add up to 1.

    Raises:
        DataError: if no pixel has a class.
    """
    semantic_class = split.categories.semantic_classes
    counts = np.zeros(max(semantic_class.values()) + 1)
    unmeasured = []
    for record in split.images:
        if all(segment.area for segment in record.segments):
            for segment in record.segments:
                counts[semantic_class[segment.category_id]] += segment.area
        else:
            unmeasured.append(record)
    for record, _, ids in evaluation_samples(dataclasses.replace(split, images=unmeasured)):
        found, pixels = np.unique(ids, return_counts=True)
        areas = dict(zip(found.tolist(), pixels.tolist(), strict=True))
        for segment in record.segments:
            counts[semantic_class[segment.category_id]] += areas[segment.id]
    if not counts.any():
        raise DataError("The training data must have a semantic class to balance. Received: none")
    return counts / counts.sum()
