"""Classes of a data set and of a checkpoint, matched by name."""

import pytest

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.known_categories import coco_categories
from tf_panoptic_fpn.weights import WeightsError
from tf_panoptic_fpn.weights.match_classes import match_classes, plain_name


def table(things=(), stuff=(), semantic_things="other"):
    """Categories numbered in the order given, things first."""
    names = [*((name, True) for name in things), *((name, False) for name in stuff)]
    categories = (Category(i, name, thing) for i, (name, thing) in enumerate(names, start=1))
    return CategoryTable(tuple(categories), semantic_things)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("traffic light", "trafficlight"),
        ("Traffic_Light", "trafficlight"),
        ("traffic-light", "trafficlight"),
        ("TrafficLight", "trafficlight"),
        ("wall-other-merged", "wall"),
        ("tree-merged", "tree"),
        ("water-other", "water"),
        ("door-stuff", "door"),
        ("floor_other_merged", "floor"),
        ("wall-brick", "wallbrick"),
        ("other", "other"),
        ("Straße 2", "strasse2"),
        ("猫", "猫"),
        ("???", "???"),
    ],
)
def test_plain_names(name, plain):
    assert plain_name(name) == plain


def test_no_two_of_cocos_classes_share_a_plain_name():
    names = [plain_name(category.name) for category in coco_categories().categories]
    assert len(set(names)) == len(names) == 133


def test_rows_by_name():
    own = table(["Person", "scooter", "traffic_light"], ["sky", "my floor", "Wall"])
    match = match_classes(own, coco_categories(), {})
    coco = coco_categories()
    things = [category.name for category in coco.things]
    stuff = [category.name for category in coco.stuff]
    assert match.things == {0: things.index("person"), 2: things.index("traffic light")}
    wall, sky = stuff.index("wall-other-merged"), stuff.index("sky-other-merged")
    assert match.semantic == {0: 0, 1: 1 + sky, 3: 1 + wall}
    assert match.notes == (
        "Carried over by name: things Person (<- person), traffic_light (<- traffic light); "
        "stuff sky (<- sky-other-merged), Wall (<- wall-other-merged).",
        "Start fresh: things scooter; stuff my floor.",
    )


def test_synonyms_come_before_names_and_may_share_a_class():
    own = table(["car", "van", "people"], ["ground"])
    theirs = table(["person", "car", "truck"], ["road"])
    synonyms = {"people": "Person", "van": "car", "car": "truck", "ground": "road"}
    match = match_classes(own, theirs, synonyms)
    assert match.things == {0: 2, 1: 1, 2: 0}
    assert match.semantic == {0: 0, 1: 1}


def test_a_semantic_branch_with_a_class_for_each_thing():
    own = table(["a", "b"], ["c"], "all")
    assert match_classes(own, table(["b", "a"], ["c"], "all"), {}).semantic == {0: 1, 1: 0, 2: 2}
    assert match_classes(own, table(["b"], ["c"]), {}).semantic == {2: 1}
    other = table(["a"], ["c"])
    assert match_classes(other, table(["b", "a"], ["c"], "all"), {}).semantic == {1: 2}


def test_the_kind_and_then_the_letters_decide():
    theirs = table(["Car", "car"], ["car"], "all")
    match = match_classes(table(["car"], ["Car"]), theirs, {})
    assert match.things == {0: 1}
    assert match.semantic == {1: 2}
    # What is stuff here may be a thing there.
    assert match_classes(table(["x"], ["dog"]), table(["dog"], [], "all"), {}).semantic == {1: 0}


@pytest.mark.parametrize(
    ("own", "theirs", "synonyms", "message"),
    [
        (["CAR"], ["Car", "car"], {}, "'CAR' may be 'Car', 'car' of the checkpoint; say which"),
        (["car"], ["car"], {"cat": "car"}, "'cat' is no class of the data; did you mean 'car'"),
        (["van"], ["car"], {"van": "cars"}, "'cars' is no class of the checkpoint; did you mean"),
        (["van"], ["car"], {"van": "zebra"}, "'zebra' is no class of the checkpoint: car"),
    ],
)
def test_what_cannot_be_matched(own, theirs, synonyms, message):
    with pytest.raises(WeightsError, match=message):
        match_classes(table(own), table(theirs), synonyms)
