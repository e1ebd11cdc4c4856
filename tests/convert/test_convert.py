"""Painting and writing; the sources are in `test_convert_sources`."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.config import load_config
from tf_panoptic_fpn.convert.painting import (
    Shape,
    combine_maps,
    fill_background,
    paint_shapes,
)
from tf_panoptic_fpn.convert.runs import mask_runs
from tf_panoptic_fpn.convert.source import (
    Drawing,
    Source,
    SourceImage,
    declare_stuff,
)
from tf_panoptic_fpn.convert.writer import write_panoptic
from tf_panoptic_fpn.datatools.validate.panoptic import validate_panoptic
from tf_panoptic_fpn.errors import ConfigError, DataError
from tf_panoptic_fpn.formats.breaches import ERROR, WARNING
from tf_panoptic_fpn.formats.coco_panoptic import read_coco_panoptic
from tf_panoptic_fpn.formats.records import load_segments

CAR, ROAD, PERSON = 3, 5, 8
CATEGORIES = CategoryTable(
    (
        Category(CAR, "car", True),
        Category(ROAD, "road", False),
        Category(PERSON, "person", True),
    )
)


def shape(rows, category_id, is_crowd=False):
    """A shape that covers the pixels `x` of rows such as "xx..", divided by spaces."""
    mask = np.array([[c == "x" for c in row] for row in rows.split()])
    return Shape(mask_runs(mask), category_id, is_crowd, f"a {category_id}")


FULL, LEFT, CORNER = "xxxx xxxx xxxx", "xx.. xx.. xx..", "x... .... ...."


def test_the_smaller_shape_is_on_top():
    shapes = [shape(CORNER, PERSON), shape(LEFT, CAR), shape(FULL, ROAD)]
    expected = [[1, 2, 3, 3], [2, 2, 3, 3], [2, 2, 3, 3]]
    drawing = paint_shapes(shapes, (3, 4), CATEGORIES)
    np.testing.assert_array_equal(drawing.ids, expected)
    assert drawing.ids.dtype == np.int32
    assert drawing.segments == {1: (PERSON, False), 2: (CAR, False), 3: (ROAD, False)}
    assert drawing.left_out == ()
    # Whatever their order in the file.
    drawing = paint_shapes(shapes[::-1], (3, 4), CATEGORIES)
    np.testing.assert_array_equal(4 - drawing.ids, expected)


def test_of_equal_areas_the_later_is_on_top_and_what_is_hidden_is_named():
    drawing = paint_shapes([shape(LEFT, CAR), shape(LEFT, PERSON)], (3, 4), CATEGORIES)
    np.testing.assert_array_equal(drawing.ids, [[2, 2, 0, 0]] * 3)
    assert drawing.segments == {2: (PERSON, False)}
    assert drawing.left_out == ("a 3: hidden by others",)
    empty = paint_shapes([shape(".... .... ....", CAR)], (3, 4), CATEGORIES)
    assert empty.left_out == ("a 3: covers no pixel",)


def test_stuff_is_below_crowds_and_crowds_below_things():
    shapes = [shape(CORNER, ROAD), shape("xx.. .... ....", CAR, True), shape(FULL, PERSON)]
    drawing = paint_shapes(shapes, (3, 4), CATEGORIES)
    assert drawing.segments == {3: (PERSON, False)}  # larger than both, and yet on top
    drawing = paint_shapes(shapes[:2], (3, 4), CATEGORIES)
    np.testing.assert_array_equal(drawing.ids[0], [2, 2, 0, 0])
    assert drawing.segments == {2: (CAR, True)}


def test_stuff_of_one_category_is_one_segment():
    shapes = [shape(CORNER, CAR), shape(LEFT, ROAD), shape("...x .... ....", ROAD, True)]
    drawing = paint_shapes(shapes, (3, 4), CATEGORIES)
    np.testing.assert_array_equal(drawing.ids, [[1, 2, 0, 2], [2, 2, 0, 0], [2, 2, 0, 0]])
    assert drawing.segments == {1: (CAR, False), 2: (ROAD, False)}  # stuff is never a crowd
    assert drawing.left_out == ()


def test_maps_of_classes_and_instances_are_joined():
    semantic = np.array([[CAR, CAR, ROAD, 0], [CAR, PERSON, ROAD, 255]])
    instance = np.array([[1, 2, 7, 4], [0, 1, 9, 0]])
    drawing = combine_maps(semantic, instance, CATEGORIES, void=(255,))
    ids, found = drawing.ids, drawing.segments
    assert ids[0, 3] == ids[1, 3] == 0
    assert ids[0, 2] == ids[1, 2]  # stuff: instances do not matter
    expected = {
        (0, 0): (CAR, False),
        (0, 1): (CAR, False),
        (1, 0): (CAR, True),  # a thing without instance
        (1, 1): (PERSON, False),  # instance 1 of another class
        (0, 2): (ROAD, False),
    }
    assert {place: found[ids[place]] for place in expected} == expected
    assert len(found) == len({ids[place] for place in expected}) == 5
    with pytest.raises(DataError, match=r"a category id or void. Received: 255"):
        combine_maps(semantic, instance, CATEGORIES)
    with pytest.raises(DataError, match=r"one size. Received: 2x4 and 2x3"):
        combine_maps(semantic, instance[:, :3], CATEGORIES)


def test_the_background_joins_its_stuff():
    drawing = Drawing(np.array([[0, 2], [4, 4]], np.int32), {2: (ROAD, False), 4: (CAR, False)})
    filled = fill_background(drawing, ROAD)
    np.testing.assert_array_equal(filled.ids, [[2, 2], [4, 4]])
    assert filled.segments == drawing.segments
    filled = fill_background(drawing, 9)
    np.testing.assert_array_equal(filled.ids, [[5, 2], [4, 4]])
    assert filled.segments == {**drawing.segments, 5: (9, False)}
    assert fill_background(filled, 9) is filled


def test_the_background_does_not_paint_void():
    ids = np.array([[0, 0, 4]], np.int32)
    void = np.array([[True, False, False]])
    filled = fill_background(Drawing(ids, {4: (CAR, False)}, void=void), ROAD)
    np.testing.assert_array_equal(filled.ids, [[0, 5, 4]])
    # 255 of a map of classes is void, and 0 is not annotated.
    joined = combine_maps(np.array([[255, 0, CAR]]), np.array([[0, 0, 1]]), CATEGORIES, (255,))
    assert (fill_background(joined, ROAD).ids > 0).tolist() == [[False, True, True]]


def test_a_region_without_a_category_cuts_what_lies_below():
    hole = Shape(shape(CORNER, CAR).runs, None, False, "hole")
    void = Shape(shape("...x .... ....", CAR).runs, None, False, "void", is_void=True)
    shapes = [shape(LEFT, CAR), hole, void, shape(FULL, ROAD)]
    drawing = paint_shapes(shapes, (3, 4), CATEGORIES)
    np.testing.assert_array_equal(drawing.ids, [[0, 1, 4, 0], [1, 1, 4, 4], [1, 1, 4, 4]])
    assert drawing.segments == {1: (CAR, False), 4: (ROAD, False)}
    assert np.argwhere(drawing.void).tolist() == [[0, 3]]
    assert paint_shapes(shapes[:2], (3, 4), CATEGORIES).void is None


def test_a_stated_order_goes_before_the_areas():
    small = shape(CORNER, PERSON)
    above = Shape(shape(LEFT, CAR).runs, CAR, False, "above", z_order=1)
    drawing = paint_shapes([small, above], (3, 4), CATEGORIES)
    assert drawing.segments == {2: (CAR, False)}
    assert drawing.left_out == ("a 8: hidden by others",)


def test_declared_stuff():
    table = declare_stuff(CATEGORIES, ["car"], "wall")
    assert [(c.id, c.name, c.is_thing) for c in table.categories] == [
        (CAR, "car", False),
        (ROAD, "road", False),
        (PERSON, "person", True),
        (9, "wall", False),
    ]
    assert declare_stuff(CATEGORIES, [], "road") == CATEGORIES
    with pytest.raises(ConfigError, match=r"one of car, road, person. Received: tree"):
        declare_stuff(CATEGORIES, ["tree"])


@pytest.mark.parametrize(
    ("tree", "fault"),
    [
        ({}, "a list of categories"),
        ([], "a list of categories"),
        ([{"id": 1, "name": "car"}], "an `isthing`"),
        ([{"id": "1", "name": "car", "isthing": 1}], "`id` must be an int"),
        ([{"id": 1, "name": "car", "isthing": 2}], "0 or 1"),
        ([{"id": 1, "name": "car", "isthing": 1, "color": "red"}], "`color` must be a list"),
        (["car"], "needs `id`, `name`"),
    ],
)
def test_a_bad_categories_file(tmp_path, tree, fault):
    path = tmp_path / "categories.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(DataError, match=f"{path}: .*{fault}"):
        CategoryTable.load(path, default_thing=None)


def test_a_categories_file(tmp_path):
    path = tmp_path / "categories.json"
    CATEGORIES.save(path)
    assert CategoryTable.load(path, default_thing=None) == CATEGORIES
    path.write_text(json.dumps({"categories": CATEGORIES.to_coco()}))
    assert CategoryTable.load(path, default_thing=None) == CATEGORIES


IDS = np.array([[1, 1, 0, 2], [1, 1, 2, 2]], np.int32)
SEGMENTS = {1: (CAR, False), 2: (ROAD, False)}


def make_source(folder, names, drawings=None):
    """Images of 2x4 pixels; `drawings` maps a name to another `Drawing` or an error."""
    for name in names:
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 2), (len(name), 9, 9)).save(path)

    def drawer(name):
        drawing = (drawings or {}).get(name, Drawing(IDS, SEGMENTS))

        def draw(size, categories):
            assert (size, categories) == ((2, 4), CATEGORIES)
            if isinstance(drawing, BaseException):
                raise drawing
            return drawing

        return draw

    images = [SourceImage(i, name, drawer(name)) for i, name in enumerate(names, 1)]
    return Source(CATEGORIES, str(folder / "photos"), tuple(images))


def test_what_is_written_loads(tmp_path):
    names = ["a.png", "sub/a.jpg", "a.jpg"]
    source = make_source(tmp_path, names)
    conversion = write_panoptic(source, tmp_path / "out")
    assert (conversion.num_images, conversion.num_segments) == ({"panoptic.json": 3}, 6)
    out = tmp_path / "out"
    split = read_coco_panoptic(out / "images", out / "panoptic.json", out / "panoptic")
    assert [r.file_name for r in split.images] == names
    # Names that differ in the extension only keep it.
    written = sorted(str(p.relative_to(out)) for p in (out / "panoptic").rglob("*.png"))
    assert written == ["panoptic/a.jpg.png", "panoptic/a.png.png", "panoptic/sub/a.png"]
    assert split.categories == CATEGORIES
    for record in split.images:
        image, ids = load_segments(record)
        assert image.shape == (2, 4, 3)
        np.testing.assert_array_equal(ids, IDS)
        car, road = record.segments
        assert (car.category_id, car.area, car.bbox_xywh) == (CAR, 4, (0, 0, 2, 2))
        assert (road.category_id, road.area, road.bbox_xywh) == (ROAD, 3, (2, 0, 2, 2))
    assert (out / "images/a.png").is_symlink()
    config = load_config(out / "config.yaml")
    assert (config.model.num_thing_classes, config.model.num_stuff_classes) == (2, 1)
    assert (config.data.root, config.data.train.images) == (str(out), "images")


def test_a_recipe_gives_the_rest_of_the_configuration(tmp_path):
    source = make_source(tmp_path, ["a.png", "b.png"])
    write_panoptic(source, tmp_path / "out", validation_share=0.5, recipe="finetune")
    config, recipe = load_config(tmp_path / "out/config.yaml"), load_config("finetune")
    assert (config.model.num_thing_classes, config.model.num_stuff_classes) == (2, 1)
    assert (config.train, config.optimizer, config.merge) == (
        recipe.train,
        recipe.optimizer,
        recipe.merge,
    )
    assert config.data.root == str(tmp_path / "out")
    assert config.data.train.panoptic_json == "panoptic_train.json"
    assert config.data.validation.short_sides == (800,)
    # Another format's paths and the drawn shapes are not taken over.
    for name in ("cityscapes_r50", "quickstart"):
        write_panoptic(source, tmp_path / name, recipe=name)
        data, recipe = load_config(tmp_path / name / "config.yaml").data, load_config(name).data
        assert (data.shapes, data.train.format) == (None, "coco_panoptic")
        assert data.train.short_sides == recipe.train.short_sides
        assert data.augment == recipe.augment
    with pytest.raises(ConfigError, match="did you mean the recipe `finetune`"):
        write_panoptic(source, tmp_path / "none", recipe="finetuned_")
    assert not (tmp_path / "none").exists()


def test_every_split_of_the_configuration_is_there(tmp_path):
    write_panoptic(make_source(tmp_path, ["a.png"]), tmp_path / "out")
    data = load_config(tmp_path / "out/config.yaml").data
    assert data.validation.panoptic_json == data.train.panoptic_json == "panoptic.json"
    assert (tmp_path / "out/config.yaml").read_text().startswith("# validation: the training")


def test_splits_of_the_source_are_kept(tmp_path):
    source = make_source(tmp_path, ["a.png", "b.png", "c.png"])
    splits = ("test", "train", "test")
    images = [dataclasses.replace(i, split=s) for i, s in zip(source.images, splits, strict=True)]
    source = dataclasses.replace(source, images=tuple(images))
    conversion = write_panoptic(source, tmp_path / "out")
    assert conversion.num_images == {"panoptic_train.json": 1, "panoptic_test.json": 2}
    data = load_config(tmp_path / "out/config.yaml").data
    assert data.train.panoptic_json == "panoptic_train.json"
    assert data.validation.panoptic_json == "panoptic_test.json"
    with pytest.raises(ConfigError, match=r"splits of its own, \['test', 'train'\]"):
        write_panoptic(source, tmp_path / "new", validation_share=0.5)


def test_no_image_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"^no image is listed$"):
        write_panoptic(make_source(tmp_path, []), tmp_path / "out")
    nothing = Drawing(np.zeros((2, 4), np.int32), {}, ("annotation 1: bad", "annotation 2: bad"))
    with pytest.raises(
        DataError, match=r"a.png: nothing is annotated: annotation 1: bad \(and 1 more left out\)"
    ):
        write_panoptic(make_source(tmp_path, ["a.png"], {"a.png": nothing}), tmp_path / "out")


def test_image_files(tmp_path):
    source = make_source(tmp_path, ["a.png", "b/c.png"])
    write_panoptic(source, tmp_path / "copy", "copy")
    copied = tmp_path / "copy/images/b/c.png"
    assert not copied.is_symlink()
    assert copied.read_bytes() == (tmp_path / "photos/b/c.png").read_bytes()
    write_panoptic(source, tmp_path / "reference", "reference")
    assert not (tmp_path / "reference/images").exists()
    data = load_config(tmp_path / "reference/config.yaml").data
    assert data.train.images == str(tmp_path / "photos")


def test_validation_share(tmp_path):
    names = [f"{i}.png" for i in range(10)]
    conversion = write_panoptic(make_source(tmp_path, names), tmp_path / "a", "copy", 0.3)
    assert conversion.num_images == {"panoptic_train.json": 7, "panoptic_validation.json": 3}
    splits = {
        name: [i["file_name"] for i in json.loads((tmp_path / "a" / name).read_text())["images"]]
        for name in conversion.num_images
    }
    train, validation = splits.values()
    assert sorted(train + validation) == names
    # The draw depends on the names alone.
    write_panoptic(make_source(tmp_path, names[::-1]), tmp_path / "b", "copy", 0.3)
    again = json.loads((tmp_path / "b/panoptic_validation.json").read_text())["images"]
    assert sorted(image["file_name"] for image in again) == validation
    config = load_config(tmp_path / "a/config.yaml")
    assert config.data.validation.panoptic_json == "panoptic_validation.json"
    with pytest.raises(DataError, match=r"2 images or more. Received: 1"):
        write_panoptic(make_source(tmp_path, ["0.png"]), tmp_path / "c", "copy", 0.3)


def test_what_cannot_be_used_is_left_out_and_named(tmp_path):
    names = ["good.png", "bad.png", "empty.png", "broken.png", "../out.png", "good.png"]
    faulty = Drawing(IDS, SEGMENTS, ("annotation 4: hidden by others",))
    nothing = Drawing(np.zeros((2, 4), np.int32), {})
    drawings = {"good.png": faulty, "bad.png": DataError("no such"), "empty.png": nothing}
    source = make_source(tmp_path, names, drawings)
    (tmp_path / "photos/broken.png").write_bytes(b"")
    conversion = write_panoptic(source, tmp_path / "new", "copy", 0)
    assert conversion.num_images == {"panoptic.json": 1}
    assert conversion.annotations_left_out == {"good.png": ["annotation 4: hidden by others"]}
    assert conversion.images_left_out == {
        "good.png (again)": "the file is listed twice",
        "bad.png": "no such",
        "empty.png": "nothing is annotated",
        "broken.png": f"{tmp_path}/photos/broken.png: the image file is empty",
        "../out.png": "the file name must be a path below the folder. Received: '../out.png'",
    }
    report = json.loads((tmp_path / "new/conversion.json").read_text())
    assert report["images_left_out"] == conversion.images_left_out
    assert sorted(p.name for p in (tmp_path / "new/images").iterdir()) == ["good.png"]
    # With a background every image has a segment.
    filled = write_panoptic(source, tmp_path / "filled", "copy", background="road")
    assert "empty.png" not in filled.images_left_out


def test_no_half_set_is_left(tmp_path):
    class Killed(BaseException):
        pass

    names = [f"{i}.png" for i in range(9)]
    out = tmp_path / "out"
    source = make_source(tmp_path, names, {"5.png": Killed()})
    with pytest.raises(Killed):
        write_panoptic(source, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos"]
    # What a run left that was killed at once does not hinder the next one.
    (tmp_path / ".out.partial/panoptic").mkdir(parents=True)
    (tmp_path / ".out.partial/panoptic/old.png").touch()
    out.mkdir()
    write_panoptic(make_source(tmp_path, names), out)
    assert len(list((out / "panoptic").iterdir())) == 9
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "photos"]


def test_nothing_is_overwritten(tmp_path):
    source = make_source(tmp_path, ["a.png"])
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    for place in (out, out / "notes.txt"):
        with pytest.raises(ConfigError, match="must be a new or an empty folder"):
            write_panoptic(source, place)
    assert (out / "notes.txt").read_text() == "mine"
    with pytest.raises(ConfigError, match="cannot be written"):
        write_panoptic(source, out / "notes.txt" / "out")
    with pytest.raises(DataError, match=r"a.png: no \(and no other image can be used\)"):
        write_panoptic(make_source(tmp_path, ["a.png"], {"a.png": DataError("no")}), tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert sorted(p.name for p in (tmp_path / "photos").iterdir()) == ["a.png"]


def test_what_is_written_validates(tmp_path):
    out = tmp_path / "out"
    write_panoptic(make_source(tmp_path, ["a.png"]), out)
    findings = validate_panoptic(out / "images", out / "panoptic.json", out / "panoptic").findings
    assert findings.total(ERROR) == findings.total(WARNING) == 0


def test_images_without_a_split_train(tmp_path):
    source = make_source(tmp_path, ["a.png", "b.png", "c.png"])
    splits = ("test", None, "train")
    images = [dataclasses.replace(i, split=s) for i, s in zip(source.images, splits, strict=True)]
    source = dataclasses.replace(source, images=tuple(images))
    conversion = write_panoptic(source, tmp_path / "out")
    assert conversion.num_images == {"panoptic_train.json": 2, "panoptic_test.json": 1}
    with pytest.raises(ConfigError, match=r"splits of its own, \['None', 'test', 'train'\]"):
        write_panoptic(source, tmp_path / "more", validation_share=0.5)
