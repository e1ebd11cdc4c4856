"""What a model predicts for one image: one object from the predictor to files and metrics."""

import functools
import io
import json
import os
import pathlib
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.atomic_write import replacing, write_text
from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.panoptic_png import write_panoptic_png
from tf_panoptic_fpn.metrics.instance_ap import instance_results
from tf_panoptic_fpn.results import adapters
from tf_panoptic_fpn.visualize import draw_panoptic

if TYPE_CHECKING:
    from supervision import Detections


class Result:
    """What a model predicts for one image, at the size of the image. Notebooks show it as drawn.

    Attributes:
        panoptic_map: int32 `[H, W]`, segment id of each pixel; 0 is void, where nothing was found.
        segments: list of dicts, by ascending id 1..N: `id`; `category_id`, that of the data set
            (`categories.by_id` has its name); `area` in pixels; `bbox`, `[x, y, width, height]` in
            pixels, tight around them; and, for things, `score` in [0, 1].
        instances: list of dicts, by descending score, or None if the model does not detect: what
            was detected before the merge, so that masks may overlap: `category_id`, `bbox`, `score`
            and `segmentation` (COCO's run-length code; pycocotools' `mask.decode` reads it).
        semantic_map: int32 `[H, W]`, semantic class of each pixel before the merge (see
            `CategoryTable.semantic_classes`), or None if the model does not segment stuff.
        categories: `CategoryTable`.
        image: uint8 `[H, W, 3]`, RGB, what was segmented; or None.
        file_name: str, of the image; "" where it came as an array.
        detections: dict of arrays, INSTANCES of `schema`, with the masks in their boxes; or None.
    """

    def __init__(
        self,
        panoptic_map: np.ndarray,
        segments: list[dict],
        categories: CategoryTable,
        *,
        semantic_map: np.ndarray | None = None,
        detections: dict[str, np.ndarray] | None = None,
        instances: list[dict] | None = None,
        image: np.ndarray | None = None,
        file_name: str = "",
    ) -> None:
        self.panoptic_map = panoptic_map
        self.segments = segments
        self.categories = categories
        self.semantic_map = semantic_map
        self.detections = detections
        if instances is not None:
            self.instances = instances
        self.image = image
        self.file_name = file_name

    @classmethod
    def from_outputs(
        cls, outputs: dict, categories: CategoryTable, image: np.ndarray | None = None
    ) -> "Result":
        """Makes a `Result` of a dict of arrays: the merge's part of `schema`, and its other tasks.

        Args:
            outputs: dict, with INSTANCES and SEMANTIC_MAP as far as the model has these tasks.
            categories: `CategoryTable`.
            image: uint8 `[H, W, 3]`, or None.
        """
        return cls(
            outputs[schema.PANOPTIC_MAP],
            segments_info(outputs),
            categories,
            semantic_map=outputs.get(schema.SEMANTIC_MAP),
            detections=outputs.get(schema.INSTANCES),
            image=image,
        )

    @functools.cached_property
    def instances(self) -> list[dict] | None:
        if self.detections is None:
            return None
        valid = slice(int(self.detections[schema.NUM_DETECTIONS]))
        thing_ids = np.asarray(self.categories.thing_ids, np.int64)
        results = instance_results(
            0,  # left out below
            self.detections[schema.BOXES][valid],
            self.detections[schema.SCORES][valid],
            thing_ids[self.detections[schema.CLASSES][valid]],
            self.detections[schema.MASK_PROBS][valid],
            self.panoptic_map.shape,
        )
        return [{key: v for key, v in r.items() if key != "image_id"} for r in results]

    def __repr__(self) -> str:
        height, width = self.panoptic_map.shape
        names = [self.categories.by_id[s["category_id"]].name for s in self.segments]
        counts = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
        name = f"{self.file_name}, " if self.file_name else ""
        return f"<Result: {name}{width}x{height}, {counts or 'nothing found'}>"

    def draw(self) -> Image.Image:
        """Draws the segments with their names over the image.

        Returns:
            `PIL.Image`, enlarged to a shorter side of 480 pixels if the image is smaller.

        Raises:
            DataError: if the image is not known.
        """
        if self.image is None:
            raise DataError("The result must hold its image to be drawn. Received: None")
        drawn = draw_panoptic(self.image, self.panoptic_map, self.segments, self.categories)
        return Image.fromarray(drawn)

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows."""
        if self.image is None:
            return None
        buffer = io.BytesIO()
        self.draw().save(buffer, "PNG")
        return buffer.getvalue()

    def save(
        self,
        folder: str | os.PathLike,
        stem: str | None = None,
        write: Collection[str] = ("overlay", "png", "json"),
        image_path: str | os.PathLike | None = None,
    ) -> None:
        """Writes files, by the names in `write`.

        "overlay": `STEM_overlay.png`, what `draw` returns; "png": `STEM_panoptic.png`, the segment
        ids in COCO's code, id = R + 256 G + 65536 B; "json": `STEM.json`, the segments; "labelme":
        `labelme/STEM.json`, see `to_labelme`.

        Args:
            folder: path; it and the folders of `stem` are made.
            stem: str, may have folders; by default that of the image's file, else "image".
            write: names.
            image_path: of the image, for LabelMe; None: the image is put into the file.
        """
        stem = stem or pathlib.PurePath(self.file_name).stem or "image"

        def path_of(ending: str) -> pathlib.Path:
            path = pathlib.Path(folder) / f"{stem}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            return path

        if "png" in write:
            with replacing(path_of("_panoptic.png")) as partial:
                write_panoptic_png(self.panoptic_map, partial)
        if "json" in write:
            document = {**self._size(), "segments_info": self.segments}
            write_text(path_of(".json"), json.dumps(document, indent=1))
        if "labelme" in write:
            path = pathlib.Path(folder, "labelme", f"{stem}.json")
            path.parent.mkdir(parents=True, exist_ok=True)
            relative = None if image_path is None else os.path.relpath(image_path, path.parent)
            write_text(path, json.dumps(self.to_labelme(relative), indent=1))
        if "overlay" in write:
            with replacing(path_of("_overlay.png")) as partial:
                self.draw().save(partial)

    def to_coco(self, image_id: int | str = 1, stem: str | None = None) -> dict:
        """Returns the entries of this image in COCO's files.

        Args:
            image_id: int or str, unique among the images.
            stem: str, of the panoptic PNG; by default that of the image's file.

        Returns:
            dict: `image`, an entry of the list `images`; `annotation`, of the `annotations` of
            panoptic results; `instances`, a list of instance results, or None without the task.
        """
        stem = pathlib.PurePath(self.file_name).stem if stem is None else stem
        instances = self.instances
        return {
            "image": {"id": image_id, **self._size()},
            "annotation": {
                "image_id": image_id,
                "file_name": f"{stem}.png",
                "segments_info": self.segments,
            },
            "instances": None
            if instances is None
            else [{"image_id": image_id, **instance} for instance in instances],
        }

    def to_supervision(self) -> "Detections":
        """Returns the segments as `supervision.Detections`, things and stuff.

        `class_id` is the category id, `data["class_name"]` its name and `data["is_thing"]` whether
        it is a thing; stuff has the confidence 1. Masks are those of the panoptic map.

        Raises:
            ConfigError: if supervision is not installed.
        """
        return adapters.to_supervision(self)

    def to_labelme(
        self, image_path: str | os.PathLike | None = None, tolerance: float = 1.0
    ) -> dict[str, Any]:
        """Returns the segments as the content of a LabelMe file, for a person to correct.

        A segment is a polygon; several parts are polygons of one `group_id`. One with a hole, which
        a polygon cannot have, is a `mask`. Things have a `score`, a key that LabelMe leaves alone.

        Args:
            image_path: of the image, as seen from where the file will lie; None: the image is put
                into the file, as a PNG.
            tolerance: float, pixels by which an outline may differ from that of the mask, so that
                it has few points; 0 keeps every corner of a pixel.

        Raises:
            DataError: if neither the image nor its path is known.
        """
        return adapters.to_labelme(self, image_path, tolerance)

    def to_geojson(
        self, transform: Sequence[float] = (1, 0, 0, 0, 1, 0), tolerance: float = 0.0
    ) -> dict[str, Any]:
        """Returns the segments as a GeoJSON `FeatureCollection`, a feature each.

        Args:
            transform: 6 numbers (a, b, c, d, e, f) that place a pixel's corner on the map, in the
                order of rasterio and affine: x = a column + b row + c and y = d column + e row + f.
                `dataset.transform` of rasterio may be given; GDAL's own order is (c, a, b, f, d,
                e). By default coordinates are pixels, with y downwards.
            tolerance: float, pixels, as in `to_labelme`; neighbours no longer share their borders
                exactly where it is above 0.

        Returns:
            dict, with `Polygon` or `MultiPolygon` geometries, outer rings counterclockwise, and the
            properties `category_id`, `category`, `is_thing`, `area_pixels` and, for things,
            `score`.

        Raises:
            DataError: if `transform` has another number of values.
        """
        return adapters.to_geojson(self, transform, tolerance)

    def _size(self) -> dict[str, Any]:
        height, width = self.panoptic_map.shape
        return {"file_name": self.file_name, "height": height, "width": width}


def segments_info(outputs: dict) -> list[dict]:
    """Lists the segments of merged outputs as COCO panoptic results do.

    Args:
        outputs: dict of arrays, the merge's part of `schema`.

    Returns:
        list of dicts `id`, `category_id`, `area`, `bbox` (xywh) and, for things, `score`.
    """
    segments = []
    for row in range(int(outputs[schema.NUM_SEGMENTS])):
        y1, x1, y2, x2 = (float(value) for value in outputs[schema.BOXES][row])
        segment = {
            "id": row + 1,
            "category_id": int(outputs[schema.CATEGORY_IDS][row]),
            "area": int(outputs[schema.AREAS][row]),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
        }
        if outputs[schema.IS_THING][row]:
            segment["score"] = float(outputs[schema.SCORES][row])
        segments.append(segment)
    return segments
