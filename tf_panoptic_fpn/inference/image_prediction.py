"""What was predicted for one image, as files and metrics take it."""

import dataclasses

import numpy as np

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.metrics.instance_ap import instance_results


@dataclasses.dataclass(frozen=True)
class ImagePrediction:
    """What was predicted for one image, as its files hold it.

    `ids` int `[H, W]` and `segments`, the panoptic map and its list; `results`, COCO instance
    results, or None; `semantic` int `[H, W]`, the semantic class of each pixel, or None;
    `detections`, the predictor's INSTANCES where they are to be merged again, or None; `seconds`,
    the predictor's time.
    """

    ids: np.ndarray
    segments: list
    results: list | None
    semantic: np.ndarray | None
    detections: dict | None
    seconds: float


def image_prediction(record, outputs, seconds, categories, keep_detections=False):
    """Makes an `ImagePrediction` of what a predictor returns.

    Args:
        record: the image's, with `image_id`, `height` and `width`.
        outputs: dict of arrays, see `evaluator.evaluate`.
        seconds: float, the predictor's time.
        categories: `CategoryTable`.
        keep_detections: bool, whether they are to be merged again.
    """
    instances = outputs.get(schema.INSTANCES)
    results = None
    if instances is not None:
        valid = slice(int(instances[schema.NUM_DETECTIONS]))
        thing_ids = np.asarray(categories.thing_ids, np.int64)
        results = instance_results(
            record.image_id,
            instances[schema.BOXES][valid],
            instances[schema.SCORES][valid],
            thing_ids[instances[schema.CLASSES][valid]],
            instances[schema.MASK_PROBS][valid],
            (record.height, record.width),
        )
    return ImagePrediction(
        outputs[schema.PANOPTIC_MAP],
        segments_info(outputs),
        results,
        outputs.get(schema.SEMANTIC_MAP),
        instances if keep_detections else None,
        seconds,
    )


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
