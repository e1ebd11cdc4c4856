"""The plain-text table, character by character."""

from tf_panoptic_fpn.evaluation.instance_ap import METRICS
from tf_panoptic_fpn.evaluation.report import format_table

RESULTS = {
    "panoptic": {
        "All": {"PQ": 0.36449, "SQ": 0.468, "RQ": 0.477, "n": 2},
        "Things": {"PQ": 0.36449, "SQ": 0.468, "RQ": 0.477, "n": 2},
        "Stuff": {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0, "n": 0},
        "per_class": {
            "cat": {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0, "tp": 0, "fp": 12, "fn": 0},
            "traffic light": {"PQ": 1.0, "SQ": 1.0, "RQ": 1.0, "tp": 7, "fp": 0, "fn": 0},
            "snow": {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0, "tp": 0, "fp": 0, "fn": 0},
        },
    },
    "box_ap": {**dict.fromkeys(METRICS, 0.5), "APl": None},
    "mask_ap": dict.fromkeys(METRICS, 0.25),
    "semantic": {"mIoU": 0.4836, "pixel_accuracy": None, "per_class": {}},
    "images": 101,
    "seconds_per_image": 0.75,
}

EXPECTED = """\
Panoptic    PQ    SQ    RQ  classes
All       36.4  46.8  47.7        2
Things    36.4  46.8  47.7        2
Stuff        -     -     -        0

Instances    AP  AP50  AP75   APs   APm   APl   AR1  AR10  AR100
Box        50.0  50.0  50.0  50.0  50.0     -  50.0  50.0   50.0
Mask       25.0  25.0  25.0  25.0  25.0  25.0  25.0  25.0   25.0

Semantic  mIoU  pixel accuracy
All       48.4               -

Class             PQ     SQ     RQ  tp  fp  fn
traffic light  100.0  100.0  100.0   7   0   0
cat              0.0    0.0    0.0   0  12   0

101 images, 0.750 s an image"""


def test_table():
    assert format_table(RESULTS) == EXPECTED
