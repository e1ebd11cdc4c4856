"""Pairs of PNGs: a map of classes and a map of instances for each image."""

import functools
import os

from tf_panoptic_fpn.datatools.convert.painting import combine_maps
from tf_panoptic_fpn.datatools.convert.source import Source, SourceImage, files_by_stem
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.images import read_label_png

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def read_png_pairs(images_dir, semantic_dir, instance_dir, categories, void=(255,)):
    """Reads images, maps of classes and maps of instances that have the same names.

    Args:
        images_dir, semantic_dir, instance_dir: folders. The two maps of an image have its name,
            subfolder included, with the extension `.png`.
        categories: `CategoryTable`; a pixel of the map of classes is a category id, 0 for none.
        void: values of the map of classes that stand for void.

    Returns:
        A `Source`; `left_out` names the maps without partner.

    Raises:
        DataError: if a folder does not exist or there is no map.
    """
    images = files_by_stem(images_dir, IMAGE_EXTENSIONS)
    semantic = files_by_stem(semantic_dir, (".png",))
    instance = files_by_stem(instance_dir, (".png",))
    if not semantic:
        raise DataError(f"{semantic_dir}: no PNG in this folder")
    left_out, found = {}, []
    for stem, name in semantic.items():
        if stem not in images:
            left_out[name] = f"no image of this name in {images_dir}"
        elif stem not in instance:
            left_out[name] = f"no map of instances of this name in {instance_dir}"
        else:
            paths = os.path.join(semantic_dir, name), os.path.join(instance_dir, instance[stem])
            draw = functools.partial(_draw, *paths, void)
            found.append(SourceImage(len(found) + 1, images[stem], draw))
    return Source(categories, os.fspath(images_dir), tuple(found), left_out)


def _draw(semantic_path, instance_path, void, size, categories):
    semantic, instance = read_label_png(semantic_path), read_label_png(instance_path)
    if semantic.shape != tuple(size):
        received, image = ("{}x{}".format(*s) for s in (semantic.shape, size))
        raise DataError(f"{semantic_path}: the map is {received} (HxW), the image {image}")
    return combine_maps(semantic, instance, categories, void)
