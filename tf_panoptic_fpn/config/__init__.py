"""The configuration of a run: `Config`, one file a section, read from YAML by `load_config`."""

from tf_panoptic_fpn.config.data import AugmentConfig, DataConfig, ShapesConfig
from tf_panoptic_fpn.config.evaluate import EvaluateConfig
from tf_panoptic_fpn.config.loader import format_config, load_config, load_run_config, save_config
from tf_panoptic_fpn.config.merge import MergeConfig
from tf_panoptic_fpn.config.model import ModelConfig
from tf_panoptic_fpn.config.optimizer import OptimizerConfig
from tf_panoptic_fpn.config.recipes import list_recipes
from tf_panoptic_fpn.config.root import Config
from tf_panoptic_fpn.config.serve import ServeConfig
from tf_panoptic_fpn.config.train import TrainConfig
from tf_panoptic_fpn.config.tta import TTAConfig
from tf_panoptic_fpn.formats.split_config import SplitConfig

__all__ = [
    "AugmentConfig",
    "Config",
    "DataConfig",
    "EvaluateConfig",
    "MergeConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ServeConfig",
    "ShapesConfig",
    "SplitConfig",
    "TTAConfig",
    "TrainConfig",
    "format_config",
    "list_recipes",
    "load_config",
    "load_run_config",
    "save_config",
]
