"""How a server runs an ONNX file on the bytes of images: with onnxruntime, Pillow and NumPy alone.

An export for Triton of an ONNX file holds this file and what it imports, see `HELD`.
"""

import io
import json
import os

import numpy as np
from PIL import Image

from tf_panoptic_fpn.data.served_kinds import (
    DAMAGED,
    EMPTY,
    KINDS,
    SERVED,
    TOO_LARGE,
    kind_of,
    not_served,
)
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.images import decoding, read_image
from tf_panoptic_fpn.formats.panoptic_png import write_panoptic_png
from tf_panoptic_fpn.inference.onnx_session import open_session

# Files of this package that are all that this one imports, itself included.
HELD = (
    "data/served_kinds.py",
    "errors.py",
    "export/triton_onnx.py",
    "formats/images.py",
    "formats/panoptic_png.py",
    "inference/onnx_session.py",
    "messages.py",
)
PIXELS, IMAGES = "images", "image_bytes"  # the input of the file, and what is served in its place
MAPS = ("panoptic_map", "semantic_map")  # padded to the largest image of a batch
DTYPES = {  # onnxruntime's word for a type: NumPy's
    "tensor(bool)": "bool",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float)": "float32",
}
Specs = dict[str, tuple[str, list[int | None]]]  # dtype and shape by name; None: it varies


class OnnxModel:
    """Serves an ONNX file as a SavedModel's signature `with_thresholds` serves.

    Args:
        path: of the file that `export --format=onnx` wrote.
        max_pixels: int; an image whose head says more is refused.

    `inputs`, `outputs`: names -> dtype and shape, with a leading B. `defaults`: dict, the
    thresholds that were exported, by name.

    Raises:
        ConfigError: if the file cannot be loaded.
    """

    def __init__(self, path: str | os.PathLike, max_pixels: int) -> None:
        self._session = open_session(path)
        self._max_pixels = max_pixels
        settings = json.loads(self._session.get_modelmeta().custom_metadata_map["settings"])
        low, high = settings["pixel_range"]
        self._pixel_range = (low, high)
        thresholds = self._session.get_overridable_initializers()
        self.defaults = {
            x.name: np.dtype(DTYPES[x.type]).type(settings["merge"][x.name]) for x in thresholds
        }
        self.inputs: Specs = {x.name: (DTYPES[x.type], [None]) for x in thresholds}
        self.inputs[IMAGES] = ("string", [None])
        self.outputs: Specs = {
            x.name: (DTYPES[x.type], [side if isinstance(side, int) else None for side in x.shape])
            for x in self._session.get_outputs()
        }
        self._names = list(self.outputs)
        self.outputs["panoptic_png_bytes"] = ("string", [None])
        self.outputs["image_size"] = ("int32", [None, 2])

    def __call__(self, image_bytes: np.ndarray, **thresholds: np.ndarray) -> dict[str, np.ndarray]:
        """Encoded images, `[B]`, and thresholds of each -> the outputs, and `error`, `[B]`, bytes.

        Images are run one by one. The row of a refused one means nothing.
        """
        rows: list[dict[str, np.ndarray]] = []
        errors = [b""] * len(image_bytes)
        for number, data in enumerate(image_bytes):
            given = {name: np.asarray(values[number]) for name, values in thresholds.items()}
            try:
                rows.append(self._serve(self._read(data), given))
            except DataError as error:
                errors[number] = str(error).encode()
                rows.append({})
        return {**_stacked(rows), "error": np.array(errors, object)}

    def _read(self, data: bytes) -> np.ndarray:
        """uint8 `[H, W, 3]`, RGB; DataError where the image is refused."""
        if not data:
            raise DataError(EMPTY)
        kind = kind_of(data)
        if kind not in list(KINDS)[:SERVED]:
            raise DataError(not_served(kind) if kind else DAMAGED)
        file = io.BytesIO(data)
        with decoding(file, "image"), Image.open(file) as image:
            pixels = image.width * image.height
        if pixels > self._max_pixels:
            raise DataError(TOO_LARGE.format(pixels, self._max_pixels))
        return read_image(io.BytesIO(data), self._pixel_range)

    def _serve(self, image: np.ndarray, thresholds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = self._session.run(self._names, {PIXELS: image[None], **thresholds})
        outputs = {name: value[0] for name, value in zip(self._names, values, strict=True)}
        file = io.BytesIO()
        write_panoptic_png(outputs["panoptic_map"], file)
        outputs["panoptic_png_bytes"] = np.array(file.getvalue(), object)
        outputs["image_size"] = np.array(image.shape[:2], np.int32)
        return outputs


def _stacked(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Outputs of images as those of a batch, maps padded with 0 at the right and bottom."""
    served = [row for row in rows if row]
    if not served:
        return {}
    height, width = np.max([row["image_size"] for row in served], axis=0)
    stacked = {}
    for name, example in served[0].items():
        values = [row.get(name, np.zeros_like(example)) for row in rows]
        if name in MAPS:
            values = [np.pad(v, [(0, height - len(v)), (0, width - v.shape[1])]) for v in values]
        stacked[name] = np.stack(values)
    return stacked
