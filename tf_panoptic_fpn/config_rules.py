"""What the values of a configuration must be."""

from tf_panoptic_fpn.errors import ConfigError

BACKBONES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "resnext152_32x8d",
)
NORMS = ("frozen_affine", "group_norm", "sync_batch_norm")
TASKS = ("instance", "semantic")
SEMANTIC_DESIGNS = ("staged", "two_conv")
SEMANTIC_FUSIONS = ("sum", "concat")
SEMANTIC_THINGS = ("other", "all")
MOMENTUM_STYLES = ("torch", "keras")
SHORT_SIDE_SAMPLINGS = ("choice", "range")
SCALE_BASES = ("image", "crop")
LOSS_SCHEDULES = ("combined", "alternating")
# Format of a split: the sets of paths of which one must be given, and no others.
SPLIT_KEYS = {
    "coco_panoptic": (
        {"images", "panoptic_json", "panoptic_dir"},
        {"images", "panoptic_json", "panoptic_dir", "instances_json"},
    ),
    "coco_instances": ({"images", "instances_json"},),
    "coco_stuff": ({"images", "instances_json", "label_dir"},),
    "cityscapes": ({"images", "label_dir"}, {"images", "panoptic_json", "panoptic_dir"}),
    "label_maps": ({"images", "label_dir", "categories"},),
}
SPLIT_PATHS = (
    "images",
    "panoptic_json",
    "panoptic_dir",
    "instances_json",
    "label_dir",
    "categories",
)
# Formats that have the ground truth of one task only.
SINGLE_TASKS = {"coco_instances": ("instance",), "label_maps": ("semantic",)}
WEIGHT_SOURCES = ("detectron2", "torchvision", "mmdet", "keras_applications", "tf_panoptic_fpn")


def check(config, path):
    """Raises ConfigError, naming the file and the key, for the first value that breaks a rule.

    Args:
        config: `Config`.
        path: its file, for the message.
    """
    rules = [
        *_model_rules(config.model),
        *_train_rules(config.train, config.model),
        *_data_rules(config.data, config.train),
        *(_shapes_rules(config.data.shapes) if config.data.shapes is not None else ()),
        *_split_rules("data.train", config.data.train, config.model),
        *_split_rules("data.validation", config.data.validation, config.model),
        *_augment_rules(config.data.augment),
        (
            not config.data.validation.records,
            "data.validation.records",
            "left out: records are for training",
            config.data.validation.records,
        ),
        *_optimizer_rules(config.optimizer),
        *_merge_rules(config.merge),
        *_size_rules("tta", config.tta),
    ]
    for holds, name, rule, value in rules:
        if not holds:
            raise ConfigError(f"{path}: `{name}` must be {rule}. Received: {value!r}")


def _model_rules(model):
    choices = {
        "backbone": BACKBONES,
        "norm": NORMS,
        "semantic_design": SEMANTIC_DESIGNS,
        "semantic_fuse": SEMANTIC_FUSIONS,
        "semantic_things": SEMANTIC_THINGS,
    }
    rules = [
        (getattr(model, key) in values, f"model.{key}", f"one of {values}", getattr(model, key))
        for key, values in choices.items()
    ]
    tasks, groups = model.tasks, model.fpn_groups
    known = bool(tasks) and sorted(tasks) == sorted(set(tasks) & set(TASKS))
    return [
        *rules,
        (known, "model.tasks", f"one or both of {TASKS}", tasks),
        (
            model.num_thing_classes > 0 or "instance" not in tasks,
            "model.num_thing_classes",
            "above 0 with the task instance",
            model.num_thing_classes,
        ),
        (
            model.num_stuff_classes > 0
            or "semantic" not in tasks
            or model.semantic_things == "all",
            "model.num_stuff_classes",
            "above 0 with the task semantic",
            model.num_stuff_classes,
        ),
        (
            min(model.num_thing_classes, model.num_stuff_classes) >= 0,
            "model.num_thing_classes and model.num_stuff_classes",
            "0 or above",
            (model.num_thing_classes, model.num_stuff_classes),
        ),
        (
            groups == 1 or groups == len(tasks) == 2,
            "model.fpn_groups",
            "1, or 2 with both tasks",
            groups,
        ),
        (0 <= model.freeze_at <= 5, "model.freeze_at", "in [0, 5]", model.freeze_at),
        (
            groups < 1 or model.fpn_channels % groups == 0,
            "model.fpn_channels",
            "a multiple of fpn_groups",
            model.fpn_channels,
        ),
        (
            model.semantic_channels > 0 and model.semantic_channels % 32 == 0,
            "model.semantic_channels",
            "a multiple of 32",
            model.semantic_channels,
        ),
        (
            model.roi_sampling_ratio >= 0,
            "model.roi_sampling_ratio",
            "0 (adaptive) or above",
            model.roi_sampling_ratio,
        ),
        (model.lambda_instance >= 0, "model.lambda_instance", "0 or above", model.lambda_instance),
        (model.lambda_semantic >= 0, "model.lambda_semantic", "0 or above", model.lambda_semantic),
    ]


