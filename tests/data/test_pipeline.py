import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from PIL import Image
from pillow_resize import resize_image

from tf_panoptic_fpn.config import AugmentConfig, DataConfig
from tf_panoptic_fpn.data.evaluation_samples import evaluation_samples
from tf_panoptic_fpn.data.folder_source import FolderSource
from tf_panoptic_fpn.data.index import build_index
from tf_panoptic_fpn.data.pipeline import training_dataset
from tf_panoptic_fpn.errors import ConfigError, DataError
from tf_panoptic_fpn.formats.coco_instances import read_coco_instances
from tf_panoptic_fpn.formats.coco_panoptic import CocoPanopticSplit, read_coco_panoptic
from tf_panoptic_fpn.formats.panoptic_png import write_panoptic_png

WALL, CAR, PERSON, SKY = 1, 3, 7, 9
SHAPES = {
    "images": (tf.float32, 4),
    "image_sizes": (tf.int32, 2),
    "image_seeds": (tf.int32, 1),
    "gt_boxes": (tf.float32, 3),
    "gt_classes": (tf.int32, 2),
    "gt_is_crowd": (tf.bool, 2),
    "gt_masks": (tf.uint8, 4),
    "semantic": (tf.int32, 3),
}


def _config(short_sides=(40,), max_long_side=1000, flip=0.0, **settings):
    sizes = {"short_sides": short_sides, "max_long_side": max_long_side}
    train = CocoPanopticSplit(**sizes, flip_probability=flip)
    # Canvases of any size: a configuration has multiples of 32.
    return DataConfig(train=train).model_copy(update=settings)


def _batches(split, config, batch_size=2, num_steps=4, seed=0, **settings):
    dataset = training_dataset(build_index(split), config, batch_size, num_steps, seed, **settings)
    return [{key: value.numpy() for key, value in batch.items()} for batch in dataset]


def _assert_equal(batches, expected):
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key], err_msg=key)


@pytest.fixture
def mixed(tiny):
    """Five landscape and three portrait images of various sizes."""
    sizes = ((40, 50), (60, 45), (40, 60), (44, 48), (50, 40), (40, 40), (41, 67), (70, 52))
    for size in sizes:
        tiny.add_plain(*size)
    return tiny.read()


def test_one_image_by_hand(tiny):
    ids = np.zeros((40, 50), int)
    ids[:20] = 1
    ids[20:, :30] = 2
    ids[10:30, 5:25] = 3
    ids[25:35, 20:40] = 4
    ids[30:, 40:] = 5
    categories = {1: SKY, 2: WALL, 3: PERSON, 4: CAR, 5: PERSON}
    image = tiny.add(ids, categories, crowd=(5,))
    (batch,) = _batches(tiny.read(), _config(), batch_size=1, num_steps=1)
    assert batch["images"].shape == (1, 64, 64, 3)
    np.testing.assert_array_equal(batch["images"][0, :40, :50], image)
    assert batch["images"][0, 40:].max() == batch["images"][0, :, 50:].max() == 0
    assert batch["image_sizes"].tolist() == [[40, 50]]
    lookup = np.array([-1, 2, 1, 0, 0, 0])
    np.testing.assert_array_equal(batch["semantic"][0, :40, :50], lookup[ids])
    assert (batch["semantic"][0, 40:] == -1).all()
    assert (batch["semantic"][0, :, 50:] == -1).all()
    assert batch["gt_classes"].tolist() == [[1, 0, 1] + [-1] * 5]
    assert batch["gt_is_crowd"].tolist() == [[False, False, True] + [False] * 5]
    boxes = [[10, 5, 30, 25], [25, 20, 35, 40], [30, 40, 40, 50]]
    np.testing.assert_array_equal(batch["gt_boxes"], [boxes + [[0, 0, 0, 0]] * 5])
    assert batch["gt_masks"].shape == (1, 8, 112, 112)
    # The car covers rows 15.. and columns 15.. of the person's 20 x 20 box.
    assert batch["gt_masks"][0, 0, :83].min() == batch["gt_masks"][0, 0, :, :83].min() == 0
    assert batch["gt_masks"][0, 0, 10:82, 10:102].min() == 1
    assert batch["gt_masks"][0, 0, 86:, 86:].max() == 0
    assert batch["gt_masks"][0, 3:].max() == 0


