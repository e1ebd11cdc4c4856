"""Images a second and core of the training input, and memory, as ratios of one run.

python benchmarks/input_pipeline.py [--samples=../shared/samples] [--images=300]

Seconds are those of an image. Processor seconds are those of all the process's threads together, so
that images a second are those of one core however many there are. Each stage has those before it in
it: "decode", "labels" read, "resize", "instances" and augmentation, "batch". `ratios` are to
"plain", a mapper of Pillow, NumPy and pycocotools on the same images, as detectron2 has one:
decode, resize, flip, full-size masks. Pipelines read ahead: give them many images.
"""

import argparse
import dataclasses
import multiprocessing
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import measure
import numpy as np
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_masks

from tf_panoptic_fpn.config import DataConfig
from tf_panoptic_fpn.data.augment import Augmentation
from tf_panoptic_fpn.data.decode import decode_id_map, decode_image
from tf_panoptic_fpn.data.folder_source import FolderSource
from tf_panoptic_fpn.data.geometry import resize_image
from tf_panoptic_fpn.data.index import batch_schedule, build_index
from tf_panoptic_fpn.data.loading import ImageLoader
from tf_panoptic_fpn.data.pipeline import training_dataset
from tf_panoptic_fpn.formats.coco_instances import read_coco_instances
from tf_panoptic_fpn.formats.coco_panoptic import CocoPanopticSplit, read_coco_panoptic
from tf_panoptic_fpn.formats.images import resized_size

SIDES = (640, 672, 704, 736, 768, 800)
CONFIG = DataConfig(train=CocoPanopticSplit(short_sides=SIDES, flip_probability=0.5))
BATCH_SIZE = 2
ROUNDS = 5
STAGES = ("decode", "labels", "resize", "instances")  # and "batch"


def read_split(samples, name):
    folder = samples / name
    if (folder / "instances.json").exists():
        return read_coco_instances(folder / "images", folder / "instances.json")
    paths = folder / "images" / "train", folder / "panoptic_train.json", folder / "panoptic_train"
    return read_coco_panoptic(*paths)


def seconds_of_a_call(function, count):
    """Wall and processor seconds of one of `count` calls, which get their number."""
    start = time.perf_counter(), time.process_time()
    for i in range(count):
        function(i)
    return [(time.perf_counter() - start[0]) / count, (time.process_time() - start[1]) / count]


def pipeline(index, num_images):
    """A function that takes a batch of the pipeline."""
    steps = num_images // BATCH_SIZE + 8
    batches = iter(training_dataset(index, CONFIG, BATCH_SIZE, steps, seed=0))
    return lambda _: next(batches)


def stages(index, num_images):
    """Functions that make an image up to the end of each stage, of the images of the pipeline."""
    source = FolderSource(index)
    loader = ImageLoader(index, source)
    augmentation = Augmentation(CONFIG, seed=0)

    def decode(row, position):
        image_bytes, map_bytes = source.read(row)
        image = decode_image(
            image_bytes, loader.columns["orientations"][row], loader.columns["needs_pillow"][row]
        )
        if index.map_format == "none":
            return image
        return image, decode_id_map(map_bytes, index.map_format, tf.constant(False))

    def load(row, position):
        return loader.load(row, False)

    def resize(row, position):
        loaded = loader.load(row, False)
        return loaded, resize_image(loaded["image"], augmentation.geometry(position, loaded))

    def sample(row, position):
        return augmentation.sample(position, loader.load(row, False))

    rows = batch_schedule(index.sizes, BATCH_SIZE, num_images, seed=0).reshape(-1)
    numbers = tf.data.Dataset.from_tensor_slices((rows, np.arange(len(rows))))
    functions = {}
    for name, stage in zip(STAGES, (decode, load, resize, sample), strict=True):
        images = iter(numbers.map(stage, tf.data.AUTOTUNE))
        functions[name] = lambda _, images=images: next(images)
    return functions


