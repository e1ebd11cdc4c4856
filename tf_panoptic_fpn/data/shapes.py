"""The embedded data set: geometric shapes over textured ground, drawn on the spot.

Small enough to train on in minutes without a download, and with what makes panoptic segmentation
hard: instances of one class that touch and hide each other, and regions with irregular borders.
"""

import json
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from PIL import Image

from tf_panoptic_fpn.categories import Category
from tf_panoptic_fpn.config import ShapesConfig
from tf_panoptic_fpn.formats.panoptic_png import write_panoptic_png
from tf_panoptic_fpn.masks.segment_map import tight_boxes

# Ids are not consecutive and mix things with stuff, as those of real data sets do.
CATEGORIES = (
    Category(2, "sky", False, (135, 190, 235)),
    Category(5, "circle", True, (240, 180, 20)),
    Category(9, "grass", False, (70, 140, 50)),
    Category(12, "square", True, (150, 60, 200)),
    Category(21, "water", False, (30, 80, 150)),
    Category(33, "triangle", True, (20, 200, 170)),
    Category(40, "brick", False, (150, 80, 60)),
    Category(57, "star", True, (235, 60, 130)),
)
_ID = {category.name: category.id for category in CATEGORIES}
_HUES = {"circle": 0.12, "square": 0.77, "triangle": 0.47, "star": 0.93}
_BACKGROUNDS, _GROUNDS = ("sky", "sky", "brick"), ("grass", "water")
_DRAWING_VERSION = 1  # raise it when the drawing changes, so that older folders are drawn anew
_JPEG_QUALITY = 92
_MAX_ATTEMPTS = 20  # to place the instances of an image


def write_shapes(folder: str | os.PathLike, config: ShapesConfig) -> None:
    """Writes the data set in the COCO panoptic format; does nothing where it is already complete.

    Each of `folder/train` and `folder/validation` gets `images/*.jpg`, `panoptic/*.png` and
    `panoptic.json`. The same configuration always draws the same files.

    Args:
        folder: path; made if it does not exist.
        config: a `ShapesConfig`.
    """
    folder = pathlib.Path(folder)
    stamp_path = folder / "shapes.json"
    stamp = json.dumps({"version": _DRAWING_VERSION, **config.model_dump()})
    if stamp_path.is_file() and stamp_path.read_text(encoding="utf-8") == stamp:
        return
    stamp_path.unlink(missing_ok=True)
    splits = (("train", config.train_images), ("validation", config.validation_images))
    for split, (name, num_images) in enumerate(splits):
        _write_split(folder / name, num_images, config.image_size, (config.seed, split))
    stamp_path.write_text(stamp, encoding="utf-8")


def draw_shapes(
    size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, dict[int, int]]:
    """Draws one image of the data set.

    Args:
        size: `(height, width)`, ints.
        rng: a `numpy.random.Generator`.

    Returns:
        `(image, ids, category_ids)`: uint8 `[H, W, 3]` RGB, int32 `[H, W]` segment ids from 1 on
        (no pixel is void), and a dict: segment id -> category id.
    """
    image, ids, category_ids = _draw_stuff(size, rng)
    last_id = len(category_ids) + rng.integers(2, 7)
    for _ in range(_MAX_ATTEMPTS):
        segment_id = len(category_ids) + 1
        if segment_id > last_id:
            break
        name = ("circle", "square", "triangle", "star")[rng.integers(4)]
        part, coverage = _shape_coverage(name, size, rng)
        covered = coverage >= 0.5
        if not _leaves_enough(ids, ids[part][covered], category_ids):
            continue
        color = _hsv_color(_HUES[name] + rng.uniform(-0.05, 0.05), *rng.uniform((0.6, 0.6), 1.0))
        shade = 1 + 0.25 * _smooth_noise(size, 24, rng)[part][..., None]
        image[part] += coverage[..., None] * (np.clip(color * shade, 0, 255) - image[part])
        ids[part][covered] = segment_id
        category_ids[segment_id] = _ID[name]
    image += rng.normal(0, 5, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), ids, category_ids