def _train_rules(train, model):
    return [
        (
            train.loss_schedule in LOSS_SCHEDULES,
            "train.loss_schedule",
            f"one of {LOSS_SCHEDULES}",
            train.loss_schedule,
        ),
        (
            train.initial_weights_source in WEIGHT_SOURCES,
            "train.initial_weights_source",
            f"one of {WEIGHT_SOURCES}",
            train.initial_weights_source,
        ),
        (
            train.loss_schedule == "combined" or len(model.tasks) == 2,
            "train.loss_schedule",
            "combined where model.tasks has a single one",
            train.loss_schedule,
        ),
        (train.steps > 0, "train.steps", "above 0", train.steps),
        (train.batch_size > 0, "train.batch_size", "above 0", train.batch_size),
        (train.replicas > 0, "train.replicas", "above 0", train.replicas),
        (
            train.batch_size % max(train.replicas, 1) == 0,
            "train.batch_size",
            f"a multiple of train.replicas ({train.replicas})",
            train.batch_size,
        ),
        (train.seed >= 0, "train.seed", "0 or above", train.seed),
        (train.checkpoint_every > 0, "train.checkpoint_every", "above 0", train.checkpoint_every),
        (train.log_every > 0, "train.log_every", "above 0", train.log_every),
    ]


def _data_rules(data, train):
    return [
        (
            not train.jit_compile or data.canvases,
            "data.canvases",
            "given with train.jit_compile: XLA compiles static shapes",
            data.canvases,
        ),
        (data.max_instances > 0, "data.max_instances", "above 0", data.max_instances),
        (
            0 <= data.max_damaged_share <= 1,
            "data.max_damaged_share",
            "in [0, 1]",
            data.max_damaged_share,
        ),
        (
            all(h % 32 == 0 and w % 32 == 0 and h > 0 and w > 0 for h, w in data.canvases),
            "data.canvases",
            "multiples of 32",
            data.canvases,
        ),
    ]


def _augment_rules(augment):
    name = "data.augment"
    scale, crop = augment.scale_range, augment.crop_size
    probabilities = ("crop_by_class_probability", "copy_paste_probability")
    return [
        (
            augment.short_side_sampling in SHORT_SIDE_SAMPLINGS,
            f"{name}.short_side_sampling",
            f"one of {SHORT_SIDE_SAMPLINGS}",
            augment.short_side_sampling,
        ),
        (
            not scale or (len(scale) == 2 and 0 < scale[0] <= scale[1]),
            f"{name}.scale_range",
            "two factors above 0 in ascending order, or empty",
            scale,
        ),
        (
            augment.scale_relative_to in SCALE_BASES,
            f"{name}.scale_relative_to",
            f"one of {SCALE_BASES}",
            augment.scale_relative_to,
        ),
        (
            augment.scale_relative_to == "image" or (scale and crop),
            f"{name}.scale_relative_to",
            "image without a scale_range and a crop_size",
            augment.scale_relative_to,
        ),
        (
            not crop or (len(crop) == 2 and min(crop) > 0),
            f"{name}.crop_size",
            "a height and a width above 0, or empty",
            crop,
        ),
        *(
            (0 <= getattr(augment, key) <= 1, f"{name}.{key}", "in [0, 1]", getattr(augment, key))
            for key in probabilities
        ),
        (
            crop or augment.crop_by_class_probability == 0,
            f"{name}.crop_by_class_probability",
            "0 without a crop_size",
            augment.crop_by_class_probability,
        ),
    ]


