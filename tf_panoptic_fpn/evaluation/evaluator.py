"""Scores a predictor on a data set: panoptic quality, box and mask AP, semantic IoU."""

import collections
import concurrent.futures
import json
import pathlib
import statistics
import time

import numpy as np
from PIL import Image

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.data.images import write_panoptic_png
from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.evaluation.instance_ap import InstanceAP, instance_results
from tf_panoptic_fpn.evaluation.panoptic_quality import PanopticQuality
from tf_panoptic_fpn.evaluation.semantic_iou import SemanticIoU
from tf_panoptic_fpn.visualize import draw_panoptic, side_by_side

MAX_PENDING = 4  # predictions that wait for the scoring thread; bounds the memory


def evaluate(
    predictor,
    samples,
    categories,
    output_dir=None,
    num_overlays=8,
    semantic_things="other",
):
    """Scores a predictor at the size of the images.

    While the predictor works on an image, a second thread scores those before it.

    Args:
        predictor: function of a uint8 `[H, W, 3]` image; returns a dict of arrays: the merge's part
            (`panoptic_map`, `category_ids`, `is_thing`, `scores`, `areas`, `boxes`,
            `num_segments`; see `schema`), `instances` (dict `boxes` `[D, 4]` in pixels of the
            image, `scores`, `classes`, `mask_probs`, `num_detections`) and `semantic_map`, int32
            `[H, W]`, the semantic class of each pixel. A predictor of one task leaves out either
            of the last two.
        samples: iterable of (record, image uint8 `[H, W, 3]`, ids int32 `[H, W]`); the record has
            `image_id`, `file_name`, `height`, `width` and `segments`, each with `id`,
            `category_id`, `is_crowd`.
        categories: `CategoryTable`.
        output_dir: folder to write to: `panoptic.json` and `panoptic/*.png` (COCO panoptic
            results), `instances.json` (COCO instance results) and `overlays/*.jpg`. None: nothing.
        num_overlays: number of images, from the first, to draw beside their ground truth.
        semantic_things: "other" or "all", see `CategoryTable.semantic_classes`.

    Returns:
        dict: `panoptic` (see `PanopticQuality.result`), `box_ap` and `mask_ap` (see `coco_ap`),
        `semantic` (see `SemanticIoU.result`), `images`, and `seconds_per_image`, the median time of
        the predictor alone; without what the predictor leaves out.

    Raises:
        DataError: if there is no sample, or a sample and its prediction differ in size.
    """
    scores = _Scores(categories, semantic_things)
    output = _Output(output_dir, categories, num_overlays) if output_dir is not None else None

    def score(record, image, ids, prediction):
        gt_segments, pred_segments, results = scores.add(record, ids, prediction)
        if output:
            pred_ids = prediction[schema.PANOPTIC_MAP]
            output.add(record, image, (ids, gt_segments), (pred_ids, pred_segments), results)

    seconds, pending = [], collections.deque()
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as worker:
        for record, image, ids in samples:
            start = time.perf_counter()
            prediction = predictor(image)
            seconds.append(time.perf_counter() - start)
            pending.append(worker.submit(score, record, image, ids, prediction))
            if len(pending) > MAX_PENDING:
                pending.popleft().result()
        for future in pending:
            future.result()
    if not seconds:
        raise DataError("Evaluation needs at least one image. Received: none")
    if output:
        output.write_json()
    timing = {"images": len(seconds), "seconds_per_image": statistics.median(seconds)}
    return {**scores.result(), **timing}


