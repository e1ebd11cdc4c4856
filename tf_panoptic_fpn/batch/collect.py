"""COCO's result files from the shards of predictions."""

import contextlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from tf_panoptic_fpn.atomic_write import replacing
from tf_panoptic_fpn.batch.shards import Shards
from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.coco_json import images_by_id
from tf_panoptic_fpn.formats.json_file import read_lists
from tf_panoptic_fpn.inference.files import CocoResults
from tf_panoptic_fpn.workdir import Workdir


def collect_coco(
    shards: Shards, output: str | os.PathLike, gt_json: str | os.PathLike | None = None
) -> int:
    """Writes `panoptic.json` with `panoptic/*.png`, and `instances.json`.

    Args:
        shards: of a finished run.
        output: folder to write to.
        gt_json: COCO file whose `images` say the id of each file name; None: ids 1, 2, ...

    Returns:
        How many images were collected.

    Raises:
        DataError: if a shard is missing, or an image is not in `gt_json`.
    """
    ids = None if gt_json is None else _image_ids(gt_json)
    folder = Workdir(output)
    folder.create()
    count = 0
    names: set[str] = set()
    with contextlib.ExitStack() as stack:
        coco: CocoResults | None = None
        for rows, categories in shards.read():
            if coco is None:
                table = CategoryTable.from_coco(categories)
                coco = stack.enter_context(CocoResults(folder.path, table))
            for row in rows:
                count += 1
                image_id: int | str = count
                if ids is not None:
                    if row["file_name"] not in ids:
                        raise DataError(f"{gt_json}: has no image {row['file_name']!r}")
                    image_id = ids[row["file_name"]]
                _add(coco, folder.path, row, image_id, _png_name(row["file_name"], names))
    return count


def _png_name(file_name: str, names: set[str]) -> str:
    """A name for the panoptic PNG, by which `a.jpg` and `a.png` are two."""
    stem = os.path.splitext(file_name)[0]
    name = f"{file_name if f'{stem}.png' in names else stem}.png"
    names.add(name)
    return name


def _image_ids(gt_json: str | os.PathLike) -> dict[str, int | str]:
    lists = read_lists(gt_json, ("images",)) or {}
    images = images_by_id(lists.get("images", []), gt_json)
    return {name: image_id for image_id, (name, _, _) in images.items()}


def _add(
    coco: CocoResults,
    folder: pathlib.Path,
    row: Mapping[str, Any],
    image_id: int | str,
    name: str,
) -> None:
    path = folder / "panoptic" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_bytes(row["panoptic_png"])
    size = {"height": row["height"], "width": row["width"]}
    segments = [
        {key: value for key, value in segment.items() if value is not None}
        for segment in row["segments_info"]
    ]
    instances = [
        {
            "image_id": image_id,
            "category_id": instance["category_id"],
            "bbox": instance["bbox"],
            "score": instance["score"],
            "segmentation": {"size": [*size.values()], "counts": instance["rle"]},
        }
        for instance in row["instances"] or ()
    ]
    coco.add(
        {
            "image": {"id": image_id, "file_name": row["file_name"], **size},
            "annotation": {"image_id": image_id, "file_name": name, "segments_info": segments},
            "instances": instances,
        }
    )
