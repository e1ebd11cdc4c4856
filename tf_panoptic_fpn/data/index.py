"""The compiled annotations of a split, and the order in which training reads its images."""

import concurrent.futures
import dataclasses
import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import DamagedFileError, DataError
from tf_panoptic_fpn.formats.breaches import Breaches
from tf_panoptic_fpn.formats.images import is_plain_label_png, read_header
from tf_panoptic_fpn.formats.records import ImageRecord, PanopticSplit
from tf_panoptic_fpn.masks.rle import runs_of
from tf_panoptic_fpn.messages import few

_MAX_CLASSES = 2**15 - 1  # that `geometry.paint_runs` can paint
_CHUNK = 1000
_THREADS = 8  # that wait for files


@dataclasses.dataclass(frozen=True, eq=False)
class DatasetIndex:
    """All annotations of a split as arrays; n images, k labels, m instances, r runs.

    The labels of image i, which are the ids of its map, are the rows
    `label_offsets[i]:label_offsets[i + 1]`, its instances and the runs of an instance likewise.
    """

    categories: CategoryTable
    map_format: str  # "rgb": id = R + 256 G + 65536 B; "grey": the value, of 8 or 16 bits; "none"
    image_paths: np.ndarray  # bytes [n]
    map_paths: np.ndarray  # bytes [n], b"" without a map
    sizes: np.ndarray  # int32 [n, 2], (H, W), upright
    orientations: np.ndarray  # uint8 [n], EXIF, 1..8
    needs_pillow: np.ndarray  # bool [n], TensorFlow's decoders would give other pixels, or none
    label_offsets: np.ndarray  # int64 [n + 1]
    label_ids: np.ndarray  # int32 [k]
    label_classes: np.ndarray  # uint8 or uint16 [k], semantic class; ignored: see `void_label`
    instance_offsets: np.ndarray  # int64 [n + 1]
    instance_classes: np.ndarray  # int32 [m]
    instance_is_crowd: np.ndarray  # bool [m]
    instance_map_ids: np.ndarray  # int32 [m], -1: the mask is in `runs`
    run_offsets: np.ndarray  # int64 [m + 1]
    runs: np.ndarray  # uint16 [r], see `data.rle.runs_of`

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def void_label(self) -> int:
        """int, what stands for no class in `label_classes`: the largest value of its dtype."""
        return np.iinfo(self.label_classes.dtype).max

    def digest(self) -> str:
        """Returns what tells this data set from another, wherever the same files lie."""
        content = hashlib.sha256(repr(self.categories).encode())
        for field in dataclasses.fields(self):
            values = getattr(self, field.name)
            if field.name.endswith("_paths"):
                content.update(b"\0".join(os.path.basename(path) for path in values))
            elif isinstance(values, np.ndarray):
                content.update(np.ascontiguousarray(values).data)
        return content.hexdigest()


def build_index(split: PanopticSplit) -> DatasetIndex:
    """Compiles a `PanopticSplit` into a `DatasetIndex`, in memory.

    Args:
        split: a `PanopticSplit`.

    Returns:
        A `DatasetIndex`, images, segments and instances in the order of the split.

    Raises:
        DataError: if there are more than 32767 semantic classes.
    """
    chunks = list(compiled_chunks(split))
    columns = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    return index_of_columns(split.categories, columns)


def compiled_chunks(
    split: PanopticSplit, breaches: Breaches | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """Compiles a split, some images at a time.

    Args:
        split: a `PanopticSplit`.
        breaches: `Breaches` that takes each image that is left out because its annotations cannot
            be read; by default that is an error.

    Yields:
        dict of arrays, to be concatenated: the columns of `DatasetIndex`, but with the number of
        labels, instances and runs in place of their offsets, and with categories, as positions in
        the table (-1: ignored), in place of classes.

    Raises:
        DataError: if the annotations of an image, or of all, cannot be read, or there are none.
    """
    position = {category.id: i for i, category in enumerate(split.categories.categories)}
    thing_ids = set(split.categories.thing_ids)

    def read(i: int) -> tuple[ImageRecord, tuple[int, bool]] | None:
        try:
            record = split.images[i]
            return record, _header(record)
        except DataError as error:
            if breaches is None:
                raise
            breaches.leave_out(str(error))
            return None

    found = is_annotated = False
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(split.images), _CHUNK):
            stop = min(start + _CHUNK, len(split.images))
            pairs = [pair for pair in pool.map(read, range(start, stop)) if pair is not None]
            if pairs:
                found = True
                records, headers = zip(*pairs, strict=True)
                columns = _columns(records, headers, position, thing_ids)
                is_annotated |= bool(len(columns["label_ids"]) or len(columns["num_runs"]))
                yield columns
    if not (found and is_annotated):
        what = "annotation" if found else "image"
        reason = breaches.first_reason() if breaches else ""
        raise DataError(f"no {what} can be used: {reason or 'the data set has none'}")