def _optimizer_rules(optimizer):
    return [
        (
            optimizer.momentum_style in MOMENTUM_STYLES,
            "optimizer.momentum_style",
            f"one of {MOMENTUM_STYLES}",
            optimizer.momentum_style,
        ),
        (
            optimizer.learning_rate > 0,
            "optimizer.learning_rate",
            "above 0",
            optimizer.learning_rate,
        ),
        (optimizer.clip_norm >= 0, "optimizer.clip_norm", "0 (off) or above", optimizer.clip_norm),
    ]


def _merge_rules(merge):
    return [
        (
            0 <= merge.score_threshold <= 1,
            "merge.score_threshold",
            "in [0, 1]",
            merge.score_threshold,
        ),
        (
            0 <= merge.overlap_threshold <= 1,
            "merge.overlap_threshold",
            "in [0, 1]",
            merge.overlap_threshold,
        ),
        (merge.stuff_area >= 0, "merge.stuff_area", "0 or above", merge.stuff_area),
    ]


def _size_rules(name, section):
    sides = section.short_sides
    return [
        (sides and min(sides) > 0, f"{name}.short_sides", "a list of sides above 0", sides),
        (section.max_long_side > 0, f"{name}.max_long_side", "above 0", section.max_long_side),
    ]


def check_paths(split, name):
    """Raises ConfigError unless a split has the paths of its format, and no others.

    Args:
        split: `SplitConfig`.
        name: "train" or "validation".
    """
    given = {key for key in SPLIT_PATHS if getattr(split, key)}
    allowed = SPLIT_KEYS[split.format]
    if given in allowed or (split.records and not given):
        return
    closest = min(allowed, key=lambda keys: len(keys ^ given))
    missing, extra = sorted(closest - given), sorted(given - closest)
    if missing:
        raise ConfigError(
            f"`data.{name}.{missing[0]}` must be given with `format: {split.format}`, or "
            f"`data.shapes`"
        )
    raise ConfigError(
        f"`data.{name}.{extra[0]}` is not read with `format: {split.format}`. "
        f"Received: {getattr(split, extra[0])!r}"
    )


def _split_rules(name, split, model):
    tasks = SINGLE_TASKS.get(split.format, model.tasks)
    return [
        *_size_rules(name, split),
        (
            split.format in SPLIT_KEYS,
            f"{name}.format",
            f"one of {tuple(SPLIT_KEYS)}",
            split.format,
        ),
        (
            model.tasks == tasks,
            "model.tasks",
            f"{list(tasks)} with {name}.format: {split.format}",
            model.tasks,
        ),
        (
            0 <= split.flip_probability <= 1,
            f"{name}.flip_probability",
            "in [0, 1]",
            split.flip_probability,
        ),
    ]


def _shapes_rules(shapes):
    counts = {name: getattr(shapes, name) for name in ("train_images", "validation_images")}
    return [
        *((n > 0, f"data.shapes.{name}", "above 0", n) for name, n in counts.items()),
        (
            min(shapes.image_size) >= 64,
            "data.shapes.image_size",
            "at least 64x64",
            shapes.image_size,
        ),
        (shapes.seed >= 0, "data.shapes.seed", "0 or above", shapes.seed),
    ]