def test_flipping_mirrors_everything(tiny):
    ids = np.ones((40, 50), int)
    ids[10:30, 5:25] = 2
    ids[10:20, 15:25] = 1
    image = tiny.add(ids, {1: WALL, 2: CAR})
    split = tiny.read()
    (plain,) = _batches(split, _config(flip=0.0), 1, 1)
    (flipped,) = _batches(split, _config(flip=1.0), 1, 1)
    np.testing.assert_array_equal(flipped["images"][0, :40, :50], image[:, ::-1])
    np.testing.assert_array_equal(
        flipped["semantic"][0, :40, :50], plain["semantic"][0, :40, 49::-1]
    )
    assert flipped["gt_boxes"][0, 0].tolist() == [10, 25, 30, 45]
    np.testing.assert_array_equal(flipped["gt_masks"], plain["gt_masks"][..., ::-1])
    assert flipped["images"][0, :, 50:].max() == 0


def test_resizing(tiny):
    image = tiny.add_plain(40, 50)
    (batch,) = _batches(tiny.read(), _config(short_sides=(80,), max_long_side=75), 1, 1)
    assert batch["image_sizes"].tolist() == [[60, 75]]
    expected = resize_image(image, (60, 75))  # rounds in between, unlike TensorFlow
    np.testing.assert_allclose(batch["images"][0, :60, :75], expected, atol=1)
    np.testing.assert_allclose(batch["gt_boxes"][0, 0], np.array([10, 12, 22, 25]) * 1.5)


def test_every_batch_has_the_schema(mixed):
    dataset = training_dataset(build_index(mixed), _config(), 2, 3, 0)
    assert set(dataset.element_spec) == set(SHAPES)
    for key, (dtype, rank) in SHAPES.items():
        spec = dataset.element_spec[key]
        assert (spec.dtype, spec.shape.rank, spec.shape[0]) == (dtype, rank, 2), key
    assert dataset.element_spec["images"].shape[-1] == 3
    assert dataset.element_spec["gt_masks"].shape[-2:] == (112, 112)
    for batch in dataset:
        height, width = batch["semantic"].shape[1:]
        assert batch["images"].shape == (2, height, width, 3)
        assert height % 32 == width % 32 == 0
        assert batch["gt_boxes"].shape == (2, 8, 4)


def test_an_image_without_instances(tiny):
    tiny.add(np.ones((40, 50), int), {1: SKY})
    (batch,) = _batches(tiny.read(), _config(), 1, 1)
    assert batch["gt_classes"].tolist() == [[-1] * 8]
    assert batch["gt_boxes"].shape == (1, 8, 4)
    assert (batch["semantic"][0, :40, :50] == 2).all()


@pytest.fixture
def crowded(tiny):
    """Eleven cars, the i-th of i + 1 columns, on a wall."""
    ids = np.ones((40, 80), int)
    left = 0
    for i in range(11):
        ids[:, left : left + i + 1] = i + 2
        left += i + 1
    tiny.add(ids, {1: WALL, **{i + 2: CAR for i in range(11)}})
    return tiny.read()


def test_instances_are_padded_to_a_multiple_of_8(crowded):
    (batch,) = _batches(crowded, _config(), 1, 1)
    assert batch["gt_classes"].tolist() == [[0] * 11 + [-1] * 5]


def test_the_largest_instances_are_kept(crowded, monkeypatch):
    messages = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: messages.append(text % values))
    (batch, _) = _batches(crowded, _config(max_instances=3), 1, 2)
    assert [message.partition(": ")[2] for message in messages] == [
        "of 11 instances the 3 largest are used"
    ]
    widths = batch["gt_boxes"][0, :, 3] - batch["gt_boxes"][0, :, 1]
    assert widths.tolist() == [9, 10, 11] + [0] * 5
    assert (batch["semantic"][0, :40, :66] == 0).all()