class _Scores:
    """The metrics, fed with predictions in the format of the predictor."""

    def __init__(self, categories, semantic_things):
        self._categories = categories
        self._panoptic = PanopticQuality(categories)
        self._instances = InstanceAP(categories)
        self._semantic_classes = categories.semantic_classes(semantic_things)
        names = {self._semantic_classes[c]: name for c, name in categories.unique_names.items()}
        if semantic_things == "other":
            names[0] = "other (things)"  # a category may itself be called "other"
        self._semantic = SemanticIoU([names[s] for s in sorted(names)])
        self._has_instances = self._has_semantic = False

    def add(self, record, ids, prediction):
        """Returns the ground-truth segments, the predicted segments and the COCO results."""
        gt_segments = [
            {"id": s.id, "category_id": s.category_id, "iscrowd": int(s.is_crowd)}
            for s in record.segments
        ]
        pred_segments = segments_info(prediction)
        self._panoptic.update(
            ids,
            gt_segments,
            prediction[schema.PANOPTIC_MAP],
            pred_segments,
            image=record.file_name,
        )
        results = []
        if schema.SEMANTIC_MAP in prediction:
            self._has_semantic = True
            gt_semantic = _semantic_map(ids, gt_segments, self._semantic_classes)
            pred_semantic = prediction[schema.SEMANTIC_MAP]
            self._semantic.update(gt_semantic, pred_semantic, image=record.file_name)
        if schema.INSTANCES in prediction:
            self._has_instances = True
            results = self._instance_results(record, prediction[schema.INSTANCES])
            self._instances.update(record.image_id, ids, gt_segments, results)
        return gt_segments, pred_segments, results

    def result(self):
        return {
            "panoptic": self._panoptic.result(),
            **(self._instances.result() if self._has_instances else {}),
            **({"semantic": self._semantic.result()} if self._has_semantic else {}),
        }

    def _instance_results(self, record, instances):
        valid = slice(int(instances[schema.NUM_DETECTIONS]))
        thing_ids = np.asarray(self._categories.thing_ids, np.int64)
        return instance_results(
            record.image_id,
            instances[schema.BOXES][valid],
            instances[schema.SCORES][valid],
            thing_ids[instances[schema.CLASSES][valid]],
            instances[schema.MASK_PROBS][valid],
            (record.height, record.width),
        )


class _Output:
    """The files of an evaluation."""

    def __init__(self, output_dir, categories, num_overlays):
        self._folder = pathlib.Path(output_dir)
        self._categories = categories
        self._overlays_left = num_overlays
        self._images, self._annotations, self._results = [], [], []
        self._stems = set()
        (self._folder / "panoptic").mkdir(parents=True, exist_ok=True)
        (self._folder / "overlays").mkdir(exist_ok=True)

    def add(self, record, image, truth, prediction, results):
        """Writes the PNG and the overlay of one image; `truth`, `prediction`: (ids, segments)."""
        stem = self._unique_stem(record)
        pred_ids, pred_segments = prediction
        write_panoptic_png(pred_ids, self._folder / "panoptic" / f"{stem}.png")
        self._images.append(
            {
                "id": record.image_id,
                "file_name": record.file_name,
                "height": record.height,
                "width": record.width,
            }
        )
        self._annotations.append(
            {
                "image_id": record.image_id,
                "file_name": f"{stem}.png",
                "segments_info": pred_segments,
            }
        )
        self._results.extend(results)
        if self._overlays_left > 0:
            self._overlays_left -= 1
            pictures = [
                draw_panoptic(image, ids, segments, self._categories)
                for ids, segments in (prediction, truth)
            ]
            picture = side_by_side(pictures, [f"prediction: {record.file_name}", "ground truth"])
            Image.fromarray(picture).save(self._folder / "overlays" / f"{stem}.jpg", quality=92)

    def write_json(self):
        """Writes `panoptic.json` and `instances.json`."""
        panoptic = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": self._categories.to_coco(),
        }
        (self._folder / "panoptic.json").write_text(json.dumps(panoptic))
        (self._folder / "instances.json").write_text(json.dumps(self._results))

    def _unique_stem(self, record):
        """Flattens `folder/name.jpg` to `folder_name`, so that nothing lands outside the folder."""
        stem = record.file_name.rsplit(".", 1)[0].strip("/").replace("/", "_")
        if stem in self._stems:
            stem = f"{stem}_{record.image_id}"
        self._stems.add(stem)
        return stem


def segments_info(prediction):
    """Lists the segments of a merged prediction as COCO panoptic results do.

    Args:
        prediction: dict of arrays, the merge's part of `schema`.

    Returns:
        list of dicts `id`, `category_id`, `area`, `bbox` (xywh) and, for things, `score`.
    """
    segments = []
    for row in range(int(prediction[schema.NUM_SEGMENTS])):
        y1, x1, y2, x2 = (float(value) for value in prediction[schema.BOXES][row])
        segment = {
            "id": row + 1,
            "category_id": int(prediction[schema.CATEGORY_IDS][row]),
            "area": int(prediction[schema.AREAS][row]),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
        }
        if prediction[schema.IS_THING][row]:
            segment["score"] = float(prediction[schema.SCORES][row])
        segments.append(segment)
    return segments


def _semantic_map(ids, segments, semantic_class):
    """Semantic classes `[H, W]` of a panoptic map; void, the id 0, is ignored."""
    classes = {0: schema.IGNORED, **{s["id"]: semantic_class[s["category_id"]] for s in segments}}
    keys = np.array(sorted(classes))
    return np.array([classes[key] for key in keys.tolist()])[np.searchsorted(keys, ids)]