def index_of_columns(categories: CategoryTable, columns: Mapping[str, np.ndarray]) -> DatasetIndex:
    """Makes a `DatasetIndex` of the columns of `compiled_chunks`.

    Args:
        categories: `CategoryTable`.
        columns: dict of arrays.

    Returns:
        A `DatasetIndex`; what the columns hold for it already is shared with them, not copied.

    Raises:
        DataError: as `build_index`.
    """
    semantic_class = categories.semantic_classes
    last_class = max(semantic_class.values())
    if last_class >= _MAX_CLASSES:
        raise DataError(
            f"At most {_MAX_CLASSES - 1} stuff categories, or {_MAX_CLASSES} categories with "
            f"`model.semantic_things: all`. Received: {len(semantic_class)} categories"
        )
    dtype = np.uint8 if last_class < np.iinfo(np.uint8).max else np.uint16
    ids = [category.id for category in categories.categories]
    thing_class = categories.thing_class
    # The position -1 of an ignored label finds the last entry.
    semantic_table = np.array([*(semantic_class[i] for i in ids), np.iinfo(dtype).max], dtype)
    thing_table = np.array([thing_class.get(i, -1) for i in ids], np.int32)
    columns = dict(columns)
    offsets = {
        f"{name}_offsets": np.concatenate([[0], np.cumsum(columns.pop(f"num_{name}s"), dtype=int)])
        for name in ("label", "instance", "run")
    }
    return DatasetIndex(
        categories,
        str(columns.pop("map_formats")[0]),
        label_classes=semantic_table[columns.pop("label_categories")],
        instance_classes=thing_table[columns.pop("instance_categories")],
        **offsets,
        **columns,
    )


def class_warnings(categories: CategoryTable, columns: Mapping[str, np.ndarray]) -> list[str]:
    """Says by name of which thing classes nothing can be learned.

    Args:
        categories: `CategoryTable`.
        columns: dict of arrays, as of `compiled_chunks`.

    Returns:
        list of lines.
    """
    position, is_crowd = columns["instance_categories"], columns["instance_is_crowd"]
    size = len(categories.categories)
    counts, crowds = (np.bincount(p, minlength=size) for p in (position, position[is_crowd]))
    is_thing = np.array([category.is_thing for category in categories.categories], bool)
    names, lines = list(categories.unique_names.values()), []
    for text, chosen in (
        ("every annotation is a crowd", is_thing & (counts > 0) & (counts == crowds)),
        ("there is no annotation", is_thing & (counts == 0)),
    ):
        found = [names[i] for i in np.flatnonzero(chosen)]
        if found:
            shown = f"{len(found)} thing classes, which cannot be learned: {few(found)}"
            lines.append(f"{text} of {shown}")
    return lines


def _header(record: ImageRecord) -> tuple[int, bool]:
    """The orientation of an image, and whether TensorFlow's decoders read it and its map."""
    try:
        header = read_header(record.image_path)
        is_plain = header.is_plain and (header.height, header.width) == (
            record.height,
            record.width,
        )
        if record.map_format == "grey" and record.panoptic_path:
            is_plain = is_plain and is_plain_label_png(record.panoptic_path)
        return header.orientation, is_plain
    except DamagedFileError:  # whoever reads it will find out, and say so
        return 1, False


