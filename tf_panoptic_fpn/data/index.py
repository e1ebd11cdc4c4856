"""The compiled annotations of a split, and the order in which training reads its images."""

import dataclasses

import numpy as np

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.errors import DataError


@dataclasses.dataclass(frozen=True, eq=False)
class DatasetIndex:
    """All annotations of a split as arrays; n images, m segments.

    The segments of image i are the rows `segment_offsets[i]:segment_offsets[i + 1]`.
    """

    image_paths: np.ndarray  # object [n]
    panoptic_paths: np.ndarray  # object [n]
    sizes: np.ndarray  # int32 [n, 2], (H, W)
    segment_offsets: np.ndarray  # int64 [n + 1]
    segment_ids: np.ndarray  # int32 [m]
    semantic_classes: np.ndarray  # uint8 [m]
    thing_classes: np.ndarray  # int32 [m], -1 for stuff
    is_crowd: np.ndarray  # bool [m]

    def __len__(self):
        return len(self.sizes)


def build_index(split, semantic_things="other"):
    """Compiles a `PanopticSplit` into a `DatasetIndex`.

    Args:
        split: a `PanopticSplit`.
        semantic_things: "other" or "all", see `CategoryTable.semantic_classes`.

    Returns:
        A `DatasetIndex`, images and segments in the order of the split.

    Raises:
        DataError: if there are more semantic classes than labels below `schema.IGNORED`.
    """
    semantic_class = split.categories.semantic_classes(semantic_things)
    thing_class = split.categories.thing_class
    if max(semantic_class.values()) >= schema.IGNORED:
        raise DataError(
            f"At most {schema.IGNORED - 1} stuff categories, or {schema.IGNORED} categories with "
            f"`model.semantic_things: all`. Received: {len(semantic_class)} categories"
        )
    images = split.images
    segments = [segment for image in images for segment in image.segments]
    return DatasetIndex(
        image_paths=np.array([image.image_path for image in images], object),
        panoptic_paths=np.array([image.panoptic_path for image in images], object),
        sizes=np.array([(image.height, image.width) for image in images], np.int32),
        segment_offsets=np.cumsum([0] + [len(image.segments) for image in images]),
        segment_ids=np.array([s.id for s in segments], np.int32),
        semantic_classes=np.array([semantic_class[s.category_id] for s in segments], np.uint8),
        thing_classes=np.array([thing_class.get(s.category_id, -1) for s in segments], np.int32),
        is_crowd=np.array([s.is_crowd for s in segments], bool),
    )


def is_portrait(sizes):
    """Tells upright images from the others, which a batch never mixes.

    Args:
        sizes: int `[n, 2]`, (H, W).

    Returns:
        bool `[n]`; False for squares.
    """
    return sizes[:, 0] > sizes[:, 1]


def batch_schedule(sizes, batch_size, num_steps, seed):
    """Which images make up the batch of each step.

    An epoch is a permutation of all images by (seed, epoch). Its images are dealt, in that order,
    to a landscape and a portrait batch; a batch is due when it is full, and one left unfilled goes
    on with the next epoch. So no image is dropped, and a longer schedule begins as a shorter one.

    Args:
        sizes: int `[n, 2]`, (H, W) of each image.
        batch_size: int, images a batch.
        num_steps: int, batches.
        seed: int.

    Returns:
        int32 `[num_steps, batch_size]`, image indices.
    """
    # Of the images dealt, at most 2 (batch_size - 1) are in an unfilled batch at the end.
    num_images = num_steps * batch_size + 2 * (batch_size - 1)
    num_epochs = -(-num_images // len(sizes))
    order = np.concatenate([_permutation(len(sizes), seed, epoch) for epoch in range(num_epochs)])
    portrait = is_portrait(sizes)[order]
    batches = []
    for group in (portrait, ~portrait):
        places = np.flatnonzero(group)
        full = len(places) // batch_size * batch_size
        batches.append(places[:full].reshape(-1, batch_size))
    places = np.concatenate(batches)
    due = np.argsort(places[:, -1])[:num_steps]
    return order[places[due]].astype(np.int32)


def _permutation(count, seed, epoch):
    """A permutation from raw bits, which NumPy keeps the same in all versions."""
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(epoch,)))
    return np.argsort(bits.random_raw(count), kind="stable")
