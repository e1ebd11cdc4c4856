"""Finding the prediction of each ground truth among files."""

import os
import pathlib
from collections.abc import Sequence

from tf_panoptic_fpn.errors import DataError


def pair_by_path(
    gt_dir: str | os.PathLike, pred_dir: str | os.PathLike
) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """Finds the prediction of each ground-truth PNG, of the same path within its folder.

    Args:
        gt_dir, pred_dir: folders; predictions without ground truth are left alone.

    Returns:
        list of (ground-truth path, prediction path), sorted.

    Raises:
        DataError: if there is no ground truth, or one has no prediction.
    """
    gt_dir, pred_dir = pathlib.Path(gt_dir), pathlib.Path(pred_dir)
    gt_paths = _find(gt_dir, "*.png")
    pairs = [(path, pred_dir / path.relative_to(gt_dir)) for path in gt_paths]
    _check_none_missing([pred for _, pred in pairs if not pred.is_file()], len(pairs))
    return pairs


def pair_cityscapes(
    gt_dir: str | os.PathLike, pred_dir: str | os.PathLike, gt_ending: str, pred_ending: str
) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """Finds the prediction of each ground truth of Cityscapes, by city, sequence and frame.

    Args:
        gt_dir, pred_dir: folders, searched with all below them.
        gt_ending: end of the ground truth's names, e.g. `_labelIds.png`.
        pred_ending: ".png" or ".txt"; the name starts like the ground truth's.

    Returns:
        list of (ground-truth path, prediction path), sorted.

    Raises:
        DataError: if there is no ground truth, or one has no prediction or more than one.
    """
    gt_paths = _find(pathlib.Path(gt_dir), f"*{gt_ending}")
    pred_paths = _find(pathlib.Path(pred_dir), f"*{pred_ending}")
    pairs, missing = [], []
    for gt_path in gt_paths:
        frame = "_".join(gt_path.name.split("_")[:3])
        found = [path for path in pred_paths if path.name.startswith(frame)]
        if len(found) > 1:
            raise DataError(f"{gt_path}: has more than one prediction: {found[0]}, {found[1]}")
        if found:
            pairs.append((gt_path, found[0]))
        else:
            missing.append(pathlib.Path(pred_dir) / f"{frame}*{pred_ending}")
    _check_none_missing(missing, len(gt_paths))
    return pairs


def _find(folder: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    paths = sorted(folder.rglob(pattern))
    if not paths:
        raise DataError(f"{folder}: holds no file {pattern}")
    return paths


def _check_none_missing(missing: Sequence[pathlib.Path], total: int) -> None:
    if missing:
        raise DataError(f"{missing[0]}: the prediction is missing ({len(missing)} of {total})")
