"""A small data set in the COCO panoptic format, made to measure."""

import json

import numpy as np
from PIL import Image

from tf_panoptic_fpn.formats.coco_panoptic import read_coco_panoptic
from tf_panoptic_fpn.formats.panoptic_png import write_panoptic_png

WALL, CAR, PERSON, SKY = 1, 3, 7, 9


class TinyDataset:
    """Images are added one at a time; `tree` is the JSON, for a test to spoil before `read`."""

    def __init__(self, folder):
        self.images_dir = folder / "images"
        self.panoptic_dir = folder / "panoptic"
        self.json_path = folder / "panoptic.json"
        self.images_dir.mkdir()
        self.panoptic_dir.mkdir()
        categories = ((SKY, "sky", 0), (CAR, "car", 1), (WALL, "wall", 0), (PERSON, "person", 1))
        self.tree = {
            "images": [],
            "annotations": [],
            "categories": [{"id": i, "name": name, "isthing": t} for i, name, t in categories],
        }

    def add(self, ids, categories, crowd=(), image=None):
        """Adds an image: its map of ids `[H, W]`, and a dict of segment id -> category id."""
        ids = np.asarray(ids)
        number = len(self.tree["images"])
        if image is None:
            image = np.random.default_rng(number).integers(0, 256, (*ids.shape, 3), np.uint8)
        name, png_name = f"{number}.png", f"{number}_map.png"
        Image.fromarray(image).save(self.images_dir / name)
        write_panoptic_png(ids, self.panoptic_dir / png_name)
        height, width = ids.shape
        self.tree["images"].append(
            {"id": 100 + number, "file_name": name, "height": height, "width": width}
        )
        segments = [
            {
                "id": segment_id,
                "category_id": category_id,
                "iscrowd": int(segment_id in crowd),
                "area": int((ids == segment_id).sum()),
                "bbox": [0, 0, width, height],
            }
            for segment_id, category_id in categories.items()
        ]
        annotation = {"image_id": 100 + number, "file_name": png_name, "segments_info": segments}
        self.tree["annotations"].append(annotation)
        return image

    def add_plain(self, height, width):
        """Adds an image of sky over wall with a car in the middle."""
        ids = np.where(np.arange(height)[:, None] < height // 2, 1, 2) + np.zeros((1, width), int)
        ids[height // 4 : height // 2 + 2, width // 4 : width // 2] = 3
        return self.add(ids, {1: SKY, 2: WALL, 3: CAR})

    def read(self):
        self.json_path.write_text(json.dumps(self.tree))
        return read_coco_panoptic(self.images_dir, self.json_path, self.panoptic_dir)