def _columns(
    records: Sequence[ImageRecord],
    headers: Sequence[tuple[int, bool]],
    position: Mapping[int, int],
    thing_ids: Collection[int],
) -> dict[str, np.ndarray]:
    labels: list[tuple[int, int]] = []
    instances: list[tuple[int, int, bool]] = []
    rles: list[Any] = []
    num_labels, num_instances = [], []
    for record in records:
        first_label, first_instance = len(labels), len(instances)
        shift = 1 if record.map_format == "grey" else 0
        labels += [(s.id - shift, position[s.category_id]) for s in record.segments]
        labels += [(value, -1) for value in record.void_values]
        if record.instances is None:
            instances += [
                (s.id - shift, position[s.category_id], s.is_crowd)
                for s in record.segments
                if s.category_id in thing_ids
            ]
            rles += [{"counts": b""}] * (len(instances) - first_instance)
        else:
            instances += [(-1, position[i.category_id], i.is_crowd) for i in record.instances]
            rles += [instance.rle for instance in record.instances]
        num_labels.append(len(labels) - first_label)
        num_instances.append(len(instances) - first_instance)
    runs, num_runs = runs_of(rles)
    label_ids, label_categories = _transposed(labels, 2)
    map_ids, instance_categories, is_crowd = _transposed(instances, 3)
    return {
        "map_formats": np.array([r.map_format if r.panoptic_path else "none" for r in records]),
        "image_paths": np.array([os.fsencode(record.image_path) for record in records]),
        "map_paths": np.array([os.fsencode(record.panoptic_path) for record in records]),
        "sizes": np.array([(record.height, record.width) for record in records], np.int32),
        "orientations": np.array([orientation for orientation, _ in headers], np.uint8),
        "needs_pillow": np.array([not is_plain for _, is_plain in headers]),
        "num_labels": np.array(num_labels),
        "label_ids": label_ids,
        "label_categories": label_categories,
        "num_instances": np.array(num_instances),
        "instance_categories": instance_categories,
        "instance_is_crowd": is_crowd.astype(bool),
        "instance_map_ids": map_ids,
        "num_runs": num_runs,
        "runs": runs,
    }


def _transposed(rows: Sequence[tuple], width: int) -> np.ndarray:
    """Contiguous int32 columns of a list of tuples."""
    return np.ascontiguousarray(np.array(rows, np.int32).reshape(-1, width).T)


def is_portrait(sizes: np.ndarray) -> np.ndarray:
    """Tells upright images from the others, which a batch never mixes.

    Args:
        sizes: int `[n, 2]`, (H, W).

    Returns:
        bool `[n]`; False for squares.
    """
    return sizes[:, 0] > sizes[:, 1]


def batch_schedule(
    sizes: np.ndarray,
    batch_size: int,
    num_steps: int,
    seed: int,
    repeats: np.ndarray | None = None,
) -> np.ndarray:
    """Which images make up the batch of each step.

    An epoch is a permutation of all images by (seed, epoch); with `repeats` some come several
    times in it, a fraction being the probability of once more. Its images are dealt, in that order,
    to a landscape and a portrait batch; a batch is due when it is full, and one left unfilled goes
    on with the next epoch. So no image is dropped, and a longer schedule begins as a shorter one.

    Args:
        sizes: int `[n, 2]`, (H, W) of each image.
        batch_size: int, images a batch.
        num_steps: int, batches.
        seed: int.
        repeats: float `[n]`, how often each image comes in an epoch, 1 or more; None for once.

    Returns:
        int32 `[num_steps, batch_size]`, image indices.
    """
    # Of the images dealt, at most 2 (batch_size - 1) are in an unfilled batch at the end.
    num_images = num_steps * batch_size + 2 * (batch_size - 1)
    epochs: list[np.ndarray] = []
    while sum(map(len, epochs)) < num_images:
        epochs.append(_epoch(len(sizes), seed, len(epochs), repeats))
    order = np.concatenate(epochs)
    portrait = is_portrait(sizes)[order]
    batches = []
    for group in (portrait, ~portrait):
        places = np.flatnonzero(group)
        full = len(places) // batch_size * batch_size
        batches.append(places[:full].reshape(-1, batch_size))
    places = np.concatenate(batches)
    due = np.argsort(places[:, -1])[:num_steps]
    return order[places[due]].astype(np.int32)


def _epoch(count: int, seed: int, epoch: int, repeats: np.ndarray | None) -> np.ndarray:
    """A permutation from raw bits, which NumPy keeps the same in all versions."""
    rows = np.arange(count)
    if repeats is not None:
        draws = (_raw_bits(count, seed, epoch, 1) >> np.uint64(11)) * 2.0**-53  # in [0, 1)
        rows = np.repeat(rows, np.floor(repeats + draws).astype(int))
    return rows[np.argsort(_raw_bits(len(rows), seed, epoch), kind="stable")]


def _raw_bits(count: int, seed: int, *key: int) -> np.ndarray:
    return np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)).random_raw(count)
