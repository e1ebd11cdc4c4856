import numpy as np
import pytest
from PIL import Image

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.coco_panoptic import read_coco_panoptic
from tf_panoptic_fpn.formats.panoptic_png import write_panoptic_png
from tf_panoptic_fpn.formats.records import load_segments
from tf_panoptic_fpn.masks.segment_map import tight_boxes

IDS = np.array([[1, 1, 300], [0, 2, 300]])
CATEGORIES = {1: 9, 2: 3, 300: 7}


@pytest.fixture
def pair(tiny):
    """A data set of one image; a test spoils its JSON."""
    tiny.add(IDS, CATEGORIES, crowd=(300,))
    return tiny


def test_reads_what_the_json_says(pair):
    pair.tree["annotations"][0]["segments_info"][0].pop("bbox")
    pair.tree["annotations"][0]["segments_info"][0].pop("area")
    pair.tree["annotations"][0]["segments_info"][0].pop("iscrowd")
    split = pair.read()
    (record,) = split.images
    assert (record.image_id, record.file_name) == (100, "0.png")
    assert (record.height, record.width) == (2, 3)
    assert record.image_path == str(pair.images_dir / "0.png")
    assert record.panoptic_path == str(pair.panoptic_dir / "0_map.png")
    assert [s.id for s in record.segments] == [1, 2, 300]
    assert [s.category_id for s in record.segments] == [9, 3, 7]
    assert [s.is_crowd for s in record.segments] == [False, False, True]
    assert [s.area for s in record.segments] == [None, 1, 2]
    assert [s.bbox_xywh for s in record.segments] == [None, (0, 0, 3, 2), (0, 0, 3, 2)]
    assert split.categories.thing_ids == [3, 7]
    assert split.categories.stuff_ids == [1, 9]


def test_load_segments_returns_image_and_ids(tiny):
    expected = tiny.add(IDS, CATEGORIES)
    image, ids = load_segments(tiny.read().images[0])
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_array_equal(ids, IDS)
    assert (image.dtype, ids.dtype) == (np.uint8, np.int32)


def _segment(tree):
    return tree["annotations"][0]["segments_info"][0]


SPOILERS = {
    "the data set has no images": lambda tree: tree.update(images=[], annotations=[]),
    "the key `annotations` is missing": lambda tree: tree.pop("annotations"),
    "the key `images` is missing": lambda tree: tree.pop("images"),
    "the key `categories` is missing": lambda tree: tree.pop("categories"),
    "`images` must be a list of objects": lambda tree: tree.update(images=["a.jpg"]),
    "the key `file_name` is missing": lambda tree: tree["images"][0].pop("file_name"),
    "the key `id` is missing": lambda tree: tree["images"][0].pop("id"),
    "the key `height` is missing": lambda tree: tree["images"][0].pop("height"),
    "`width` must be int. Received: '3'": lambda tree: tree["images"][0].update(width="3"),
    "`height` must be above 0. Received: 0": lambda tree: tree["images"][0].update(height=0),
    "the key `image_id` is missing": lambda tree: tree["annotations"][0].pop("image_id"),
    "the key `segments_info` is missing": lambda tree: tree["annotations"][0].pop("segments_info"),
    "the key `category_id` is missing": lambda tree: _segment(tree).pop("category_id"),
    "0.png: unknown category id 4": lambda tree: _segment(tree).update(category_id=4),
    "0.png: the segment id 2 occurs twice": lambda tree: _segment(tree).update(id=2),
    "0.png: a segment id must be in 1..2**24-1. Received: 0": lambda tree: _segment(tree).update(
        id=0
    ),
    "0.png: the annotation has no segments": lambda tree: tree["annotations"][0].update(
        segments_info=[]
    ),
    "an annotation is for image id 5, which is not listed": lambda tree: tree["annotations"][
        0
    ].update(image_id=5),
    "image id 100 has more than one annotation": lambda tree: tree["annotations"].append(
        tree["annotations"][0]
    ),
    "image ids must be unique. Received twice: 100": lambda tree: tree["images"].append(
        tree["images"][0]
    ),
    "images without annotation: 100": lambda tree: tree["annotations"].clear(),
    "Received twice: [9]": lambda tree: tree["categories"].append(tree["categories"][0]),
}