def test_the_smallest_canvas_that_holds_the_batch(mixed):
    canvases = ((160, 160), (48, 96), (96, 48))
    config = _config(max_long_side=90, canvases=canvases, max_instances=5)
    batches = _batches(mixed, config, num_steps=8)
    seen = set()
    for batch in batches:
        height, width = batch["image_sizes"].max(0)
        expected = (48, 96) if height <= width else (96, 48)
        assert batch["semantic"].shape[1:] == expected
        assert batch["images"].shape == (2, *expected, 3)
        assert batch["gt_classes"].shape == (2, 5)
        seen.add(expected)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("canvases", "fault"),
    [
        (((32, 96), (96, 64)), "landscape images, up to 40x65"),
        (((40, 96), (32, 64)), "portrait images, up to 54x40"),
    ],
)
def test_canvases_must_hold_the_images(mixed, canvases, fault):
    with pytest.raises(ConfigError, match=f"`data.canvases` must hold the {fault}"):
        training_dataset(build_index(mixed), _config(canvases=canvases), 2, 1, 0)


RANDOM = {"short_sides": (32, 40, 48), "flip": 0.5}


def test_landscape_and_portrait_are_not_mixed(mixed):
    batches = _batches(mixed, _config(**RANDOM), num_steps=12)
    shapes = [batch["image_sizes"] for batch in batches]
    portrait = [(sizes[:, 0] > sizes[:, 1]).tolist() for sizes in shapes]
    assert all(first == second for first, second in portrait)
    assert {first for first, _ in portrait} == {True, False}


def test_every_choice_is_made(tiny):
    image = tiny.add_plain(40, 50)
    batches = _batches(tiny.read(), _config(**RANDOM), batch_size=3, num_steps=40)
    sides = np.concatenate([batch["image_sizes"][:, 0] for batch in batches])
    # 120 draws: 40 of each side expected, 4 standard deviations are 20.
    assert all(20 <= (sides == side).sum() <= 60 for side in (32, 40, 48))
    flipped = [
        bool((batch["images"][i, :40, :50] == image[:, ::-1]).all())
        for batch in batches
        for i in range(3)
        if batch["image_sizes"][i, 0] == 40
    ]
    assert 0.2 < np.mean(flipped) < 0.8
    seeds = np.concatenate([batch["image_seeds"] for batch in batches])
    assert len(set(seeds)) == 120
    assert seeds.min() >= 0


def test_batches_depend_on_seed_and_step_alone(mixed):
    """Whether the run goes on there, how parallel it is, and how many workers share a batch."""
    config = _config(**RANDOM)
    whole = _batches(mixed, config, batch_size=4, num_steps=6, parallel_calls=1)
    resumed = _batches(mixed, config, 4, 6, start_step=3, parallel_calls=5)
    _assert_equal(resumed, whole[3:])
    for worker in (0, 1):
        share = _batches(mixed, config, 4, 6, start_step=4, worker=worker, num_workers=2)
        assert len(share) == 2
        for batch, other in zip(share, whole[4:], strict=True):
            mine = slice(2 * worker, 2 * worker + 2)
            for key in ("image_seeds", "image_sizes"):
                np.testing.assert_array_equal(batch[key], other[key][mine])
            for i, (height, width) in enumerate(batch["image_sizes"]):
                for key in ("images", "semantic"):
                    np.testing.assert_array_equal(
                        batch[key][i, :height, :width], other[key][mine][i, :height, :width]
                    )


def test_nothing_is_left_after_the_last_step(mixed):
    assert _batches(mixed, _config(), num_steps=7, start_step=7) == []


def test_workers_must_share_a_batch_equally(mixed):
    with pytest.raises(ConfigError, match=r"a multiple of the 2 workers. Received: 3"):
        training_dataset(build_index(mixed), _config(), 3, 1, 0, num_workers=2)


def test_another_seed_gives_other_batches(mixed):
    first, second = (_batches(mixed, _config(**RANDOM), num_steps=6, seed=s) for s in (0, 1))
    for key in ("image_seeds", "image_sizes"):
        assert any((a[key] != b[key]).any() for a, b in zip(first, second, strict=True))


def _truncate(path):
    with open(path, "r+b") as file:
        file.truncate(60)


