from .convert import convert_weights
from .detectron2 import load_detectron2
from .initial_weights import load_initial_weights
from .keras_applications import load_keras_applications
from .mmdet import load_mmdet
from .report import ImportReport, WeightsError
from .source import PREDICTORS
from .tf_panoptic_fpn import load_tf_panoptic_fpn
from .torchvision import load_torchvision
from .zoo import MODEL_ZOO, from_pretrained

__all__ = [
    "MODEL_ZOO",
    "PREDICTORS",
    "ImportReport",
    "WeightsError",
    "convert_weights",
    "from_pretrained",
    "load_detectron2",
    "load_initial_weights",
    "load_keras_applications",
    "load_mmdet",
    "load_tf_panoptic_fpn",
    "load_torchvision",
]
