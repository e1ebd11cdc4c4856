"""Pairs of PNGs: a map of classes and a map of instances for each image."""

import functools
import os

from tf_panoptic_fpn.datatools.convert.painting import combine_maps
from tf_panoptic_fpn.datatools.convert.source import Source, SourceImage, check_size
from tf_panoptic_fpn.formats.folders import list_files, plural, unread_kinds
from tf_panoptic_fpn.formats.png_pairs import IMAGE_EXTENSIONS, find_png_pairs


def read_png_pairs(images_dir, semantic_dir, instance_dir, categories, void=(255,)):
    """Reads images, maps of classes and maps of instances that have the same names.

    Args:
        images_dir, semantic_dir, instance_dir: see `find_png_pairs`.
        categories: `CategoryTable`; a pixel of the map of classes is a category id, 0 for none.
        void: values of the map of classes that stand for void.

    Returns:
        A `Source`; `left_out` names the maps without partner.

    Raises:
        DataError: if a folder does not exist or there is no map.
    """
    pairs, left_out = find_png_pairs(images_dir, semantic_dir, instance_dir)
    images = tuple(
        SourceImage(image_id, pair.file_name, functools.partial(_draw, pair, void))
        for image_id, pair in enumerate(pairs, 1)
    )
    names = list_files(images_dir)
    notes = unread_kinds(names, IMAGE_EXTENSIONS)
    used = {pair.file_name for pair in pairs}
    unused = [n for n in names if n not in used and n.lower().endswith(IMAGE_EXTENSIONS)]
    if unused:
        notes.append(f"{plural(len(unused), 'image')} without maps, e.g. {unused[0]}")
    return Source(categories, os.fspath(images_dir), images, left_out, notes=tuple(notes))


def _draw(pair, void, size, categories):
    semantic, instance = pair.read()
    check_size(f"{pair.semantic_path}: the map", semantic.shape, size)
    return combine_maps(semantic, instance, categories, void)
