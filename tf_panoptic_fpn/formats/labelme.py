"""Reading LabelMe's JSON files, and those of tools that write them, X-AnyLabeling's among them."""

import base64
import dataclasses
import io
import math

import numpy as np
from PIL import Image

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.json_file import read_json
from tf_panoptic_fpn.formats.rle import mask_runs, segmentation_runs

# Labels that LabelMe's own exporters take for no class: void, and what is not annotated.
IGNORE, BACKGROUND = "__ignore__", "_background_"
_OUTLINES = ("polygon", "rotation", "oriented_rectangle", "quadrilateral")
_KINDS_WITH_AREA = (*_OUTLINES, "rectangle", "circle", "mask")
_CIRCLE_POINTS = 72
_FARTHEST = 1e6  # pixels; False for NaN, and safe for ints that are no float
_CROWD_FLAGS = ("crowd", "iscrowd")
_SIGNATURES = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"BM": ".bmp", b"RIFF": ".webp"}


class NotLabelmeError(DataError):
    """A JSON file of another tool."""


@dataclasses.dataclass(frozen=True)
class LabelmeShape:
    """One shape; `name` is its place in the file with its label, `entry` what is written."""

    label: str
    name: str
    kind: str
    group_id: object
    is_crowd: bool
    entry: dict

    @property
    def has_area(self):
        """Whether shapes of this kind have one; lines and points have none."""
        return self.kind in _KINDS_WITH_AREA

    def runs(self, size):
        """Rasterises the shape.

        Args:
            size: `(height, width)` of the image, ints.

        Returns:
            int64 `[r]`, run lengths as of `segmentation_runs`.

        Raises:
            DataError: if the shape has no area or breaks a rule.
        """
        return _runs(self.entry, self.kind, size)


@dataclasses.dataclass(frozen=True)
class LabelmeFile:
    """What a LabelMe file says.

    `image_path` is as written, with `/`; `stated_size` is `(height, width)`, or None;
    `image_suffix` is that of the image in the file itself, or None where there is none.
    """

    image_path: str
    stated_size: tuple[int, int] | None
    shapes: tuple[LabelmeShape, ...]
    image_suffix: str | None


def read_labelme_file(path):
    """Reads a LabelMe file, without the image that may be in it.

    Args:
        path: a JSON file.

    Returns:
        A `LabelmeFile`.

    Raises:
        NotLabelmeError: if the JSON is of another kind.
        DataError: if the file cannot be read, or a shape has no label.
    """
    tree = read_json(path, (dict, list))
    if not isinstance(tree, dict) or not {"shapes", "imagePath"} <= tree.keys():
        raise NotLabelmeError(f"{path}: a LabelMe file has `shapes` and `imagePath`")
    shapes, image_path = tree["shapes"], tree["imagePath"]
    if not isinstance(shapes, list):
        raise DataError(f"{path}: `shapes` must be a list. Received: {shapes!r:.100}")
    if not isinstance(image_path, str) or not image_path:
        raise DataError(f"{path}: `imagePath` must be a path. Received: {image_path!r:.100}")
    for shape in shapes:
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            raise DataError(f"{path}: a shape must have a `label`. Received: {shape!r:.100}")
    return LabelmeFile(
        image_path.replace("\\", "/"),
        _stated_size(tree, path),
        tuple(_shape(position, shape) for position, shape in enumerate(shapes)),
        _image_suffix(tree.get("imageData")),
    )


def read_embedded_image(path):
    """Returns the image in a LabelMe file as the bytes of an image file.

    Raises:
        DataError: if there is none, or it is no base64.
    """
    try:
        return base64.b64decode(read_json(path, dict)["imageData"], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: `imageData` must be base64: {error}") from None


def _stated_size(tree, path):
    size = tree.get("imageHeight"), tree.get("imageWidth")
    if size == (None, None):
        return None
    if not all(type(side) is int for side in size):
        raise DataError(
            f"{path}: `imageHeight` and `imageWidth` must be ints. Received: {size[0]!r:.40} and "
            f"{size[1]!r:.40}"
        )
    return size


def _shape(position, entry):
    flags = entry.get("flags")
    kind = entry.get("shape_type")
    return LabelmeShape(
        label=entry["label"],
        name=f"shape {position} ({entry['label']})",
        kind="polygon" if kind is None else f"{kind!s:.20}",
        group_id=entry.get("group_id"),
        is_crowd=isinstance(flags, dict) and any(flags.get(flag) for flag in _CROWD_FLAGS),
        entry=entry,
    )


def _image_suffix(encoded):
    """The suffix by the first bytes of an image in base64; "" for a kind not known here."""
    if not isinstance(encoded, str) or not encoded:
        return None
    try:
        head = base64.b64decode(encoded[:16])
    except ValueError:
        return None
    return next((s for start, s in _SIGNATURES.items() if head.startswith(start)), "")


def _runs(shape, kind, size):
    if kind not in _KINDS_WITH_AREA:
        raise DataError(f"a {kind} has no area")
    points = shape.get("points")
    numbers = isinstance(points, list) and all(
        isinstance(point, list)
        and len(point) == 2
        and all(type(value) in (int, float) and abs(value) < _FARTHEST for value in point)
        for point in points
    )
    if not numbers:
        raise DataError("`points` must be a list of [x, y], in pixels")
    # LabelMe writes two opposite corners of a rectangle, X-AnyLabeling all four.
    if kind in _OUTLINES or (kind == "rectangle" and len(points) == 4):
        return segmentation_runs([[value for point in points for value in point]], size)
    if len(points) != 2:
        expected = "2 points or 4" if kind == "rectangle" else "2 points"
        raise DataError(f"a {kind} must have {expected}. Received: {len(points)}")
    (x1, y1), (x2, y2) = points
    if kind == "rectangle":
        return segmentation_runs([[x1, y1, x2, y1, x2, y2, x1, y2]], size)
    if kind == "circle":
        angles = np.linspace(0, 2 * np.pi, _CIRCLE_POINTS, endpoint=False)
        radius = math.hypot(x2 - x1, y2 - y1)
        outline = np.stack([x1 + radius * np.cos(angles), y1 + radius * np.sin(angles)], axis=-1)
        return segmentation_runs([outline.ravel().tolist()], size)
    return _bitmap_runs(shape.get("mask"), round(x1), round(y1), size)


def _bitmap_runs(encoded, left, top, size):
    """The runs of a bitmap, a PNG in base64, whose top left pixel is at (left, top)."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            if image.width > size[1] or image.height > size[0]:
                raise DataError(f"the mask is larger than the image: {image.height}x{image.width}")
            bitmap = np.asarray(image.convert("L")) > 0
    except DataError:
        raise
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, EOFError and others.
    except Exception as error:
        raise DataError(f"the mask cannot be decoded: {type(error).__name__}") from None
    mask = np.zeros(size, bool)
    bottom, right = top + bitmap.shape[0], left + bitmap.shape[1]
    if left < 0 or top < 0 or bottom > size[0] or right > size[1]:
        raise DataError("the mask leaves the image")
    mask[top:bottom, left:right] = bitmap
    return mask_runs(mask)
