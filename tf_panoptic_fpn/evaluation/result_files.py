"""The files of an evaluation: what is kept of each image, and the COCO results made of it."""

import itertools
import json
import os
import pathlib
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
from PIL import Image

from tf_panoptic_fpn.atomic_write import replacing, write_text
from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.formats.panoptic_png import read_panoptic_png, write_panoptic_png
from tf_panoptic_fpn.formats.records import ImageRecord
from tf_panoptic_fpn.results.result import Result

FOLDERS = ("panoptic", "semantic", "detections", "overlays", "cityscapes")


class ResultFiles:
    """The folder of an evaluation.

    A line of `records.jsonl` is written when all other files of its image are, so an evaluation
    that was killed goes on with the images that have none, or whose file has changed since. What
    the folder holds of another `identity` is deleted, and a line on stderr says so.

    Args:
        folder: path; made if it does not exist.
        categories: `CategoryTable`.
        identity: dict for JSON, what the predictions depend on beside the images: the model and
            its settings. None: whatever the folder holds is deleted.
        keeps_detections: bool, whether the detections are to be merged again.
        is_elsewhere: bool, whether the folder is another machine's, just written: it is read as it
            is. The times of its image files are its own.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        categories: CategoryTable,
        identity: dict[str, Any] | None = None,
        keeps_detections: bool = False,
        is_elsewhere: bool = False,
    ) -> None:
        self.folder = pathlib.Path(folder)
        self._categories = categories
        self._keeps_detections = keeps_detections
        self._path = self.folder / "records.jsonl"
        self._is_elsewhere = is_elsewhere
        if not is_elsewhere:
            self._keep_or_delete(identity)
        for name in ("panoptic", "semantic", "detections", "overlays"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._offsets: dict[int | str, int] = {}  # image id -> where its line starts
        self._stems: dict[str, int | str] = {}  # stem -> image id
        self._scan()
        self._image_ids: list[int | str] = []  # of this evaluation, in its order
        self._file = self._path.open("ab")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _keep_or_delete(self, identity: dict[str, Any] | None) -> None:
        path = self.folder / "identity.json"
        identity = json.loads(json.dumps(identity))  # tuples become lists, as in the file
        if self._path.exists():
            known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
            if identity is not None and known == identity:
                return
            self._delete(identity or {}, known or {})
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(identity, indent=1))

    def _delete(self, identity: Mapping[str, Any], known: Mapping[str, Any]) -> None:
        changed = [key for key, value in identity.items() if known.get(key) != value]
        reason = f" of another {', '.join(changed)}" if changed else ""
        print(f"{self.folder}: deleted the results{reason}, evaluating anew", file=sys.stderr)
        self._path.unlink()
        for name in FOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _scan(self) -> None:
        """Finds the lines; cuts off one that a kill left unfinished."""
        end = 0
        self._path.touch()
        with self._path.open("r+b") as file:
            for text in file:
                if not text.endswith(b"\n"):
                    break
                line = json.loads(text)
                self._offsets[line["image_id"]] = end
                self._stems[line["stem"]] = line["image_id"]
                end += len(text)
            file.truncate(end)

    def finished(self, record: ImageRecord) -> dict[str, Any] | None:
        """Returns the line of an image, a dict, if all that is needed of it is there, or None."""
        if record.image_id not in self._offsets:
            return None
        line = self._line(record.image_id)
        lacks_detections = line["results"] is not None and not line["has_detections"]
        if not self._is_elsewhere and line["image_file"] != _stamp(record.image_path):
            return None
        if self._keeps_detections and lacks_detections:
            return None
        return line if all(path.exists() for path in self._paths(line).values()) else None

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yields the lines of the images of this evaluation, in its order."""
        for image_id in self._image_ids:
            yield self._line(image_id)

    def _line(self, image_id: int | str) -> dict[str, Any]:
        with self._path.open("rb") as file:
            file.seek(self._offsets[image_id])
            return json.loads(file.readline())

    def unique_stem(self, record: ImageRecord) -> str:
        """Flattens `folder/name.jpg` to `folder_name`, so that nothing lands outside the folder.

        Where that is another image's, the id is added, and if need be a number.
        """
        stem = os.path.splitext(record.file_name)[0].strip("/").replace("/", "_")
        longer = f"{stem}_{record.image_id}".replace("/", "_").replace("\\", "_")
        numbered = (f"{longer}_{number}" for number in itertools.count(2))
        return next(
            stem
            for stem in itertools.chain((stem, longer), numbered)
            if self._stems.setdefault(stem, record.image_id) == record.image_id
        )

    def write(self, stem: str, result: Result) -> None:
        """Writes the arrays of a `Result`; several threads may."""
        paths = self._paths(self._contents(stem, result))
        write_panoptic_png(result.panoptic_map, paths["panoptic"])
        if result.semantic_map is not None:
            num_classes = len(self._categories.categories) + 1
            dtype = np.uint8 if num_classes <= 256 else np.uint16
            Image.fromarray(result.semantic_map.astype(dtype)).save(paths["semantic"])
        detections: dict[str, Any] | None = result.detections
        if "detections" in paths and detections is not None:
            np.savez(paths["detections"], **detections)

    def _contents(self, stem: str, result: Result) -> dict[str, Any]:
        """The part of an image's line that says which files it has."""
        return {
            "stem": stem,
            "has_semantic": result.semantic_map is not None,
            "has_detections": self._keeps_detections and result.detections is not None,
        }

    def _paths(self, line: Mapping[str, Any]) -> dict[str, pathlib.Path]:
        """The files of an image, by folder."""
        endings = {"panoptic": "png"}
        if line["has_semantic"]:
            endings["semantic"] = "png"
        if line["has_detections"]:
            endings["detections"] = "npz"
        return {
            name: self.folder / name / f"{line['stem']}.{ending}"
            for name, ending in endings.items()
        }

    def keep(self, line: Mapping[str, Any]) -> None:
        """Counts an image that is finished to this evaluation."""
        self._image_ids.append(line["image_id"])

    def append(self, record: ImageRecord, stem: str, result: Result, seconds: float) -> None:
        """Writes the line of an image whose arrays are written.

        Args:
            record, stem: the image's.
            result: `Result`.
            seconds: float, the predictor's time.
        """
        entries = result.to_coco(record.image_id, stem)
        line = {
            "image_id": record.image_id,
            "image_file": _stamp(record.image_path),
            "file_name": record.file_name,
            "height": record.height,
            "width": record.width,
            **self._contents(stem, result),
            "seconds": seconds,
            "segments_info": result.segments,
            "results": entries["instances"],
        }
        self._offsets[record.image_id] = self._file.tell()
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        self.keep(line)

    def read(self, line: Mapping[str, Any]) -> Result:
        """Reads the `Result` of a line; the inverse of `write` and `append`."""
        paths = self._paths(line)
        semantic = detections = None
        if "semantic" in paths:
            semantic = np.asarray(Image.open(paths["semantic"]))
        if "detections" in paths:
            with np.load(paths["detections"]) as arrays:
                detections = dict(arrays)
        return Result(
            read_panoptic_png(paths["panoptic"]),
            line["segments_info"],
            self._categories,
            semantic_map=semantic,
            detections=detections,
            instances=line["results"],
            file_name=line["file_name"],
        )

    def write_coco(self) -> None:
        """Writes `panoptic.json` and `instances.json`, COCO's result formats."""
        images, annotations, separator = [], [], ""
        with (
            replacing(self.folder / "instances.json") as partial,
            partial.open("w", encoding="utf-8") as file,
        ):
            file.write("[")
            for line in self.lines():
                images.append(
                    {
                        "id": line["image_id"],
                        **{key: line[key] for key in ("file_name", "height", "width")},
                    }
                )
                annotations.append(
                    {
                        "image_id": line["image_id"],
                        "file_name": f"{line['stem']}.png",
                        "segments_info": line["segments_info"],
                    }
                )
                for result in line["results"] or ():
                    file.write(separator + json.dumps(result))
                    separator = ",\n"
            file.write("]")
        panoptic = {
            "images": images,
            "annotations": annotations,
            "categories": self._categories.to_coco(),
        }
        write_text(self.folder / "panoptic.json", json.dumps(panoptic))