def _damage(record, how):
    if how == "truncated image":
        _truncate(record.image_path)
    elif how == "truncated map":
        _truncate(record.panoptic_path)
    elif how == "ids":
        write_panoptic_png(np.full((record.height, record.width), 77), record.panoptic_path)
    elif how == "size":
        Image.new("RGB", (3, 3)).save(record.image_path)
    else:
        os.remove(record.image_path)


@pytest.mark.parametrize("how", ["truncated image", "truncated map", "gone"])
def test_a_damaged_image_is_replaced_by_the_next_of_its_orientation(tiny, how):
    for size in ((40, 50), (40, 51), (60, 40), (40, 53)):
        tiny.add_plain(*size)
    split = tiny.read()
    expected = _batches(split, _config(), batch_size=1, num_steps=12)
    _damage(split.images[1], how)
    reports = []
    batches = _batches(
        split, _config(), 1, 12, on_damaged=lambda path, reason: reports.append((path, reason))
    )
    widths = [batch["image_sizes"][0, 1] for batch in expected]
    replaced = [batch["image_sizes"][0, 1] for batch in batches]
    assert widths.count(51) == 3
    assert replaced == [53 if width == 51 else width for width in widths]
    ((path, reason),) = reports
    assert path == split.images[1].image_path
    assert path in reason or split.images[1].panoptic_path in reason
    assert "\n" not in reason


@pytest.mark.parametrize("how", ["ids", "size"])
def test_files_that_contradict_each_other_are_an_error(tiny, how):
    for width in (50, 51, 52):
        tiny.add_plain(40, width)
    split = tiny.read()
    _damage(split.images[1], how)
    errors = []
    with pytest.raises((DataError, tf.errors.OpError)):
        _batches(split, _config(), 1, 6, on_error=errors.append)
    assert all(isinstance(error, DataError) for error in errors)
    assert all(split.images[1].file_name.split(".")[0] in str(error) for error in errors)


def test_a_damaged_image_may_be_the_only_one_of_its_orientation(tiny):
    for size in ((40, 50), (60, 40), (40, 53)):
        tiny.add_plain(*size)
    split = tiny.read()
    _truncate(split.images[1].image_path)
    batches = _batches(split, _config(), 1, 6)
    assert sorted(batch["image_sizes"][0, 1] for batch in batches) == [50, 50, 53, 53, 53, 53]


def test_a_damaged_image_is_logged_once(tiny, monkeypatch):
    for _ in range(3):
        tiny.add_plain(40, 50)
    split = tiny.read()
    _truncate(split.images[2].panoptic_path)
    messages = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: messages.append(text % values))
    _batches(split, _config(), 2, 6)
    (message,) = messages
    assert split.images[2].image_path in message
    assert f"{split.images[2].panoptic_path}: the panoptic map cannot be decoded" in message


def test_nothing_readable_is_an_error(tiny):
    for _ in range(3):
        tiny.add_plain(40, 50)
    split = tiny.read()
    reports = []
    for record in split.images:
        _truncate(record.image_path)
    with pytest.raises(DataError, match="neither this nor any other image can be read"):
        training_dataset(
            build_index(split),
            _config(),
            2,
            1,
            0,
            on_damaged=lambda *report: reports.append(report),
        )
    assert sorted(path for path, _ in reports) == sorted(r.image_path for r in split.images)


def test_training_stops_past_a_share_of_damaged_images(tiny):
    for width in range(50, 62):
        tiny.add_plain(40, width)
    split = tiny.read()
    index = build_index(split)
    reports, errors = [], []

    def read():
        settings = {"on_damaged": lambda path, _: reports.append(path), "on_error": errors.append}
        dataset = training_dataset(index, _config(max_damaged_share=0.1), 2, 12, 0, **settings)
        batches = iter(dataset)
        next(batches)
        for record in split.images[:5]:  # the folder changes under the running job
            os.remove(record.image_path)
        for _ in batches:
            pass

    with pytest.raises((DataError, tf.errors.OpError)):
        read()
    assert 4 <= len(reports) == len(set(reports)) <= 5  # some are read ahead
    assert "that makes 4 damaged images of 12, more than `data.max_damaged_share`" in str(errors[0])


