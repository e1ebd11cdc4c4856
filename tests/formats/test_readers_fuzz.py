"""Whatever a file holds, the readers raise no error but their own."""

import copy
import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tf_panoptic_fpn.data.index import build_index
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.breaches import LEAVE_OUT, STOP, Breaches
from tf_panoptic_fpn.formats.coco_instances import read_coco_instances
from tf_panoptic_fpn.formats.coco_panoptic import read_coco_panoptic
from tf_panoptic_fpn.formats.images import read_header, read_image, read_label_png
from tf_panoptic_fpn.formats.panoptic_png import read_panoptic_png
from tf_panoptic_fpn.formats.records import load_segments

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    st.text(max_size=6),
    st.lists(st.floats() | st.integers(-9, 9), max_size=9),
    st.lists(st.lists(st.floats(-20, 20), max_size=9), max_size=2),
    st.dictionaries(
        st.sampled_from(["id", "size", "counts"]),
        st.text(max_size=6) | st.lists(st.integers(0, 24), max_size=3),
    ),
)
MASKS = (
    [[1, 1, 3, 1, 3, 3]],
    {"size": [4, 6], "counts": [5, 2, 17]},
    {"size": [4, 6], "counts": "52a0"},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    ids = np.ones((4, 6, 3), np.uint8) * [3, 0, 0]
    Image.fromarray(ids.astype(np.uint8)).save(folder / "a.png")
    return folder


def _tree(annotation):
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 6}],
        "annotations": [annotation],
        "categories": [{"id": 7, "name": "cat", "isthing": 1, "color": [1, 2, 3]}],
    }


SEGMENT = {"id": 3, "category_id": 7, "iscrowd": 0, "area": 24, "bbox": [0, 0, 6, 4]}
PANOPTIC = _tree({"image_id": 1, "file_name": "a.png", "segments_info": [SEGMENT]})
INSTANCES = [_tree({"image_id": 1, "segmentation": mask, **SEGMENT, "id": 1}) for mask in MASKS]


def _places(node, path=()):
    """The path of every value below a JSON value."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from _places(value, (*path, key))


@st.composite
def _spoiled(draw, trees):
    tree = copy.deepcopy(draw(st.sampled_from(trees)))
    for _ in range(draw(st.integers(1, 2))):
        *parents, last = draw(st.sampled_from(list(_places(tree))))
        node = tree
        for key in parents:
            node = node[key]
        if draw(st.booleans()):
            node[last] = draw(VALUES)
        else:
            del node[last]
        if not tree:
            break
    return tree


def _use(split):
    build_index(split)
    for record in split.images:
        load_segments(record)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=_spoiled([PANOPTIC]) | _spoiled(INSTANCES), lenient=st.booleans())
def test_any_json(folder, tree, lenient):
    path = folder / "tree.json"
    path.write_text(json.dumps(tree))
    for read in (
        lambda: read_coco_panoptic(folder, path, folder),
        lambda: read_coco_instances(folder, path, Breaches(LEAVE_OUT if lenient else STOP)),
    ):
        try:
            _use(read())
        except DataError as error:
            assert "\n" not in str(error)


def test_the_unspoiled_trees_are_read(folder):
    path = folder / "tree.json"
    path.write_text(json.dumps(PANOPTIC))
    _use(read_coco_panoptic(folder, path, folder))
    for tree in INSTANCES:
        path.write_text(json.dumps(tree))
        _use(read_coco_instances(folder, path))


def _encoded(mode, form):
    stream = io.BytesIO()
    image = Image.fromarray(np.arange(96, dtype=np.uint8).reshape(8, 12)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(stream, form, exif=exif)
    return stream.getvalue()


FILES = [
    _encoded(*pair) for pair in (("RGB", "PNG"), ("P", "PNG"), ("L", "JPEG"), ("CMYK", "JPEG"))
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    content=st.sampled_from(FILES),
    changes=st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), max_size=4),
    stop=st.none() | st.integers(0, 900),
)
def test_any_image(folder, content, changes, stop):
    content = bytearray(content)
    for position, value in changes:
        content[position % len(content)] = value
    path = folder / "image"
    path.write_bytes(content[:stop])
    for read in (read_header, read_image, read_panoptic_png, read_label_png):
        try:
            read(path)
        except DataError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