def _write_split(
    folder: pathlib.Path, num_images: int, size: tuple[int, int], seed: tuple[int, ...]
) -> None:
    for name in ("images", "panoptic"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for i in range(num_images):
        image, ids, category_ids = draw_shapes(size, np.random.default_rng((*seed, i)))
        image_name, png_name = f"{i:05d}.jpg", f"{i:05d}.png"
        Image.fromarray(image).save(folder / "images" / image_name, quality=_JPEG_QUALITY)
        write_panoptic_png(ids, folder / "panoptic" / png_name)
        images.append({"id": i, "file_name": image_name, "height": size[0], "width": size[1]})
        segments_info = _segments_info(ids, category_ids)
        annotations.append({"image_id": i, "file_name": png_name, "segments_info": segments_info})
    categories = [
        {"id": c.id, "name": c.name, "isthing": int(c.is_thing), "color": c.color}
        for c in CATEGORIES
    ]
    tree = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "panoptic.json").write_text(json.dumps(tree), encoding="utf-8")


def _segments_info(ids: np.ndarray, category_ids: Mapping[int, int]) -> list[dict[str, Any]]:
    boxes, areas = tight_boxes(ids, list(category_ids))
    return [
        {
            "id": segment_id,
            "category_id": category_id,
            "iscrowd": 0,
            "area": int(area),
            "bbox": [int(x1), int(y1), int(x2 - x1), int(y2 - y1)],
        }
        for (segment_id, category_id), (y1, x1, y2, x2), area in zip(
            category_ids.items(), boxes, areas, strict=True
        )
    ]


def _draw_stuff(
    size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, dict[int, int]]:
    """Two to four textured regions: one or two above a wavy horizon, one or two below it."""
    height, width = size
    y, x = np.ogrid[:height, :width]
    horizon = height * rng.uniform(0.35, 0.6) + _wave(x, width, height * 0.08, rng)
    above = y < horizon
    regions = []
    for part, names in ((above, _BACKGROUNDS), (~above, _GROUNDS)):
        first = names[rng.integers(len(names))]
        if rng.random() < 0.5:
            second = next(name for name in names if name != first)
            divide = width * rng.uniform(0.35, 0.65) + rng.uniform(-0.6, 0.6) * (y - height / 2)
            left = x < divide + _wave(y, height, width * 0.05, rng)
            regions += [(first, part & left), (second, part & ~left)]
        else:
            regions.append((first, part))
    image = np.zeros((height, width, 3))
    ids = np.zeros(size, np.int32)
    category_ids: dict[int, int] = {}
    for name, region in regions:
        np.copyto(image, _TEXTURES[name](y, x, size, rng), where=region[..., None])
        ids[region] = len(category_ids) + 1
        category_ids[len(category_ids) + 1] = _ID[name]
    return image, ids, category_ids


