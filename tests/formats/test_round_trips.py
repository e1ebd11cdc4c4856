"""What is written is what is read: each format that the package writes, and those it only reads."""

import json
import pathlib
import tempfile
from contextlib import contextmanager

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pycocotools import mask as coco_mask

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.convert.cityscapes import convert_cityscapes
from tf_panoptic_fpn.convert.png_pairs import read_png_pairs
from tf_panoptic_fpn.convert.runs import mask_runs, runs_mask, segmentation_runs
from tf_panoptic_fpn.convert.source import Drawing, Source, SourceImage
from tf_panoptic_fpn.convert.writer import write_panoptic
from tf_panoptic_fpn.datatools.validate.instances import validate_instances
from tf_panoptic_fpn.datatools.validate.panoptic import validate_panoptic
from tf_panoptic_fpn.formats.cityscapes import (
    CATEGORIES as CITYSCAPES,
)
from tf_panoptic_fpn.formats.cityscapes import read_cityscapes, read_cityscapes_panoptic
from tf_panoptic_fpn.formats.coco_instances import read_coco_instances
from tf_panoptic_fpn.formats.coco_json import category_table
from tf_panoptic_fpn.formats.coco_panoptic import read_coco_panoptic
from tf_panoptic_fpn.formats.coco_stuff import read_coco_stuff
from tf_panoptic_fpn.formats.images import read_label_map, read_label_png
from tf_panoptic_fpn.formats.label_maps import read_label_maps
from tf_panoptic_fpn.formats.panoptic_png import (
    read_panoptic_ids,
    read_panoptic_png,
    write_panoptic_png,
)
from tf_panoptic_fpn.formats.records import load_segments
from tf_panoptic_fpn.masks.rle import encode_segmentation, mask_area, mask_box, runs_of

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
examples = settings(max_examples=25, deadline=None)

SIZES = st.tuples(st.integers(1, 7), st.integers(1, 7))
# Any name of a file, but for the separators of folders and hidden files.
NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\\\0"), min_size=1, max_size=8
).filter(lambda name: not name.startswith(".") and len(name.encode()) < 60)
TEXT_IDS = st.text(min_size=1, max_size=6).filter(lambda text: not text.lstrip("-").isdigit())
COLORS = st.none() | st.tuples(*[st.integers(0, 255)] * 3)


@contextmanager
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield pathlib.Path(name)


def maps(values, dtype=np.int32, size=SIZES):
    return arrays.arrays(dtype, size, elements=values)


@st.composite
def tables(draw, min_things=0, max_id=(1 << 31) - 1):
    """A `CategoryTable` of up to 5 categories in any order."""
    ids = draw(st.lists(st.integers(0, max_id), unique=True, min_size=1, max_size=5))
    return CategoryTable(
        tuple(
            Category(i, draw(st.text(max_size=5)), n < min_things or draw(st.booleans()), color)
            for n, (i, color) in enumerate((i, draw(COLORS)) for i in ids)
        )
    )


@st.composite
def drawings(draw, table, size):
    """A map of a few segments, whose ids may be any, with their categories."""
    ids = draw(st.lists(st.integers(1, (1 << 24) - 1), unique=True, min_size=1, max_size=4))
    values = draw(maps(st.sampled_from([0, *ids]), size=st.just(size)))
    values.flat[0] = ids[0]  # not void alone
    things = {category.id for category in table.things}
    segments = {}
    for segment_id in sorted(set(np.unique(values).tolist()) - {0}):
        category_id = draw(st.sampled_from([category.id for category in table.categories]))
        segments[segment_id] = (category_id, category_id in things and draw(st.booleans()))
    return Drawing(values, segments)


def save_image(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1]).save(path, format="PNG")


