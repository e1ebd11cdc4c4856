"""The configuration: frozen dataclasses, a strict YAML loader and `--set a.b=value` overrides."""

import contextlib
import dataclasses
import difflib
import types
import typing

import yaml

from tf_panoptic_fpn.config_rules import TASKS, check
from tf_panoptic_fpn.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The arguments of `PanopticFPN`, one for one; see its docstring."""

    num_thing_classes: int = 80
    num_stuff_classes: int = 53
    tasks: tuple[str, ...] = TASKS
    backbone: str = "resnet50"
    norm: str = "frozen_affine"
    freeze_at: int = 2
    stride_in_1x1: bool = True
    fpn_channels: int = 256
    fpn_groups: int = 1
    semantic_channels: int = 128
    semantic_design: str = "staged"
    semantic_fuse: str = "sum"
    semantic_things: str = "other"
    box_head_units: int = 1024
    mask_head_channels: int = 256
    anchor_sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_top_k_train: tuple[int, int] = (2000, 1000)
    rpn_top_k_test: tuple[int, int] = (1000, 1000)
    rpn_nms_iou: float = 0.7
    rpn_samples: int = 256
    rois_per_image: int = 512
    roi_sampling_ratio: int = 0
    score_threshold: float = 0.05
    nms_iou: float = 0.5
    max_detections: int = 100
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    lambda_instance: float = 1.0
    lambda_semantic: float = 0.5


@dataclasses.dataclass(frozen=True)
class ShapesConfig:
    """The embedded data set: drawn shapes over textured stuff, written to `WORKDIR/shapes`."""

    train_images: int = 240
    validation_images: int = 40
    image_size: tuple[int, int] = (128, 160)
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """One split of a data set, and how its images are resized.

    `format` says which of the paths, taken from `data.root`, are read; see `SPLIT_KEYS` in
    `config_rules` and `docs/data_formats.md`. The shorter side of an image becomes one of
    `short_sides` (drawn at random for training, the first for validation), the longer is held to
    `max_long_side`. `records` is a folder of the command `write-records`, which training reads in
    place of the other paths.
    """

    format: str = "coco_panoptic"
    images: str = ""
    panoptic_json: str = ""
    panoptic_dir: str = ""
    instances_json: str = ""
    label_dir: str = ""
    categories: str = ""
    records: str = ""
    short_sides: tuple[int, ...] = (800,)
    max_long_side: int = 1333
    flip_probability: float = 0.0


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of the training images, beside `short_sides` and `flip_probability`.

    `short_side_sampling` draws one of the `short_sides` ("choice") or any side between the smallest
    and the largest ("range"). With `scale_range` an image is scaled by a factor drawn from it
    instead: of its own size, or of the largest size that fits the crop, by `scale_relative_to`
    ("image" or "crop"). `crop_size` is (height, width); a crop holds a pixel of a class drawn from
    those in the image with a probability of `crop_by_class_probability`, and lies anywhere
    otherwise. With a probability of `copy_paste_probability` about half of another image's
    instances are pasted in.
    """

    short_side_sampling: str = "choice"
    scale_range: tuple[float, ...] = ()
    scale_relative_to: str = "image"
    crop_size: tuple[int, ...] = ()
    crop_by_class_probability: float = 0.0
    color_distortion: bool = False
    copy_paste_probability: float = 0.0


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the images are and how they become batches.

    `canvases` are the static `(height, width)` that batches are padded to, the smallest that holds
    the batch; without any, a batch is padded to its own largest image, rounded up to 32.
    `index_cache` is the folder that the compiled annotations are kept in, by default
    `.panoptic_index` in `root`, or in the user's cache folder where that cannot be written to.
    Training stops where more than `max_damaged_share` of its images, and more than 3, are damaged.
    """

    root: str = ""
    index_cache: str = ""
    shapes: ShapesConfig | None = None
    train: SplitConfig = SplitConfig(
        short_sides=(640, 672, 704, 736, 768, 800), flip_probability=0.5
    )
    validation: SplitConfig = SplitConfig()
    augment: AugmentConfig = AugmentConfig()
    max_damaged_share: float = 0.01
    max_instances: int = 100
    canvases: tuple[tuple[int, int], ...] = ()


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Stochastic gradient descent; `momentum_style` is "torch" or "keras", see `SGD`."""

    learning_rate: float = 0.02
    momentum: float = 0.9
    momentum_style: str = "torch"
    weight_decay: float = 1e-4
    clip_norm: float = 0.0
    warmup_steps: int = 1000
    warmup_factor: float = 0.001
    drop_steps: tuple[int, ...] = (60000, 80000)
    drop_factor: float = 0.1


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The loop. `batch_size` is global; `replicas` counts logical CPU devices without a GPU.

    With `loss_schedule: alternating` the odd steps train on the instance losses and the even ones
    on the semantic loss. `initial_weights` is a checkpoint of another framework, named by
    `initial_weights_source`, that a new run starts from: as a rule that of a backbone.
    """

    steps: int = 90000
    loss_schedule: str = "combined"
    initial_weights: str = ""
    initial_weights_source: str = "detectron2"
    batch_size: int = 16
    replicas: int = 1
    seed: int = 0
    deterministic: bool = False
    jit_compile: bool = False
    checkpoint_every: int = 1000
    log_every: int = 20


@dataclasses.dataclass(frozen=True)
class MergeConfig:
    """The thresholds of the panoptic merge; all three keep at equality."""

    score_threshold: float = 0.5
    overlap_threshold: float = 0.5
    stuff_area: int = 4096


@dataclasses.dataclass(frozen=True)
class TTAConfig:
    """Test-time augmentation, where `evaluate --tta` asks for it: sizes, each also mirrored."""

    short_sides: tuple[int, ...] = (400, 500, 600, 700, 800, 900, 1000, 1100, 1200)
    max_long_side: int = 4000
    flip: bool = True


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that one run needs."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    merge: MergeConfig = MergeConfig()
    tta: TTAConfig = TTAConfig()


def load_config(path, overrides=()):
    """Reads a YAML configuration.

    Args:
        path: the YAML file; a key that it leaves out keeps its default.
        overrides: strings `a.b=value`, value in YAML, e.g. `"model.backbone=resnet101"`.

    Returns:
        A `Config`.

    Raises:
        ConfigError: naming the file and the key, if a key is unknown, a value has another type, or
            a value breaks a rule.
    """
    try:
        with open(path) as file:
            tree = yaml.safe_load(file) or {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    for override in overrides:
        tree = _with_override(tree, override)
    config = _build(Config, tree, path, "")
    check(config, path)
    return config


def save_config(config, path):
    """Writes a `Config` as YAML that `load_config` reads back equal."""
    with open(path, "w") as file:
        file.write(format_config(config))


def format_config(config):
    """Returns a `Config` as YAML."""
    return yaml.safe_dump(_plain(config), sort_keys=False)


def _plain(value):
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _with_override(tree, override):
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set takes a.b=value. Received: {override!r}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {key}: the value is not YAML. Received: {text!r}") from None
    parents, leaf = key.split(".")[:-1], key.split(".")[-1]
    tree = dict(tree) if isinstance(tree, dict) else tree
    node = tree
    for name in parents:
        child = node.get(name) or {} if isinstance(node, dict) else None
        if not isinstance(child, dict):
            raise ConfigError(f"--set {key}: `{name}` is not a section")
        node[name] = dict(child)
        node = node[name]
    node[leaf] = value
    return tree


def _build(kind, tree, path, prefix):
    """Builds the dataclass `kind` from a mapping; `prefix` is the dotted key of the mapping."""
    if not isinstance(tree, dict):
        where = f"`{prefix}`" if prefix else "the file"
        raise ConfigError(f"{path}: {where} must be a mapping. Received: {tree!r}")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in tree.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"; did you mean `{close[0]}`?" if close else ""
            raise ConfigError(f"{path}: unknown key `{name}`{hint}")
        default = fields[key].default
        values[key] = _convert(value, hints[key], default, path, name)
    return kind(**values)


def _convert(value, hint, default, path, name):
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(arm for arm in typing.get_args(hint) if arm is not type(None))
    if dataclasses.is_dataclass(hint):
        section = _build(hint, {} if value is None else value, path, name)
        if default is None or value is None:
            return section if value is not None else hint()
        named = {key: getattr(section, key) for key in value}
        return dataclasses.replace(default, **named)
    if typing.get_origin(hint) is tuple:
        arms = typing.get_args(hint)
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{path}: `{name}` must be a list. Received: {value!r}")
        if arms[-1] is Ellipsis:
            arms = (arms[0],) * len(value)
        if len(arms) != len(value):
            raise ConfigError(f"{path}: `{name}` must have {len(arms)} values. Received: {value!r}")
        pairs = zip(value, arms, strict=True)
        return tuple(
            _convert(v, arm, None, path, f"{name}[{i}]") for i, (v, arm) in enumerate(pairs)
        )
    if hint is float and isinstance(value, str):
        with contextlib.suppress(ValueError):  # YAML reads `1e-4`, without a dot, as text
            value = float(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint:
        raise ConfigError(f"{path}: `{name}` must be {hint.__name__}. Received: {value!r}")
    return value
