"""A result as other tools take it: supervision, LabelMe, GeoJSON. All tell the panoptic map."""

import base64
import io
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tf_panoptic_fpn.errors import ConfigError, DataError
from tf_panoptic_fpn.masks.outlines import outlines, simplify

if TYPE_CHECKING:
    from supervision import Detections

    from tf_panoptic_fpn.results.result import Result

LABELME_VERSION = "5.5.0"


def to_supervision(result: "Result") -> "Detections":
    """See `Result.to_supervision`."""
    try:
        from supervision import Detections
    except ImportError:
        raise ConfigError(
            "`to_supervision` needs supervision: pip install 'tf-panoptic-fpn[supervision]'"
        ) from None
    segments, by_id = result.segments, result.categories.by_id
    if not segments:
        return Detections.empty()
    boxes = np.array([segment["bbox"] for segment in segments], np.float32)
    categories = [by_id[segment["category_id"]] for segment in segments]
    ids = np.array([segment["id"] for segment in segments])
    return Detections(
        xyxy=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
        mask=result.panoptic_map == ids[:, None, None],
        confidence=np.array([segment.get("score", 1.0) for segment in segments], np.float32),
        class_id=np.array([category.id for category in categories]),
        data={
            "class_name": np.array([category.name for category in categories]),
            "is_thing": np.array([category.is_thing for category in categories]),
        },
    )


def to_labelme(
    result: "Result", image_path: str | os.PathLike | None = None, tolerance: float = 1.0
) -> dict[str, Any]:
    """See `Result.to_labelme`."""
    height, width = result.panoptic_map.shape
    encoded = None
    if image_path is None:
        if result.image is None:
            raise DataError("The result must hold its image, or `image_path` be given")
        encoded = _png(result.image)
        image_path = f"{pathlib.PurePath(result.file_name).stem or 'image'}.png"
    return {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": [
            shape
            for segment, mask, corner in _masks(result)
            for shape in _labelme_shapes(segment, mask, corner, result, tolerance)
        ],
        "imagePath": os.fspath(image_path),
        "imageData": encoded,
        "imageHeight": height,
        "imageWidth": width,
    }


def to_geojson(
    result: "Result",
    transform: Sequence[float] = (1, 0, 0, 0, 1, 0),
    tolerance: float = 0.0,
) -> dict[str, Any]:
    """See `Result.to_geojson`."""
    if len(transform) not in (6, 9):
        raise DataError(
            "`transform` must be 6 numbers (a, b, c, d, e, f), x = a column + b row + c and y = "
            f"d column + e row + f. Received: {len(transform)}"
        )
    a, b, c, d, e, f = (float(value) for value in [*transform][:6])
    matrix, offset = np.array([[a, d], [b, e]]), np.array([c, f])
    is_mirrored = a * e - b * d < 0
    features = []
    for segment, mask, corner in _masks(result):
        polygons = [
            [_closed(simplify(ring, tolerance) + corner, matrix, offset, is_mirrored) for ring in p]
            for p in outlines(mask)
        ]
        is_one = len(polygons) == 1
        category = result.categories.by_id[segment["category_id"]]
        features.append(
            {
                "type": "Feature",
                "id": segment["id"],
                "properties": {
                    "category_id": category.id,
                    "category": category.name,
                    "is_thing": category.is_thing,
                    "area_pixels": segment["area"],
                    **({"score": segment["score"]} if "score" in segment else {}),
                },
                "geometry": {
                    "type": "Polygon" if is_one else "MultiPolygon",
                    "coordinates": polygons[0] if is_one else polygons,
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}


def _masks(result: "Result") -> Iterator[tuple[dict, np.ndarray, np.ndarray]]:
    """Each segment, its mask in its box, and the box's corner (x, y)."""
    for segment in result.segments:
        left, top, width, height = (int(value) for value in segment["bbox"])
        window = result.panoptic_map[top : top + height, left : left + width]
        yield segment, window == segment["id"], np.array([left, top])


def _labelme_shapes(
    segment: dict, mask: np.ndarray, corner: np.ndarray, result: "Result", tolerance: float
) -> Iterator[dict[str, Any]]:
    polygons = outlines(mask)
    common = {
        "label": result.categories.by_id[segment["category_id"]].name,
        "group_id": segment["id"] if len(polygons) > 1 else None,
        "description": "",
        "flags": {},
        **({"score": segment["score"]} if "score" in segment else {}),
    }
    if any(len(polygon) > 1 for polygon in polygons):
        height, width = mask.shape
        left, top = corner.tolist()
        points = [[left, top], [left + width - 1, top + height - 1]]
        common["group_id"] = None
        yield {
            **common,
            "shape_type": "mask",
            "points": points,
            "mask": _png(mask.astype(np.uint8)),
        }
        return
    for (ring,) in polygons:
        points = (simplify(ring, tolerance) + corner).tolist()
        yield {**common, "shape_type": "polygon", "points": points, "mask": None}


def _closed(
    ring: np.ndarray, matrix: np.ndarray, offset: np.ndarray, is_mirrored: bool
) -> list[list[float]]:
    """A ring in the coordinates of a map, closed; an outer one runs counterclockwise there."""
    # Clockwise in the image, whose y runs downwards, is counterclockwise in x and y.
    points = ring @ matrix + offset
    if is_mirrored:
        points = points[::-1]
    return [*points.tolist(), points[0].tolist()]


def _png(pixels: np.ndarray) -> str:
    """A PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
