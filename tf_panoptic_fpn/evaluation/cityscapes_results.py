"""Results as Cityscapes' server and scripts take them: writing and reading."""

import math
import os
import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image
from pycocotools import mask as mask_api

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.images import open_map
from tf_panoptic_fpn.results.result import Result

IMAGE_SUFFIX = "_leftImg8bit"


def write_cityscapes(
    folder: str | os.PathLike, file_name: str, result: Result, categories: CategoryTable
) -> None:
    """Writes the semantic and the instance results of one image.

    `semantic/CITY_SEQUENCE_FRAME_pred_labelIds.png` has the label id of each pixel;
    `instances/CITY_SEQUENCE_FRAME_pred.txt` has a line for each instance: its mask's file, its
    label id, its score; the masks are `instances/masks/*.png`, not 0 where the instance is.

    Args:
        folder: path; made if it does not exist.
        file_name: of the image, `CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png`.
        result: a `Result`.
        categories: `CategoryTable`, whose data-set ids are Cityscapes' label ids. Where its
            semantic branch has one class for all things, the pixels of things are those of the
            panoptic map; one that is void there is 0, unlabeled.
    """
    folder = pathlib.Path(folder)
    name = pathlib.PurePosixPath(file_name).stem.removesuffix(IMAGE_SUFFIX)
    labels = _label_ids(result, categories)
    _save(labels, folder / "semantic" / f"{name}_pred_labelIds.png")
    if result.instances is not None:
        lines = []
        for number, instance in enumerate(result.instances):
            mask = f"masks/{name}_{number}.png"
            _save(mask_api.decode(instance["segmentation"]) * 255, folder / "instances" / mask)
            lines.append(f"{mask} {instance['category_id']} {instance['score']!r}\n")
        (folder / "instances" / "masks").mkdir(parents=True, exist_ok=True)
        (folder / "instances" / f"{name}_pred.txt").write_text("".join(lines), encoding="utf-8")


def _label_ids(result: Result, categories: CategoryTable) -> np.ndarray:
    """uint8 `[H, W]`: the semantic branch's label, or else that of the panoptic map."""
    category_ids = np.zeros(result.panoptic_map.max() + 1, np.uint8)
    for segment in result.segments:
        category_ids[segment["id"]] = segment["category_id"]
    labels = category_ids[result.panoptic_map]
    if result.semantic_map is None:
        return labels
    of_class = np.zeros(256, np.uint8)
    for category_id, semantic_class in categories.semantic_classes.items():
        if categories.semantic_things == "all" or not categories.by_id[category_id].is_thing:
            of_class[semantic_class] = category_id
    semantic = of_class[result.semantic_map]
    return np.where(semantic > 0, semantic, labels)


def _save(array: np.ndarray, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def read_instance_results(
    path: str | os.PathLike, root: str | os.PathLike
) -> Iterator[tuple[np.ndarray, int, float]]:
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


def _split(line: str, where: str) -> tuple[str, int, float]:
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


def _mask(image: Image.Image) -> np.ndarray:
    # `convert` would clip or drop the low bits of 16-bit images.
    return np.asarray(image if image.mode.startswith("I") else image.convert("L")) != 0