@pytest.mark.parametrize("folder", ["images_dir", "panoptic_dir"])
def test_a_folder_that_is_gone_is_named(tiny, folder):
    for _ in range(2):
        tiny.add_plain(40, 60)
    source = FolderSource(build_index(tiny.read()))
    gone = getattr(tiny, folder)
    gone.rename(f"{gone}_moved")
    with pytest.raises(DataError, match=f"{gone}: the folder is gone"):
        source.check(1)


def test_evaluation_samples_come_in_order(tiny):
    images = [tiny.add_plain(20 + i, 30) for i in range(9)]
    split = tiny.read()
    for i, (record, image, ids) in enumerate(evaluation_samples(split)):
        assert record is split.images[i]
        np.testing.assert_array_equal(image, images[i])
        assert ids.shape == (20 + i, 30)
    assert i == 8


def test_evaluation_samples_raise_at_a_damaged_image(tiny):
    for _ in range(8):
        tiny.add_plain(20, 30)
    split = tiny.read()
    _truncate(split.images[6].image_path)
    samples = evaluation_samples(split)
    for _ in range(6):
        next(samples)
    with pytest.raises(DataError, match=r"6.png: the image cannot be decoded"):
        next(samples)


def test_a_program_can_end_with_batches_under_way(tiny):
    """Threads that wait for Python's lock while the interpreter exits must not hold it up."""
    for _ in range(4):
        tiny.add_plain(400, 500)
    tiny.read()
    program = """
        import sys
        from tf_panoptic_fpn.config import DataConfig
        from tf_panoptic_fpn.formats.coco_panoptic import CocoPanopticSplit, read_coco_panoptic
        from tf_panoptic_fpn.data.index import build_index
        from tf_panoptic_fpn.data.pipeline import training_dataset
        split = read_coco_panoptic(*sys.argv[1:])
        config = DataConfig(train=CocoPanopticSplit(short_sides=(400,)))
        batches = iter(training_dataset(build_index(split), config, 2, 1000, 0))
        print(next(batches)["image_sizes"].numpy().tolist())
        """
    folders = [tiny.images_dir, tiny.json_path, tiny.panoptic_dir]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, folders)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.strip() == "[[400, 500], [400, 500]]"


def _check(batch):
    """Checks what holds of every batch, whatever the augmentation."""
    valid = batch["gt_classes"] >= 0
    y1, x1, y2, x2 = np.moveaxis(batch["gt_boxes"], -1, 0)
    height, width = np.moveaxis(batch["image_sizes"][:, None], -1, 0)
    assert ((y1 < y2) & (x1 < x2))[valid].all()
    assert (batch["gt_boxes"] >= 0).all()
    assert ((y2 <= height + 1e-3) & (x2 <= width + 1e-3)).all()
    assert batch["gt_masks"][valid].any((1, 2)).all()
    return int(valid.sum())


@pytest.mark.parametrize("name", ["coco_instances", "nuclei"])
def test_instances_only(samples, name):
    """Crops of real images with pasted instances, in one static canvas, without any map."""
    folder = samples / name
    split = read_coco_instances(folder / "images", folder / "instances.json")
    augment = AugmentConfig(
        scale_range=(0.1, 2.0),
        scale_relative_to="crop",
        crop_size=(256, 256),
        crop_by_class_probability=0.5,
        color_distortion=True,
        copy_paste_probability=0.5,
    )
    config = _config(flip=0.5, canvases=((256, 256),), augment=augment)
    counts = []
    for batch in _batches(split, config, num_steps=6):
        assert batch["images"].shape == (2, 256, 256, 3)
        assert batch["gt_masks"].shape == (2, 100, 112, 112)
        assert set(np.unique(batch["semantic"])) == {-1}
        counts.append(_check(batch))
    assert min(counts) >= 1


def test_camvid(samples):
    root = samples / "camvid"
    split = read_coco_panoptic(
        root / "images" / "train", root / "panoptic_train.json", root / "panoptic_train"
    )
    config = _config(short_sides=(288, 320, 352, 384), max_long_side=640, flip=0.5)
    for batch in _batches(split, config, num_steps=3):
        _check(batch)
        assert set(np.unique(batch["semantic"])) <= {*range(9), -1}
        assert batch["images"].max() > 200
