"""Random combinations of the augmentations against the same transforms of full-size masks."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pillow_resize import resize_image as resize_with_pillow
from pycocotools import mask as coco_masks
from tiny_dataset import TinyDataset

from tf_panoptic_fpn.config import AugmentConfig, DataConfig
from tf_panoptic_fpn.data.augment import Augmentation
from tf_panoptic_fpn.data.folder_source import FolderSource
from tf_panoptic_fpn.data.index import build_index
from tf_panoptic_fpn.data.loading import ImageLoader
from tf_panoptic_fpn.data.shapes import CATEGORIES, draw_shapes
from tf_panoptic_fpn.formats.coco_panoptic import CocoPanopticSplit
from tf_panoptic_fpn.formats.images import read_image
from tf_panoptic_fpn.formats.panoptic_png import read_panoptic_png
from tf_panoptic_fpn.masks.rle import runs_of

THINGS = {category.id for category in CATEGORIES if category.is_thing}


class Drawn:
    """Drawn images as the pipeline loads them, and their full-size masks."""

    def __init__(self, folder):
        tiny = TinyDataset(folder)
        tiny.tree["categories"] = [
            {"id": c.id, "name": c.name, "isthing": int(c.is_thing)} for c in CATEGORIES
        ]
        for number, size in enumerate(((64, 80), (80, 64), (72, 96))):
            image, ids, categories = draw_shapes(size, np.random.default_rng(number))
            things = [i for i, category in categories.items() if category in THINGS]
            tiny.add(ids, categories, crowd=things[1:2], image=image)
        self.index = build_index(tiny.read())
        # Each instance a class of its own, so that it is known again.
        count = len(self.index.instance_classes)
        self.index = dataclasses.replace(
            self.index, instance_classes=np.arange(count, dtype=np.int32)
        )
        self.images = [read_image(path.decode()) for path in self.index.image_paths]
        self.ids = [read_panoptic_png(path.decode()) for path in self.index.map_paths]
        self.semantic = []
        for i, ids in enumerate(self.ids):
            labels = slice(*self.index.label_offsets[i : i + 2])
            table = np.full(ids.max() + 1, 255)
            table[self.index.label_ids[labels]] = self.index.label_classes[labels]
            self.semantic.append(table[ids])
        self.masks = {
            instance: self.ids[i] == self.index.instance_map_ids[instance]
            for i in range(3)
            for instance in range(*self.index.instance_offsets[i : i + 2])
        }
        rles = [coco_masks.encode(np.asfortranarray(m, np.uint8)) for m in self.masks.values()]
        runs, num_runs = runs_of(rles)
        index_of_runs = dataclasses.replace(
            self.index,
            instance_map_ids=np.full(count, -1, np.int32),
            run_offsets=np.concatenate([[0], np.cumsum(num_runs)]),
            runs=runs,
        )
        indices = {"map": self.index, "runs": index_of_runs}
        self.loaded = {
            (name, i): ImageLoader(index, FolderSource(index)).load(i, False)
            for name, index in indices.items()
            for i in range(3)
        }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return Drawn(tmp_path_factory.mktemp("drawn"))


def _applied(array, geometry):
    """The transform of a full-size array: each new pixel takes that at its centre."""
    (height, width), resized = geometry.source_size.numpy(), geometry.resized_size.numpy()
    y1, x1, y2, x2 = geometry.window.numpy()
    rows = (2 * np.arange(resized[0]) + 1) * height // (2 * resized[0])
    columns = (2 * np.arange(resized[1]) + 1) * width // (2 * resized[1])
    cut = array[rows][:, columns][y1:y2, x1:x2]
    return cut[:, ::-1] if geometry.is_flipped else cut


def _laid(box, mask, size):
    """A box-frame mask over the canvas: the cell that the centre of each pixel is in."""
    cells, inside = [], []
    for low, high, extent in zip(box[:2], box[2:], size, strict=True):
        place = (np.arange(extent) + 0.5 - low) / max(high - low, 1e-6) * len(mask)
        inside.append((place >= 0) & (place < len(mask)))
        cells.append(np.clip(place, 0, len(mask) - 1).astype(int))
    return (mask[np.ix_(*cells)] == 1) & np.logical_and.outer(*inside)


def _touched(box, mask, size):
    """The pixels of the canvas that hold the centre of a set cell."""
    places = box[:2] + (np.argwhere(mask) + 0.5) / len(mask) * (box[2:] - box[:2])
    touched = np.zeros(size, bool)
    touched[tuple(np.minimum(places.astype(int), np.array(size) - 1).T)] = True
    return touched


def _shrunk(mask, pixels):
    """What lies more than so many pixels inside a mask, beyond whose canvas nothing is."""
    return ~_grown(~np.pad(mask, pixels), pixels)[pixels:-pixels, pixels:-pixels]


def _grown(mask, pixels):
    """The mask and whatever lies within so many pixels of it."""
    window = 2 * pixels + 1
    padded = np.pad(mask, pixels, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, (window, window)).any((2, 3))


def _extent(mask):
    """First row and column of a mask, and last + 1."""
    places = np.argwhere(mask)
    return places.min(0), places.max(0) + 1


def test_half_of_the_instances_are_donated_and_no_crowd():
    donor = {"classes": tf.zeros([2000], tf.int32), "is_crowd": tf.range(2000) % 2 == 0}
    donated = Augmentation(DataConfig(), seed=1).donated(tf.constant(3, tf.int64), donor).numpy()
    assert not donated[::2].any()
    assert abs(donated[1::2].mean() - 0.5) < 0.05  # three times the deviation


def test_a_share_of_the_crops_holds_a_class():
    """Of 100 places across and down, a crop of 10 holds the one labelled pixel by chance in one."""
    settings = AugmentConfig(
        crop_size=(10, 10), crop_by_class_probability=0.25, scale_range=(1.0, 1.0)
    )
    augmentation = Augmentation(DataConfig(augment=settings), seed=1)
    loaded = {
        "image": tf.zeros([100, 100, 3], tf.uint8),
        "classes": tf.constant([4]),
        "rectangles": tf.constant([[99, 99, 100, 100]]),
        "owners": tf.constant([0]),
    }
    windows = [
        augmentation.geometry(tf.constant(i, tf.int64), loaded).window.numpy() for i in range(60)
    ]
    share = np.mean([tuple(window[2:]) == (100, 100) for window in windows])
    assert 0.1 < share < 0.42  # three times the deviation


SCALES = st.sampled_from([(), (0.5, 2.0), (0.3, 0.6), (1.5, 3.0)])
CROPS = st.sampled_from([(), (40, 56), (30, 200), (120, 120)])
CONFIGS = st.builds(
    lambda sampling, scale, base, crop, by_class, paste, flip, limit: DataConfig(
        train=CocoPanopticSplit(short_sides=(48, 100), max_long_side=130, flip_probability=flip),
        augment=AugmentConfig(
            short_side_sampling=sampling,
            scale_range=scale,
            scale_relative_to=base if scale and crop else "image",
            crop_size=crop,
            crop_by_class_probability=by_class if crop else 0.0,
            copy_paste_probability=paste,
        ),
        max_instances=limit,
    ),
    st.sampled_from(["choice", "range"]),
    SCALES,
    st.sampled_from(["image", "crop"]),
    CROPS,
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([100, 100, 2]),
)


@settings(max_examples=25, deadline=None, phases=[Phase.generate])  # to shrink takes too long
@given(
    config=CONFIGS,
    position=st.integers(0, 1000),
    images=st.permutations(range(3)),
    kind=st.sampled_from(["map", "runs"]),
)
def test_a_sample_equals_the_transform_of_full_size_masks(drawn, config, position, images, kind):
    index = drawn.index
    base, other = images[:2]
    loaded, donor = drawn.loaded[kind, base], drawn.loaded[kind, other]
    augmentation = Augmentation(config, seed=7)
    position = tf.constant(position, tf.int64)
    is_pasted = config.augment.copy_paste_probability > 0
    assert (augmentation.donor_row(position, 3).numpy() >= 0) == is_pasted
    sample = augmentation.sample(position, loaded, donor if is_pasted else None)
    sample = {key: value.numpy() for key, value in sample.items()}

    geometry = augmentation.geometry(position, loaded)
    size = tuple(geometry.size.numpy())
    semantic = _applied(drawn.semantic[base], geometry)
    masks = {
        instance: _applied(drawn.masks[instance], geometry)
        for instance in range(*index.instance_offsets[base : base + 2])
    }
    image = resize_with_pillow(drawn.images[base], geometry.resized_size.numpy())
    whole = geometry._replace(source_size=geometry.resized_size)
    image = _applied(image, whole)
    scales = [geometry.resized_size / geometry.source_size]
    covered = np.zeros(size, bool)
    if is_pasted:
        geometry = augmentation.donor_geometry(position, donor, size)
        assert all(geometry.size.numpy() <= size)
        scales.append(geometry.resized_size / geometry.source_size)
        chosen = np.flatnonzero(augmentation.donated(position, donor))
        chosen += index.instance_offsets[other]
        assert not index.instance_is_crowd[chosen].any()
        missing = [(0, s - g) for s, g in zip(size, geometry.size.numpy(), strict=True)]
        pasted = {i: np.pad(_applied(drawn.masks[i], geometry), missing) for i in chosen}
        covered = np.any([covered, *pasted.values()], 0)
        labels = np.pad(_applied(drawn.semantic[other], geometry), missing)
        semantic = np.where(covered, labels, semantic)
        # An outline that is off by less than a pixel leaves a sliver beside what is laid over it.
        loose = {i: _grown(mask, 1) & ~covered for i, mask in masks.items()} | pasted
        # Or hides one that is left.
        firm = {i: _shrunk(mask, 1) & ~covered for i, mask in masks.items()} | pasted
        masks = {i: mask & ~covered for i, mask in masks.items()} | pasted
    else:
        loose = firm = masks

    assert tuple(sample["image_sizes"]) == size
    np.testing.assert_array_equal(sample["semantic"], semantic)
    difference = np.abs(sample["images"].astype(int) - image)[~covered]
    assert difference.size == 0 or difference.max() <= 1
    found = sample["gt_classes"]
    assert len(found) == len(set(found)) <= config.max_instances
    np.testing.assert_array_equal(sample["gt_is_crowd"], index.instance_is_crowd[found])
    # A pixel of the image, and a cell of a mask, can be as large as this on the canvas.
    pixel = max(1, np.max(scales))
    for instance, box, mask in zip(found, sample["gt_boxes"], sample["gt_masks"], strict=True):
        expected, allowed = masks[instance], loose[instance]
        cell = max(box[2:] - box[:2]) / 112
        assert (box[:2] >= 0).all()
        assert (box[2:] <= np.array(size) + 1e-3).all()
        assert (box[2:] > box[:2]).all()
        margin = int(np.ceil(pixel + 2 * cell)) + 1
        if expected.any():
            (low, high), (lowest, highest) = _extent(expected), _extent(allowed)
            assert (box[:2] <= low + margin).all()
            assert (box[:2] >= lowest - margin).all()
            assert (box[2:] >= high - margin).all()
            assert (box[2:] <= highest + margin).all()
        laid = _laid(box, mask, size)
        assert not (laid & ~_grown(allowed, margin)).any()
        laid |= _touched(box, mask, size)
        assert not (firm[instance] & ~_grown(laid, margin)).any()
    missing = {i: mask.sum() for i, mask in masks.items() if i not in found and mask.any()}
    if len(found) < config.max_instances:
        assert max(missing.values(), default=0) <= 3 * pixel**2
    else:
        smallest = min(masks[i].sum() for i in found)
        assert all(area <= smallest + 20 * pixel**2 + smallest / 5 for area in missing.values())