@pytest.mark.parametrize("message", SPOILERS)
def test_a_bad_json_is_named_with_its_fault(pair, message):
    SPOILERS[message](pair.tree)
    with pytest.raises(DataError) as caught:
        pair.read()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    if "[9]" not in message:
        assert str(caught.value).startswith(f"{pair.json_path}: ")


@pytest.mark.parametrize(
    ("text", "fault"), [(None, "cannot be read"), ("{", "not JSON"), ("[]", "must hold")]
)
def test_a_json_that_cannot_be_read(tiny, text, fault):
    if text is not None:
        tiny.json_path.write_text(text)
    with pytest.raises(DataError, match=f"panoptic.json: {fault}"):
        read_coco_panoptic(tiny.images_dir, tiny.json_path, tiny.panoptic_dir)


def test_missing_files_are_found_at_the_start(tiny):
    for _ in range(3):
        tiny.add(IDS, CATEGORIES)
    (tiny.panoptic_dir / "1_map.png").unlink()
    with pytest.raises(
        DataError, match=r"1_map.png: the panoptic map file is missing \(1 of the 3"
    ):
        tiny.read()
    (tiny.images_dir / "0.png").unlink()
    (tiny.images_dir / "2.png").unlink()
    with pytest.raises(DataError, match=r"0.png: the image file is missing \(2 of the 3"):
        tiny.read()


@pytest.mark.parametrize("which", ["image", "map"])
def test_sizes_must_agree(pair, which):
    record = pair.read().images[0]
    if which == "image":
        Image.new("RGB", (4, 2)).save(record.image_path)
    else:
        write_panoptic_png(np.ones((2, 4), int), record.panoptic_path)
    path = record.image_path if which == "image" else record.panoptic_path
    with pytest.raises(DataError) as caught:
        load_segments(record)
    assert str(caught.value) == (f"{path}: the size must be 2x3 (HxW), as annotated. Received: 2x4")


@pytest.mark.parametrize(
    ("ids", "fault"),
    [
        ([[1, 1, 300], [8, 2, 300]], "the map holds ids that the JSON lacks: 8"),
        ([[1, 1, 0], [0, 2, 0]], "the map lacks ids that the JSON lists: 300"),
        (np.arange(6).reshape(2, 3) + 10, "JSON lacks: 10, 11, 12, 13, 14 and 1 more"),
    ],
)
def test_ids_must_agree(pair, ids, fault):
    record = pair.read().images[0]
    write_panoptic_png(ids, record.panoptic_path)
    with pytest.raises(DataError, match=f"0_map.png: .*{fault}"):
        load_segments(record)


@pytest.mark.parametrize(
    ("images", "panoptic", "count", "num_segments"),
    [
        ("camvid/images/val", "camvid/panoptic_val", 101, 1418),
        ("coco_panoptic_2/images", "coco_panoptic_2/panoptic", 2, 50),
        ("cocostuff_13/images", "cocostuff_13/panoptic", 13, 139),
    ],
)
def test_real_samples_hold_what_their_json_says(samples, images, panoptic, count, num_segments):
    folder = samples / panoptic
    split = read_coco_panoptic(samples / images, folder.with_suffix(".json"), folder)
    assert len(split.images) == count
    assert sum(len(record.segments) for record in split.images) == num_segments
    for record in split.images[:20]:
        _, ids = load_segments(record)
        boxes, areas = tight_boxes(ids, [s.id for s in record.segments])
        assert areas.tolist() == [s.area for s in record.segments]
        y1, x1, y2, x2 = boxes.T
        np.testing.assert_array_equal(
            np.stack([x1, y1, x2 - x1, y2 - y1], 1), [s.bbox_xywh for s in record.segments]
        )
