"""How much of the training data each semantic class takes up."""

import dataclasses
import os

import numpy as np
import tensorflow as tf

from tf_panoptic_fpn.data.decode import decode_id_map
from tf_panoptic_fpn.data.evaluation_samples import evaluation_samples
from tf_panoptic_fpn.data.index import DatasetIndex
from tf_panoptic_fpn.data.tfrecords import RecordSource
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.records import PanopticSplit


def class_shares(split: PanopticSplit) -> np.ndarray:
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
            counts[semantic_class[segment.category_id]] += areas.get(segment.id, 0)
    return _shares(counts)


def class_shares_of_records(index: DatasetIndex, folder: str | os.PathLike) -> np.ndarray:
    """Counts the pixels of each semantic class in the maps of a folder of records.

    Args:
        index: the `DatasetIndex` of the folder.
        folder: path.

    Returns, Raises:
        As `class_shares`.
    """
    source = RecordSource(index, folder)
    counts = np.zeros(max(index.categories.semantic_classes.values()) + 1)
    for row in range(len(index) if index.map_format != "none" else 0):
        _, data = source.read(tf.constant(row))
        with_pillow = tf.constant(index.needs_pillow[row])
        ids = decode_id_map(data, index.map_format, with_pillow).numpy()
        labels = slice(*index.label_offsets[row : row + 2])
        classes = dict(
            zip(index.label_ids[labels].tolist(), index.label_classes[labels].tolist(), strict=True)
        )
        for label, pixels in zip(*np.unique(ids, return_counts=True), strict=True):
            semantic_class = classes.get(int(label), index.void_label)  # void is not listed
            if semantic_class != index.void_label:
                counts[semantic_class] += pixels
    return _shares(counts)


def _shares(counts: np.ndarray) -> np.ndarray:
    if not counts.any():
        raise DataError("The training data must have a semantic class to balance. Received: none")
    return counts / counts.sum()
