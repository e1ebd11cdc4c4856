"""Weights from elsewhere."""

from tf_panoptic_fpn.weights.convert import convert_weights
from tf_panoptic_fpn.weights.detectron2 import load_detectron2
from tf_panoptic_fpn.weights.keras_applications import load_keras_applications
from tf_panoptic_fpn.weights.mmdet import load_mmdet
from tf_panoptic_fpn.weights.plan import PREDICTORS
from tf_panoptic_fpn.weights.report import ImportReport, WeightsError
from tf_panoptic_fpn.weights.torchvision import load_torchvision
from tf_panoptic_fpn.weights.zoo import MODEL_ZOO, from_pretrained

__all__ = [
    "MODEL_ZOO",
    "PREDICTORS",
    "ImportReport",
    "WeightsError",
    "convert_weights",
    "from_pretrained",
    "load_detectron2",
    "load_keras_applications",
    "load_mmdet",
    "load_torchvision",
]