def save_map(path, values, mode="L"):
    """Writes a label map, grey of 8 or 16 bits or with a palette that says nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint16 if mode == "I;16" else np.uint8))
    if mode == "P":
        colors = int(values.max()) + 1  # which sets the number of bits of a pixel
        image.putpalette(list(range(255, 255 - colors, -1)) * 3)
    image.save(path, format="PNG")


def boxed(mask):
    """Area and tight box of a mask, the slow way."""
    y, x = np.nonzero(mask)
    if not len(y):
        return 0, (0, 0, 0, 0)
    top, left = y.min(), x.min()
    return len(y), (left, top, x.max() + 1 - left, y.max() + 1 - top)


@examples
@given(maps(st.integers(0, (1 << 24) - 1)))
def test_panoptic_png(ids):
    with folder() as root:
        write_panoptic_png(ids, root / "a.png")
        for read in (read_panoptic_png, read_panoptic_ids):
            again = read(root / "a.png")
            np.testing.assert_array_equal(again, ids)
            assert again.dtype == np.int32


@examples
@given(
    st.sampled_from([1, 3, 15, 255]).flatmap(lambda most: maps(st.integers(0, most))),
    st.sampled_from(["L", "I;16", "P"]),
    st.integers(1, 257),
)
def test_label_png(values, mode, factor):
    values = values * (factor if mode == "I;16" else 1)
    with folder() as root:
        save_map(root / "a.png", values, mode)
        for read in (read_label_png, read_label_map):
            again = read(root / "a.png")
            np.testing.assert_array_equal(again, values)
            assert again.dtype == np.int32


@examples
@given(tables())
def test_categories(table):
    entries = json.loads(json.dumps(table.to_coco()))
    assert CategoryTable.from_coco(entries) == category_table(entries, "a.json") == table
    with folder() as root:
        table.save(root / "categories.json")
        assert CategoryTable.load(root / "categories.json") == table
        (root / "a.json").write_text(json.dumps({"categories": entries}))
        (root / "a.yaml").write_text(yaml.safe_dump(entries))
        for name in ("a.json", "a.yaml"):
            assert CategoryTable.load(root / name, default_thing=None) == table


@examples
@given(maps(st.booleans(), bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_rle(mask):
    runs = mask_runs(mask)
    np.testing.assert_array_equal(runs_mask(runs, mask.shape), mask)
    size = list(mask.shape)
    compressed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    for counts in (runs.tolist(), compressed, compressed.decode()):
        rle = encode_segmentation({"size": size, "counts": counts}, size)
        assert rle == {"size": size, "counts": compressed}
        np.testing.assert_array_equal(coco_mask.decode(rle), mask)
        np.testing.assert_array_equal(runs_of([rle])[0], runs)
        np.testing.assert_array_equal(segmentation_runs(rle, size), runs)
        assert (mask_area(rle), mask_box(rle)) == boxed(mask)


@examples
@given(st.data())
def test_polygons(data):
    """Rectangles between pixels lose nothing."""
    height, width = size = data.draw(SIZES)
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    mask = np.zeros(size, bool)
    mask[y : data.draw(st.integers(y + 1, height)), x : data.draw(st.integers(x + 1, width))] = True
    _, (left, top, across, down) = boxed(mask)
    right, bottom = left + across, top + down
    polygon = [int(v) for v in (left, top, right, top, right, bottom, left, bottom)]
    np.testing.assert_array_equal(runs_mask(segmentation_runs([polygon], size), size), mask)


@examples
@given(st.data())
def test_coco_panoptic(data):
    """What `convert-data` writes, and `validate-data --fix` once more."""
    table = data.draw(tables())
    names = data.draw(st.lists(NAMES, unique=True, min_size=1, max_size=3))
    sizes = [data.draw(SIZES) for _ in names]
    drawn = {n: data.draw(drawings(table, s)) for n, s in zip(names, sizes, strict=True)}
    ids = data.draw(
        st.lists(
            st.integers(-(1 << 40), 1 << 40) | TEXT_IDS,
            unique=True,
            min_size=len(names),
            max_size=len(names),
        )
    )
    with folder() as root:
        for name, size in zip(names, sizes, strict=True):
            save_image(root / "photos" / name, size)
        source = Source(
            table,
            str(root / "photos"),
            tuple(
                SourceImage(image_id, name, lambda *_, name=name: drawn[name])
                for image_id, name in zip(ids, names, strict=True)
            ),
        )
        out = root / "out"
        assert not write_panoptic(source, out).images_left_out
        for path in (out / "panoptic.json", root / "fixed.json"):
            split = read_coco_panoptic(out / "images", path, out / "panoptic")
            assert split.categories == table
            assert [r.image_id for r in split.images] == ids
            for record, size in zip(split.images, sizes, strict=True):
                image, values = load_segments(record)
                assert image.shape == (*size, 3)
                expected = drawn[record.file_name]
                np.testing.assert_array_equal(values, expected.ids)
                assert {s.id: (s.category_id, s.is_crowd) for s in record.segments} == (
                    expected.segments
                )
                for segment in record.segments:
                    measured = boxed(expected.ids == segment.id)
                    assert (segment.area, segment.bbox_xywh) == measured
            validation = validate_panoptic(out / "images", path, out / "panoptic")
            assert not validation.changes.counts
            (root / "fixed.json").write_text(json.dumps(validation.corrected))


@st.composite
def coco_instances(draw):
    """A tree of COCO instances with a mask of every kind, and those masks by annotation id."""
    table = draw(tables(min_things=5, max_id=200))
    names = draw(st.lists(NAMES, unique=True, min_size=1, max_size=3))
    images, annotations, masks = [], [], {}
    for image_id, name in enumerate(names):
        height, width = draw(SIZES)
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
    ids = draw(st.lists(st.integers(-(1 << 59), 1 << 59) | TEXT_IDS, unique=True, max_size=5))
    for annotation_id in ids:
        image = draw(st.sampled_from(images))
        size = image["height"], image["width"]
        mask = draw(maps(st.booleans(), bool, st.just(size)))
        mask.flat[draw(st.integers(0, mask.size - 1))] = True
        rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        counts = draw(st.sampled_from([rle["counts"].decode(), mask_runs(mask).tolist()]))
        area, box = boxed(mask)
        entry = {
            "id": annotation_id,
            "image_id": image["id"],
            "category_id": draw(st.sampled_from([c.id for c in table.categories])),
            "iscrowd": draw(st.integers(0, 1)),
            "area": area,
            "bbox": [int(v) for v in box],
            "segmentation": {"size": list(size), "counts": counts},
        }
        annotations.append(entry)
        masks[annotation_id] = mask
    tree = {"images": images, "annotations": annotations, "categories": table.to_coco()}
    return tree, table, masks


@examples
@given(coco_instances())
def test_coco_instances(case):
    """A JSON of instances, and what `validate-data --fix` writes of it."""
    tree, table, masks = case
    with folder() as root:
        for image in tree["images"]:
            save_image(root / "images" / image["file_name"], (image["height"], image["width"]))
        (root / "a.json").write_text(json.dumps(tree))
        for path in (root / "a.json", root / "fixed.json"):
            split = read_coco_instances(root / "images", path)
            assert split.categories == table
            found = [(record, instance) for record in split.images for instance in record.instances]
            expected = sorted(tree["annotations"], key=lambda entry: entry["image_id"])
            assert len(found) == len(expected)
            for (record, instance), entry in zip(found, expected, strict=True):
                assert record.image_id == entry["image_id"]
                assert instance.id == entry["id"]
                assert instance.category_id == entry["category_id"]
                assert instance.is_crowd == bool(entry["iscrowd"])
                assert (instance.area, list(instance.bbox_xywh)) == (
                    entry["area"],
                    entry["bbox"],
                )
                np.testing.assert_array_equal(coco_mask.decode(instance.rle), masks[entry["id"]])
            validation = validate_instances(root / "images", path)
            assert not validation.changes.counts
            assert validation.corrected == {**tree, "annotations": expected}
            (root / "fixed.json").write_text(json.dumps(validation.corrected))


@examples
@given(st.data())
def test_label_maps(data):
    table = data.draw(tables(max_id=65535))
    is_deep = max(category.id for category in table.categories) > 255
    values = data.draw(maps(st.sampled_from([0, 255, *(c.id for c in table.categories)])))
    with folder() as root:
        save_image(root / "images/a/b.png", values.shape)
        save_map(root / "labels/a/b.png", values, "I;16" if is_deep else "L")
        table.save(root / "categories.json")
        split = read_label_maps(root / "images", root / "labels", root / "categories.json")
        assert split.categories == table
        (record,) = split.images
        _, ids = load_segments(record)
    by_id = {segment.id: segment.category_id for segment in record.segments}
    expected = np.where(np.isin(values, list(by_id.values())), values, -1)
    found = np.vectorize(lambda i: by_id.get(i, -1), otypes=[int])(ids)
    np.testing.assert_array_equal(found, expected)


@examples
@given(st.data())
def test_coco_stuff(data):
    values = data.draw(maps(st.sampled_from([0, 3, 91, 120, 181, 255])))
    person, car = {"id": 1, "name": "person"}, {"id": 4, "name": "car"}
    image = {"id": 5, "file_name": "a.png", "height": values.shape[0], "width": values.shape[1]}
    tree = {"images": [image], "annotations": [], "categories": [person, car]}
    with folder() as root:
        save_image(root / "images/a.png", values.shape)
        save_map(root / "maps/a.png", values)
        (root / "a.json").write_text(json.dumps(tree))
        split = read_coco_stuff(root / "images", root / "a.json", root / "maps")
        (record,) = split.images
        _, ids = load_segments(record)
    by_id = {segment.id: segment.category_id for segment in record.segments}
    categories = np.vectorize(lambda i: by_id.get(i, 0), otypes=[int])(ids)
    np.testing.assert_array_equal(categories, np.where(values == 255, 0, values + 1))


@examples
@given(st.data())
def test_png_pairs(data):
    """A map of classes and one of instances become one, from which both can be read again."""
    table = CategoryTable((Category(1, "cat", True), Category(7, "road", False)))
    semantic = data.draw(maps(st.sampled_from([0, 1, 7, 255])))
    instance = data.draw(maps(st.integers(0, 3), size=st.just(semantic.shape)))
    with folder() as root:
        for name, values in (("semantic", semantic), ("instance", instance)):
            save_map(root / name / "a.png", values)
        save_image(root / "images/a.png", semantic.shape)
        source = read_png_pairs(root / "images", root / "semantic", root / "instance", table)
        (image,) = source.images
        drawing = image.draw(semantic.shape, table)
    category = {i: category_id for i, (category_id, _) in drawing.segments.items()}
    found = np.vectorize(lambda i: category.get(i, 0), otypes=[int])(drawing.ids)
    np.testing.assert_array_equal(found, np.where(semantic == 255, 0, semantic))
    for segment_id, (category_id, is_crowd) in drawing.segments.items():
        numbers = set(instance[drawing.ids == segment_id].tolist())
        assert category_id == 7 or (len(numbers) == 1 and is_crowd == (numbers == {0}))
    pairs = np.unique(np.stack([semantic, instance])[:, semantic == 1], axis=1)
    assert sum(category_id == 1 for category_id, _ in drawing.segments.values()) == pairs.shape[1]


@examples
@given(st.data())
def test_cityscapes(data):
    """As published, and as `convert-cityscapes` writes it."""
    labels = [*range(34), *(1000 * label + n for label in (24, 26, 33) for n in (0, 5, 999))]
    values = data.draw(maps(st.sampled_from(labels)))
    values.flat[0] = 26001
    with folder() as root:
        save_image(root / "images/ulm/ulm_0_1_leftImg8bit.png", values.shape)
        save_map(root / "gt/ulm/ulm_0_1_gtFine_instanceIds.png", values, "I;16")
        convert_cityscapes(root / "images", root / "gt", root / "a.json", root / "png")
        published = read_cityscapes(root / "images", root / "gt")
        converted = read_cityscapes_panoptic(root / "images", root / "a.json", root / "png")
        assert published.categories == converted.categories == CITYSCAPES
        pictures = []
        for split, first in ((published, 1), (converted, 0)):
            (record,) = split.images
            assert (record.image_id, record.height, record.width) == ("ulm_0_1", *values.shape)
            _, ids = load_segments(record)
            segments = {s.id - first: (s.category_id, s.is_crowd) for s in record.segments}
            pictures.append((np.maximum(ids - first, 0).tolist(), segments))
    assert pictures[0] == pictures[1]
    known = np.isin(np.where(values < 1000, values, values // 1000), list(CITYSCAPES.by_id))
    assert pictures[0][0] == np.where(known, values, 0).tolist()
