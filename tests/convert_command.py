"""Runs `convert-data`, and reads what it wrote as letters."""

import argparse

from tf_panoptic_fpn.commands import convert_data
from tf_panoptic_fpn.formats.coco_panoptic import read_coco_panoptic
from tf_panoptic_fpn.formats.records import load_segments


def command(module, *arguments):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    module.run(parser.parse_args([str(argument) for argument in arguments]))


def convert(folder, *arguments):
    """Runs the command; returns dict: file name -> (ids, dict: segment id -> its `Segment`)."""
    out = folder / "out"
    command(convert_data, f"--output={out}", *arguments)
    return loaded(out, "panoptic.json")


def loaded(out, json_name):
    """What `convert` returns, of one of the JSON files."""
    split = read_coco_panoptic(out / "images", out / json_name, out / "panoptic")
    images = {
        r.file_name: (load_segments(r)[1], {s.id: s for s in r.segments}) for r in split.images
    }
    return images, split.categories


def named(image, categories):
    """The map as category names, upper-case for crowds, `.` for void."""
    ids, segments = image
    names = {i: categories.by_id[s.category_id].name for i, s in segments.items()}
    names = {i: name.upper() if segments[i].is_crowd else name for i, name in names.items()}
    return [[names.get(i, ".") for i in row] for row in ids.tolist()]


def drawn(image, categories):
    """The map as rows of the first letters of the names."""
    return ["".join(name[0] for name in row) for row in named(image, categories)]
