from .config import Config, load_config
from .errors import ConfigError, DataError, PanopticError
from .inference.load_predictor import load_predictor
from .models.build_model import build_model, load_model
from .models.panoptic_fpn import PanopticFPN
from .results.result import Result
from .weights.zoo import from_pretrained

__version__: str

__all__ = [
    "Config",
    "ConfigError",
    "DataError",
    "PanopticError",
    "PanopticFPN",
    "Result",
    "build_model",
    "from_pretrained",
    "load_config",
    "load_model",
    "load_predictor",
]
