"""Reading folders of semantic label maps."""

import os
from collections.abc import Collection, Sequence

import numpy as np

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.images import read_label_map
from tf_panoptic_fpn.schema import IGNORED


def read_semantic_pair(
    gt_path: str | os.PathLike,
    pred_path: str | os.PathLike,
    category_ids: Sequence[int],
    ignored: Collection[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Reads a ground truth and its prediction as classes.

    Args:
        gt_path, pred_path: label maps, of which each pixel is a category id.
        category_ids: list of S ints; the position is the class.
        ignored: set of ints, values of the ground truth that do not count; there the prediction may
            hold anything.

    Returns:
        (gt, pred): int `[H, W]`, 0..S-1, and `IGNORED` in the ground truth.

    Raises:
        DataError: if a file cannot be read, the two differ in size, or one holds another value.
    """
    gt_ids, pred_ids = read_label_map(gt_path), read_label_map(pred_path)
    if gt_ids.shape != pred_ids.shape:
        raise DataError(
            f"{pred_path}: prediction and ground truth must have one size. "
            f"Received: {pred_ids.shape} and {gt_ids.shape}"
        )
    is_ignored = np.isin(gt_ids, list(ignored))
    gt, pred = (
        _to_classes(np.where(is_ignored, category_ids[0], ids), category_ids, path)
        for ids, path in ((gt_ids, gt_path), (pred_ids, pred_path))
    )
    gt[is_ignored] = IGNORED
    return gt, pred


def _to_classes(
    ids: np.ndarray, category_ids: Sequence[int], path: str | os.PathLike
) -> np.ndarray:
    order = np.argsort(category_ids)
    sorted_ids = np.asarray(category_ids)[order]
    positions = np.minimum(np.searchsorted(sorted_ids, ids), len(order) - 1)
    is_unknown = sorted_ids[positions] != ids
    if is_unknown.any():
        unknown = np.unique(ids[is_unknown])[:5].tolist()
        raise DataError(f"{path}: the map holds ids of no category. Received: {unknown}")
    return order[positions]