def _sky(
    y: np.ndarray, x: np.ndarray, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    top = np.array([rng.uniform(60, 120), rng.uniform(130, 170), rng.uniform(215, 245)])
    haze = (y / size[0])[..., None] * rng.uniform(60, 160)
    clouds = np.clip(_smooth_noise(size, 32, rng), 0, 1)[..., None] * rng.uniform(0, 90)
    return np.clip(top + haze + clouds, 0, 250)


def _grass(
    y: np.ndarray, x: np.ndarray, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    base = np.array([rng.uniform(50, 100), rng.uniform(115, 160), rng.uniform(30, 60)])
    blades = rng.normal(0, 18, size)
    return base + (blades + 22 * _smooth_noise(size, 12, rng))[..., None]


def _water(
    y: np.ndarray, x: np.ndarray, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    base = np.array([rng.uniform(10, 40), rng.uniform(65, 100), rng.uniform(125, 175)])
    phase = 2 * np.pi * (y / rng.uniform(6, 9) + 0.5 * _smooth_noise(size, 20, rng) + x / 60)
    return base + 22 * np.sin(phase)[..., None] + 8 * _smooth_noise(size, 6, rng)[..., None]


def _brick(
    y: np.ndarray, x: np.ndarray, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    tall, wide = rng.integers(7, 11), rng.integers(16, 23)
    row = y // tall
    column = (x + row % 2 * (wide // 2)) // wide
    mortar = (y % tall == 0) | ((x + row % 2 * (wide // 2)) % wide == 0)
    base = np.array([rng.uniform(135, 170), rng.uniform(70, 95), rng.uniform(50, 75)])
    tints = rng.normal(0, 14, (row.max() + 1, column.max() + 1))
    bricks = base + tints[row, column][..., None]
    return np.where(mortar[..., None], 185.0, bricks)


_TEXTURES = {"sky": _sky, "grass": _grass, "water": _water, "brick": _brick}


def _shape_coverage(
    name: str, size: tuple[int, int], rng: np.random.Generator
) -> tuple[tuple[slice, slice], np.ndarray]:
    """How much of each pixel a shape of random place, size and turn covers.

    Returns:
        The part of the image that holds the shape, and of its pixels floats in [0, 1].
    """
    scale = min(size) / 128
    radius = rng.uniform(13, 35) * scale
    center = rng.uniform(0.05, 0.95, 2) * size
    turn = rng.uniform(-np.pi, np.pi)
    first = np.maximum(center - radius - 2, 0).astype(int)  # its tips reach 1.5 pixels further
    last = np.clip(np.ceil(center + radius + 2), 0, size).astype(int)
    part = slice(first[0], last[0]), slice(first[1], last[1])
    y, x = np.ogrid[part]
    dy, dx = y + 0.5 - center[0], x + 0.5 - center[1]
    distance, angle = np.hypot(dy, dx), np.arctan2(dy, dx) + turn
    if name == "circle":
        outside = distance - radius
    elif name == "star":
        outside = _star_distance(distance, angle, radius)
    else:
        outside = _polygon_distance(distance, angle, radius, {"triangle": 3, "square": 4}[name])
    return part, np.clip(0.5 - outside, 0, 1)


def _polygon_distance(
    distance: np.ndarray, angle: np.ndarray, radius: float, sides: int
) -> np.ndarray:
    """How far outside the nearest side of a regular polygon (negative inside), in pixels."""
    half = np.pi / sides
    folded = (angle + half) % (2 * half) - half
    return distance * np.cos(folded) - radius * np.cos(half)


def _star_distance(distance: np.ndarray, angle: np.ndarray, radius: float) -> np.ndarray:
    """As `_polygon_distance`, for a star of five points."""
    half = np.pi / 5
    folded = np.abs((angle + half) % (2 * half) - half)
    # The side runs from the tip (radius, 0) to the notch at the angle `half`.
    notch = 0.42 * radius * np.array([np.cos(half), np.sin(half)])
    side = notch - (radius, 0.0)
    normal = np.array([side[1], -side[0]]) / np.hypot(*side)
    return (distance * np.cos(folded) - radius) * normal[0] + distance * np.sin(folded) * normal[1]


def _leaves_enough(ids: np.ndarray, covered: np.ndarray, category_ids: Collection[int]) -> bool:
    """Whether the shape shows, and leaves of what it covers a part that can be recognised.

    `covered` are the ids that it covers.
    """
    smallest = ids.size // 160
    if covered.size < smallest:
        return False
    before = np.bincount(ids.ravel(), minlength=len(category_ids) + 1)
    after = before - np.bincount(covered, minlength=before.size)
    hidden = before > after
    return bool(np.all(after[hidden] >= np.maximum(smallest, 0.6 * before[hidden])))


def _wave(
    along: np.ndarray, length: float, amplitude: float, rng: np.random.Generator
) -> np.ndarray:
    """A smooth curve of a few random waves, in pixels."""
    waves = [
        np.sin(2 * np.pi * (frequency * along / length + rng.random())) / frequency
        for frequency in (1, 2, 5)
    ]
    return np.asarray(amplitude * sum(waves))


def _smooth_noise(size: tuple[int, int], cell: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of about unit variance that varies over `cell` pixels, float `[H, W]`."""
    coarse = rng.normal(0, 1, (size[0] // cell + 2, size[1] // cell + 2)).astype(np.float32)
    return np.asarray(
        Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC), np.float64
    )


def _hsv_color(hue: float, saturation: float, value: float) -> np.ndarray:
    """RGB `[3]`, 0-255."""
    sectors = np.abs((hue + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1
    return 255 * value * (1 - saturation * (1 - np.clip(sectors, 0, 1)))