def plain_mapper(record, things, rng):
    """A training sample as detectron2's mapper makes it; polygons are RLE already."""
    image = Image.open(record.image_path).convert("RGB")
    size = resized_size(record.height, record.width, int(rng.choice(SIDES)), 1333)
    image = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
    if record.instances is None:
        rgb = np.asarray(Image.open(record.panoptic_path)).astype(np.int32)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
        labels = np.full(ids.shape, 255, np.uint8)
        for segment in record.segments:
            labels[ids == segment.id] = segment.category_id
        masks = [ids == s.id for s in record.segments if s.category_id in things]
        maps = [labels, *(mask.astype(np.uint8) for mask in masks)]
    else:
        maps = [coco_masks.decode(instance.rle) for instance in record.instances]
    nearest = Image.Resampling.NEAREST
    maps = [np.asarray(Image.fromarray(m).resize(size[::-1], nearest)) for m in maps]
    if rng.random() < 0.5:
        image, maps = image[:, ::-1], [m[:, ::-1] for m in maps]
    boxes = []
    for mask in maps[record.instances is None :]:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append([rows[0], columns[0], rows[-1], columns[-1]] if len(rows) else [0] * 4)
    return np.ascontiguousarray(image.transpose(2, 0, 1)), np.array(maps), np.array(boxes)


def plain(split):
    """A function of a number that makes a sample in the plain way."""
    rng, things = np.random.default_rng(0), set(split.categories.thing_ids)
    records = list(split.images)
    return lambda i: plain_mapper(records[i % len(records)], things, rng)


def measure_samples(name, samples, num_images, table):
    """Adds the stages of a data set to a `measure.Stages`; all take turns, in rounds.

    Returns:
        Dict of figures.
    """
    split = read_split(samples, name)
    index = build_index(split)
    functions = {
        "plain": plain(split),
        **stages(index, num_images),
        "batch": pipeline(index, num_images),
    }
    for function in functions.values():
        seconds_of_a_call(function, 2)
    peaks = []
    for _ in range(ROUNDS):
        for stage, function in functions.items():
            images_a_call = BATCH_SIZE if stage == "batch" else 1
            count = num_images // ROUNDS // images_a_call
            seconds = seconds_of_a_call(function, count)
            table.add(f"{name}: {stage}", *(value / images_a_call for value in seconds))
        peaks.append(measure.peak_memory())
    table.add(f"{name}: first batch of step 1000", *first_batch_seconds(index))
    least = {stage: table.least(f"{name}: {stage}") for stage in functions}
    whole, ends = least["batch"], [0, *(least[stage] for stage in (*STAGES, "batch"))]
    shares = zip((*STAGES, "batch"), ends[:-1], ends[1:], strict=True)
    return {
        "ratios": round(least["plain"] / whole, 2),
        "images_per_second_and_core": round(1 / whole, 1),
        "shares": {stage: round((end - start) / whole, 3) for stage, start, end in shares},
        "peak_memory_growth": round(peaks[-1] / peaks[0], 3),
    }


def first_batch_seconds(index):
    """Wall and processor seconds until the batch of step 1000 of a run that goes on there."""
    start = time.perf_counter(), time.process_time()
    next(iter(training_dataset(index, CONFIG, BATCH_SIZE, 90000, seed=0, start_step=1000)))
    return time.perf_counter() - start[0], time.process_time() - start[1]


def crowded_megabytes(samples, max_instances, connection):
    """Sends the peak memory of a process that reads the image with the most instances, and a
    batch's own size, with so many instances used."""
    split = read_split(samples, "nuclei")
    crowded = max(split.images, key=lambda record: len(record.instances))
    index = build_index(dataclasses.replace(split, images=(crowded,)))
    config = CONFIG.model_copy(update={"max_instances": max_instances})
    for batch in training_dataset(index, config, BATCH_SIZE, 20, seed=0):
        batch_bytes = sum(value.numpy().nbytes for value in batch.values())
    connection.send((measure.peak_memory(), batch_bytes / 2**20))


def crowded_ratios(samples):
    """Memory of 375 instances in an image against 10, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    results = []
    for max_instances in (375, 10):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=crowded_megabytes, args=(samples, max_instances, sender))
        process.start()
        results.append(receiver.recv())
        process.join()
    return [many / few for many, few in zip(*results, strict=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--samples", type=pathlib.Path, default=pathlib.Path("../shared/samples"))
    parser.add_argument("--images", type=int, default=300)
    arguments = parser.parse_args()

    packages = ("tensorflow", "numpy", "pillow", "pycocotools")
    line = {"benchmark": "input_pipeline", **measure.machine(*packages)}
    table = measure.Stages()
    for name in ("coco_instances", "camvid"):
        figures = measure_samples(name, arguments.samples, arguments.images, table)
        for key, value in figures.items():
            line.setdefault(key, {})[name] = value
    process, batch = crowded_ratios(arguments.samples)
    line["memory_375_to_10_instances"] = round(process, 3)
    line["batch_bytes_375_to_10_instances"] = round(batch, 3)
    measure.report({**line, "images": arguments.images}, table)


if __name__ == "__main__":
    main()
