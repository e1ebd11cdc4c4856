import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tf_panoptic_fpn.data.evaluation_samples import evaluation_samples
from tf_panoptic_fpn.data.index import build_index
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats.breaches import LEAVE_OUT, STOP, Breaches
from tf_panoptic_fpn.formats.coco_instances import read_coco_instances, with_coco_instances
from tf_panoptic_fpn.formats.coco_panoptic import read_coco_panoptic

SIZE = (4, 6)
MASK = np.array([[0, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
RUNS = [5, 2, 2, 1, 14]  # MASK, down the columns
SQUARE = [1, 1, 3, 1, 3, 3, 1, 3]  # pixels 1 and 2 of both sides


class Folder:
    """One image of 4x6 and a JSON, which a test spoils before `read`."""

    def __init__(self, folder):
        self.images_dir = folder / "images"
        self.json_path = folder / "instances.json"
        self.images_dir.mkdir(parents=True)
        Image.new("RGB", SIZE[::-1]).save(self.images_dir / "a.png")
        self.tree = {
            "images": [{"id": 4, "file_name": "a.png", "height": 4, "width": 6}],
            "annotations": [],
            "categories": [{"id": 9, "name": "cat"}, {"id": 3, "name": "dog"}],
        }

    def add(self, segmentation, **values):
        number = len(self.tree["annotations"])
        entry = {"id": 50 + number, "image_id": 4, "category_id": 9, "segmentation": segmentation}
        self.tree["annotations"].append({**entry, **values})

    def read(self, breaches=None):
        self.json_path.write_text(json.dumps(self.tree))
        return read_coco_instances(self.images_dir, self.json_path, breaches)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "instances")


def _rle_text():
    return coco_mask.encode(np.asfortranarray(MASK.astype(np.uint8)))["counts"].decode()


def test_every_kind_of_segmentation(folder):
    folder.add([SQUARE], bbox=[1, 1, 2, 2], area=4)
    folder.add({"size": [4, 6], "counts": RUNS}, iscrowd=1, category_id=3)
    folder.add({"size": [4, 6], "counts": _rle_text()}, area=3.5)
    folder.add([SQUARE, [4, 0, 6, 0, 6, 2, 4, 2]])
    split = folder.read()
    assert not split.has_panoptic
    (record,) = split.images
    assert (record.segments, record.panoptic_path) == ((), "")
    first, crowd, packed, two = record.instances
    square = np.zeros(SIZE, int)
    square[1:3, 1:3] = 1
    both = square.copy()
    both[0:2, 4:6] = 1
    for instance, mask in ((first, square), (crowd, MASK), (packed, MASK), (two, both)):
        np.testing.assert_array_equal(coco_mask.decode(instance.rle), mask)
    assert [i.is_crowd for i in record.instances] == [False, True, False, False]
    assert [i.category_id for i in record.instances] == [9, 3, 9, 9]
    assert [i.area for i in record.instances] == [4, None, 3.5, None]
    assert [i.id for i in record.instances] == [50, 51, 52, 53]
    assert (first.bbox_xywh, crowd.bbox_xywh) == ((1, 1, 2, 2), None)

    index = build_index(split)
    assert index.map_format == "none"
    assert index.map_paths.tolist() == [b""]
    assert index.needs_pillow.tolist() == [False]
    assert index.instance_classes.tolist() == [1, 0, 1, 1]
    assert index.instance_map_ids.tolist() == [-1] * 4
    assert index.runs[slice(*index.run_offsets[1:3])].tolist() == RUNS
    assert len(index.label_ids) == 0

    ((_, image, ids),) = evaluation_samples(split)
    assert image.shape == (4, 6, 3)
    assert ids.shape == SIZE and not ids.any()


def test_images_without_annotations_are_kept(folder):
    Image.new("L", (2, 2)).save(folder.images_dir / "b.png")
    folder.tree["images"].insert(0, {"id": 1, "file_name": "b.png", "height": 2, "width": 2})
    folder.add([SQUARE])
    split = folder.read()
    assert [len(record.instances) for record in split.images] == [0, 1]
    assert build_index(split).instance_offsets.tolist() == [0, 0, 1]


BAD_MASKS = {
    "`segmentation` is empty": [],
    "must have 3 or more points of 2 numbers. Received: 4 numbers": [[1, 1, 3, 3]],
    "Received: 7 numbers": [[1, 1, 3, 1, 3, 3, 1]],
    "must be a list of numbers": [[1, 1, 3, "1", 3, 3]],
    "must be a list of numbers. Received: 3": [3],
    "a polygon must have finite numbers": [[1, 1, float("nan"), 1, 3, 3]],
    "the polygon is outside the image": [[1, 5, 3, 5, 3, 9]],
    "must not go further beyond the image than": [[1, 1, 3, 1, 3, 900]],
    "must be polygons or an RLE. Received: NoneType": None,
    "the RLE's size must be [4, 6], the image's": {"size": [6, 4], "counts": RUNS},
    "must sum to 24, the image's pixels. Received: 25": {"size": [4, 6], "counts": [*RUNS, 1]},
    "must be ints of 0 or above": {"size": [4, 6], "counts": [25, -1]},
    "must be a list or text. Received: None": {"size": [4, 6]},
    "the RLE's counts are not COCO's text": {"size": [4, 6], "counts": "Z~"},
    "must sum to 24, the image's pixels. Received: 2": {"size": [4, 6], "counts": "11"},
    "the RLE's counts must be 0 or above": {"size": [4, 6], "counts": "O1"},
}


@pytest.mark.parametrize("fault", BAD_MASKS)
def test_a_bad_mask_is_an_error_or_is_left_out(folder, fault):
    folder.add(BAD_MASKS[fault])
    folder.add([SQUARE])
    with pytest.raises(DataError) as caught:
        list(folder.read().images)
    assert str(caught.value).startswith(f"{folder.json_path}: a.png: annotation 50: ")
    assert fault in str(caught.value) and "\n" not in str(caught.value)
    breaches = Breaches(LEAVE_OUT)
    (record,) = folder.read(breaches).images
    assert [i.id for i in record.instances] == [51]
    assert [str(breach) for breach in breaches.left_out] == [str(caught.value)]


@pytest.mark.parametrize(
    "box", [[0, 0, -1, 2], [0, float("nan"), 1, 1], [0, 0, 1], "abcd", [0, 0, float("inf"), 1], 7]
)
def test_a_bad_box_is_an_error_or_is_left_out(folder, box):
    folder.add([SQUARE], bbox=box)
    folder.add([SQUARE], bbox=[0, 0, 0, 0])
    with pytest.raises(DataError, match=r"a.png: annotation 50: `bbox` must be four finite"):
        folder.read()
    breaches = Breaches(LEAVE_OUT)
    (record,) = folder.read(breaches).images
    assert [i.id for i in record.instances] == [51]
    assert len(breaches.left_out) == 1


def test_a_mask_without_a_pixel_counts_in_evaluation_only(folder):
    folder.add([[1.1, 1.1, 1.2, 1.1, 1.2, 1.2]])
    (record,) = folder.read().images
    assert coco_mask.area(record.instances[0].rle) == 0
    breaches = Breaches(LEAVE_OUT)
    (record,) = folder.read(breaches).images
    assert (record.instances, len(breaches.left_out)) == ((), 1)


SPOILERS = {
    "unknown category id 5": lambda tree: tree["annotations"][0].update(category_id=5),
    "for image id 7, which is not listed": lambda tree: tree["annotations"][0].update(image_id=7),
    "annotation ids must be unique. Received twice: 50": lambda tree: tree["annotations"].append(
        tree["annotations"][0]
    ),
    "`id` must fit 64 bits": lambda tree: tree["annotations"][0].update(id=1 << 70),
    "image ids must be unique": lambda tree: tree["images"].append(tree["images"][0]),
    "the key `annotations` is missing": lambda tree: tree.pop("annotations"),
    "the data set has no images": lambda tree: tree.update(images=[]),
    "b.png: the image file is missing (1 of the 1": lambda tree: tree["images"][0].update(
        file_name="b.png"
    ),
}


@pytest.mark.parametrize("policy", [STOP, LEAVE_OUT])
@pytest.mark.parametrize("message", SPOILERS)
def test_a_json_that_contradicts_itself_is_always_an_error(folder, message, policy):
    folder.add([SQUARE])
    SPOILERS[message](folder.tree)
    with pytest.raises(DataError) as caught:
        folder.read(Breaches(policy))
    assert message in str(caught.value)


@pytest.mark.parametrize("change", ["blank", "other", "gone"])
def test_a_json_that_changes_under_the_reader(folder, change):
    folder.add([SQUARE])
    split = folder.read()
    if change == "gone":
        folder.json_path.unlink()
    else:
        text = folder.json_path.read_text()
        moved = text.replace('"image_id": 4', '"image_id": 5')
        other = moved if change == "other" else " " * len(text)
        folder.json_path.write_text(other)
    with pytest.raises(DataError, match=r"instances.json: has changed since it was opened"):
        split.images[0]


def test_real_instances(samples):
    """The area in the JSON is that of the polygon, not of its pixels."""
    folder = samples / "coco_instances"
    split = read_coco_instances(folder / "images", folder / "instances.json")
    assert len(split.images) == 56
    instances = [instance for record in split.images for instance in record.instances]
    assert len(instances) == 493
    assert sum(i.is_crowd for i in instances) == 13
    areas = np.array([(coco_mask.area(i.rle), i.area) for i in instances], float)
    errors = np.abs(areas[:, 0] / areas[:, 1] - 1)[areas[:, 1] > 1000]
    assert np.median(errors) < 0.005 and np.quantile(errors, 0.95) < 0.03
    index = build_index(split)
    starts = index.run_offsets[:-1]
    sums = np.add.reduceat(index.runs.astype(np.int64), starts)
    heights, widths = index.sizes[np.repeat(np.arange(56), np.diff(index.instance_offsets))].T
    np.testing.assert_array_equal(sums, heights * widths)


def test_nuclei_hold_what_their_json_says(samples):
    folder = samples / "nuclei"
    split = read_coco_instances(folder / "images", folder / "instances.json")
    counts = [len(record.instances) for record in split.images]
    assert sorted(counts)[-3:] == [313, 369, 375]
    instances = split.images[0].instances
    assert [int(coco_mask.area(i.rle)) for i in instances] == [i.area for i in instances]


def test_instances_beside_panoptic_maps(samples):
    """`instances.json` of this sample is its panoptic maps: the masks must be the segments."""
    folder = samples / "coco_panoptic_2"
    panoptic = read_coco_panoptic(folder / "images", folder / "panoptic.json", folder / "panoptic")
    split = with_coco_instances(panoptic, folder / "instances.json")
    assert split.has_panoptic
    things = set(split.categories.thing_ids)
    for record, _, ids in evaluation_samples(split):
        segments = [s for s in record.segments if s.category_id in things]
        assert len(record.instances) == len(segments) > 10
        masks = [(ids == s.id).tobytes() for s in segments]
        for instance in record.instances:
            mask = coco_mask.decode(instance.rle).astype(bool)
            segment = segments[masks.index(mask.tobytes())]
            assert (segment.category_id, segment.is_crowd) == (
                instance.category_id,
                instance.is_crowd,
            )
    index = build_index(split)
    assert (index.instance_map_ids == -1).all()
    assert index.label_offsets.tolist() == [0, 18, 50]


def test_the_two_files_must_agree(tiny, folder):
    tiny.add(np.array([[1, 1, 2]]), {1: 9, 2: 3})
    panoptic = tiny.read()
    folder.tree["images"][0].update(id=100, height=1, width=3)
    folder.add([[0, 0, 1, 0, 1, 1]], image_id=100, category_id=3)
    folder.add([[0, 0, 1, 0, 1, 1]], image_id=100, category_id=9)  # stuff there
    folder.read()
    split = with_coco_instances(panoptic, folder.json_path)
    assert [i.category_id for i in split.images[0].instances] == [3]
    for key, value, fault in (
        ("width", 4, "the size must be 1x3 .HxW., as in the panoptic JSON. Received: 1x4"),
        (
            "id",
            101,
            "image id 101, which is not listed|image id 100 of the panoptic JSON is missing",
        ),
    ):
        tree = json.loads(json.dumps(folder.tree))
        tree["images"][0][key] = value
        tree["annotations"] = []
        folder.json_path.write_text(json.dumps(tree))
        with pytest.raises(DataError, match=fault):
            with_coco_instances(panoptic, folder.json_path)
