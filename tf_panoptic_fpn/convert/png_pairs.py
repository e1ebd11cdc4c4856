"""Pairs of PNGs: a map of classes and a map of instances for each image."""

import functools
import os
from collections.abc import Sequence

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.convert.painting import combine_maps
from tf_panoptic_fpn.convert.source import Drawing, Source, SourceImage, check_size
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.folders import IMAGE_EXTENSIONS, files_by_stem, list_files, unread_kinds
from tf_panoptic_fpn.formats.images import read_label_png
from tf_panoptic_fpn.messages import plural


def read_png_pairs(
    images_dir: str | os.PathLike,
    semantic_dir: str | os.PathLike,
    instance_dir: str | os.PathLike,
    categories: CategoryTable,
    void: Sequence[int] = (255,),
) -> Source:
    """Reads images, maps of classes and maps of instances that have the same names.

    Args:
        images_dir, semantic_dir, instance_dir: folders. The two maps of an image have its name,
            subfolder included, with the extension `.png`.
        categories: a pixel of the map of classes is a category id, 0 for none.
        void: values of the map of classes that stand for void.

    Returns:
        A `Source`; `left_out` names the maps without partner.

    Raises:
        DataError: if a folder does not exist or there is no map.
    """
    found = files_by_stem(images_dir, IMAGE_EXTENSIONS)
    semantic = files_by_stem(semantic_dir, (".png",))
    instance = files_by_stem(instance_dir, (".png",))
    if not semantic:
        raise DataError(f"{semantic_dir}: no PNG in this folder")
    images: list[SourceImage] = []
    left_out = {}
    for stem, name in semantic.items():
        if stem not in found:
            left_out[name] = f"no image of this name in {images_dir}"
        elif stem not in instance:
            left_out[name] = f"no map of instances of this name in {instance_dir}"
        else:
            paths = os.path.join(semantic_dir, name), os.path.join(instance_dir, instance[stem])
            draw = functools.partial(_draw, *paths, void)
            images.append(SourceImage(len(images) + 1, found[stem], draw))
    notes = unread_kinds(list_files(images_dir), IMAGE_EXTENSIONS)
    used = {image.file_name for image in images}
    unused = sorted(set(found.values()) - used)
    if unused:
        notes.append(f"{plural(len(unused), 'image')} without maps, e.g. {unused[0]}")
    return Source(categories, os.fspath(images_dir), tuple(images), left_out, notes=tuple(notes))


def _draw(
    semantic_path: str,
    instance_path: str,
    void: Sequence[int],
    size: tuple[int, int],
    categories: CategoryTable,
) -> Drawing:
    semantic, instance = read_label_png(semantic_path), read_label_png(instance_path)
    check_size(f"{semantic_path}: the map", semantic.shape, size)
    return combine_maps(semantic, instance, categories, void)
