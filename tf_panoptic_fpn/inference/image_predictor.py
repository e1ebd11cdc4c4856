"""Pictures in, `Result`s out: what all predictors have in common."""

import abc
import os
import typing
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.config import MergeConfig
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.images import FULL_RANGE, convert_image, read_image
from tf_panoptic_fpn.media.sources import find_inputs
from tf_panoptic_fpn.results.result import Result

Picture = str | os.PathLike | Image.Image | np.ndarray


class ImagePredictor(abc.ABC):
    """Segments images; `categories`, a `CategoryTable`, are those that it tells apart, and `merge`,
    a `MergeConfig`, has the thresholds of the merge.

    Call: an image -> its `Result`; a list of images -> a list of `Result`s. An image is the path of
    a file, a PIL image, or an array uint8 `[H, W, 3]`, RGB. Of files and PIL images the EXIF
    orientation is applied, and grey and 16-bit pixels become 8-bit RGB, the latter by
    `pixel_range`, see `formats.images.read_image`.
    """

    categories: CategoryTable
    pixel_range: tuple[int, int] = FULL_RANGE
    merge: MergeConfig = MergeConfig()

    @abc.abstractmethod
    def run(self, images: np.ndarray) -> list[dict]:
        """Runs images of one size.

        Args:
            images: uint8 `[B, H0, W0, 3]`, RGB.

        Returns:
            list of B dicts of numpy arrays: the keys of the merge (`schema`), SEMANTIC_MAP and
            INSTANCES. With a model of one task the merge has its segments alone, and the key of the
            other task is missing.
        """

    @typing.overload
    def __call__(self, images: Picture) -> Result: ...

    @typing.overload
    def __call__(self, images: list[Picture] | tuple[Picture, ...]) -> list[Result]: ...

    def __call__(
        self, images: Picture | list[Picture] | tuple[Picture, ...]
    ) -> Result | list[Result]:
        if isinstance(images, (list, tuple)):
            return [self(image) for image in images]
        image, file_name = read_picture(images, self.pixel_range)
        (result,) = self.predict_batch(image[None])
        result.file_name = file_name
        return result

    def predict_batch(self, images: np.ndarray) -> list[Result]:
        """uint8 `[B, H0, W0, 3]`, images of one size -> list of B `Result`s."""
        pairs = zip(self.run(images), images, strict=True)
        return [Result.from_outputs(outputs, self.categories, image) for outputs, image in pairs]

    def predict_large(
        self,
        path: str | os.PathLike,
        output: str | os.PathLike,
        *,
        tile: int = 1024,
        overlap: int | None = None,
        batch_size: int = 1,
        write: Sequence[str] = ("tif", "json"),
    ) -> None:
        """Segments an image that is too large for memory, tile by tile, and writes what comes out.

        Args:
            path: of the image, see `large_images.reader.open_large_image`.
            output: folder to write to.
            tile: int, pixels, the sides of a tile.
            overlap: int, pixels that neighbours share at least, by default an eighth of a tile.
            batch_size: int, tiles to run at once.
            write: what to write, see `inference.tiles.predict_large_files`.

        Raises:
            PanopticError: if the image cannot be read in tiles, or an output cannot be written.
        """
        from tf_panoptic_fpn.inference.tiles import predict_large_files

        inputs = find_inputs([path], output)
        predict_large_files(self, inputs, output, tile, overlap, batch_size, write)


def read_picture(
    image: Picture, pixel_range: tuple[int, int] = FULL_RANGE
) -> tuple[np.ndarray, str]:
    """Reads what a predictor is given.

    Args:
        image: path, PIL image, or uint8 `[H, W, 3]`, RGB.
        pixel_range: see `formats.images.read_image`.

    Returns:
        uint8 `[H, W, 3]` and the name of the file, "" where there is none.

    Raises:
        DataError: if the file cannot be read, or an array has another shape or dtype.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image, pixel_range), os.path.basename(image)
    if isinstance(image, Image.Image):
        return convert_image(image, pixel_range), os.path.basename(
            getattr(image, "filename", "") or ""
        )
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or not array.size:
        raise DataError(
            "An image must be a path, a PIL image or a uint8 array [H, W, 3]. "
            f"Received: {type(image).__name__}, {array.dtype} {[*array.shape]}"
        )
    return array, ""
