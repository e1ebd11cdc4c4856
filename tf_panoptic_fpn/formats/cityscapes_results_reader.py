"""Reading the instance results of Cityscapes: a text file an image, and a mask an instance."""

import math
import pathlib

import numpy as np

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.label_pngs import open_map


def read_instance_results(path, root):
    """Reads the instances of one image, one at a time.

    Args:
        path: text file; each line has the path of a mask, relative to the file, a label id and a
            score.
        root: folder that the masks must be in.

    Yields:
        (mask bool `[H, W]`, label id, score). A mask is what is not black in its image.

    Raises:
        DataError: if a line or a mask cannot be read, or a mask is listed twice or not
            below `root`.
    """
    path, root = pathlib.Path(path), pathlib.Path(root).resolve()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    seen = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        name, label_id, score = _split(line, where)
        mask_path = (path.parent / name).resolve()
        if not mask_path.is_relative_to(root):
            raise DataError(f"{where}: the mask must be below {root}. Received: {name}")
        if mask_path in seen:
            raise DataError(f"{where}: the mask {name} is listed twice")
        seen.add(mask_path)
        yield open_map(mask_path, _mask), label_id, score


def _split(line, where):
    parts = line.split()
    if len(parts) != 3:
        raise DataError(f"{where}: must be `mask label_id score`. Received: {line!r}")
    try:
        label_id, score = float(parts[1]), float(parts[2])
    except ValueError:
        label_id = score = math.nan
    if not (label_id.is_integer() and math.isfinite(score)):
        raise DataError(f"{where}: needs an integer and a finite number. Received: {line!r}")
    return parts[0], int(label_id), score


def _mask(image):
    # `convert` would clip or drop the low bits of 16-bit images.
    return np.asarray(image if image.mode.startswith("I") else image.convert("L")) != 0
