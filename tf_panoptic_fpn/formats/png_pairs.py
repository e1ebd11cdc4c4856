"""Reading pairs of PNGs: a map of classes and a map of instances for each image."""

import dataclasses
import os

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.folders import files_by_stem
from tf_panoptic_fpn.formats.images import read_label_png

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclasses.dataclass(frozen=True)
class PngPair:
    """One image, by its path below the folder of images, and the paths of its two maps."""

    file_name: str
    semantic_path: str
    instance_path: str

    def read(self):
        """Reads the two maps, each int32 `[H, W]`; raises DataError as `read_label_png`."""
        return read_label_png(self.semantic_path), read_label_png(self.instance_path)


def find_png_pairs(images_dir, semantic_dir, instance_dir):
    """Finds images, maps of classes and maps of instances that have the same names.

    Args:
        images_dir, semantic_dir, instance_dir: folders. The two maps of an image have its name,
            subfolder included, with the extension `.png`.

    Returns:
        `(pairs, left_out)`: list of `PngPair`, and a dict of the name of a map without partner to
        the reason.

    Raises:
        DataError: if a folder does not exist or there is no map.
    """
    images = files_by_stem(images_dir, IMAGE_EXTENSIONS)
    semantic = files_by_stem(semantic_dir, (".png",))
    instance = files_by_stem(instance_dir, (".png",))
    if not semantic:
        raise DataError(f"{semantic_dir}: no PNG in this folder")
    left_out, pairs = {}, []
    for stem, name in semantic.items():
        if stem not in images:
            left_out[name] = f"no image of this name in {images_dir}"
        elif stem not in instance:
            left_out[name] = f"no map of instances of this name in {instance_dir}"
        else:
            paths = os.path.join(semantic_dir, name), os.path.join(instance_dir, instance[stem])
            pairs.append(PngPair(images[stem], *paths))
    return pairs, left_out