def _stamp(path: str | os.PathLike) -> list[int]:
    """Tells whether a file has changed."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def write_submission(folder: str | os.PathLike, name: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Packs the COCO results of an evaluation as COCO's server takes them.

    `panoptic_NAME_results.zip` holds `panoptic_NAME_results.json` and the folder of that name with
    the PNGs; `detections_NAME_results.zip` holds `detections_NAME_results.json`.

    Args:
        folder: of the evaluation, with `panoptic.json`, `panoptic/` and `instances.json`.
        name: test set and algorithm, such as "test-dev2017_panopticfpn".

    Returns:
        The paths of the two files.
    """
    folder = pathlib.Path(folder)
    document = json.loads((folder / "panoptic.json").read_text(encoding="utf-8"))
    stem = f"panoptic_{name}_results"
    panoptic = folder / f"{stem}.zip"
    with (
        replacing(panoptic) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        archive.writestr(f"{stem}.json", json.dumps({"annotations": document["annotations"]}))
        for annotation in document["annotations"]:
            file_name = annotation["file_name"]
            archive.write(
                folder / "panoptic" / file_name, f"{stem}/{file_name}", zipfile.ZIP_STORED
            )
    stem = f"detections_{name}_results"
    detections = folder / f"{stem}.zip"
    with (
        replacing(detections) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        archive.write(folder / "instances.json", f"{stem}.json")
    return panoptic, detections
