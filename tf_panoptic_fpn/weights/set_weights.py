"""Sets a model's weights from a checkpoint, all of them or none."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from keras import ops, tree

from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN
from tf_panoptic_fpn.weights.detectron2_layout import weight_plan
from tf_panoptic_fpn.weights.mismatch import name_problems, shape_problems
from tf_panoptic_fpn.weights.pretrained import NEW
from tf_panoptic_fpn.weights.report import ImportReport, WeightsError
from tf_panoptic_fpn.weights.source import BOTTOM_UP, PREDICTORS, STEM, Source, matches

Patterns = str | Iterable[str]

SELF_CHECK_SIZE = 64


def set_weights(
    model: PanopticFPN,
    source: Source,
    allow_missing: Patterns = (),
    allow_left_over: Patterns = (),
    skip: Patterns = (),
    allow_config: Patterns = (),
) -> ImportReport:
    """Sets a model's weights from a `Source`, prints the report and returns it.

    A source without anything but a backbone sets the backbone; the heads keep their values and are
    reported as missing.

    Args:
        model: a `PanopticFPN`.
        source: a `Source`.
        allow_missing: patterns (`fnmatch`) of the model's weights that may be absent from the
            source, such as "semantic_head/*" for a Mask R-CNN.
        allow_left_over: patterns of names in the source that may stay unused.
        skip: patterns of the model's weights that keep their values whatever the source holds,
            such as `weights.PREDICTORS` for other classes.
        allow_config: "pixel_mean" or "stride_in_1x1", where the model may differ from the source.

    Returns:
        An `ImportReport`.

    Raises:
        WeightsError: on any mismatch that is not allowed, or outputs that are not finite; the
            model is unchanged then.
    """
    _fit_pixel_std(model, source)
    match = _match(model, source, allow_missing, skip)
    left_over = {
        origin: source.arrays[name].shape
        for name in source.arrays
        if name not in match.used
        for origin in source.origins[name]
    }
    refused = [name for name in left_over if not matches(name, allow_left_over)]
    problems = [
        *_config_problems(model, source, allow_config),
        *shape_problems(match.misshapen),
        *name_problems("missing from the source", match.refused),
        *name_problems("left over in the source", refused),
        *name_problems("not finite", match.not_finite),
    ]
    if problems:
        hints = _hints(source, match, refused)
        raise WeightsError("the weights do not fit the model: " + "; ".join([*problems, *hints]))
    check = _assign(model, match.values)
    report = ImportReport(
        tuple(match.matched),
        tuple(sorted(left_over.items())),
        tuple(sorted(match.missing.items())),
        tuple(sorted(source.unused.items())),
        (*source.notes, check),
    )
    print(report)
    return report


@dataclasses.dataclass
class _Match:
    """The plan of a model held against a source."""

    values: list = dataclasses.field(default_factory=list)  # (variable, value)
    matched: list = dataclasses.field(default_factory=list)  # (path, origins, shape)
    misshapen: list = dataclasses.field(default_factory=list)  # (path, wanted, received, origins)
    missing: dict = dataclasses.field(default_factory=dict)  # path -> shape
    refused: list = dataclasses.field(default_factory=list)  # missing, and not allowed to be
    not_finite: dict = dataclasses.field(default_factory=dict)  # names in the source, in order
    used: set = dataclasses.field(default_factory=set)


def _match(model: PanopticFPN, source: Source, allow_missing: Patterns, skip: Patterns) -> _Match:
    match = _Match()
    backbone_only = all(name.startswith(BOTTOM_UP) for name in source.arrays)
    if backbone_only:
        source.notes.append("The source holds a backbone only; the rest keeps its values.")
    for variable, names, convert in weight_plan(model):
        path, shape = variable.path, tuple(variable.shape)
        absent = [name for name in names if name not in source.arrays]
        if matches(path, skip):
            match.used.update(names)
            match.missing[path] = shape
            continue
        if absent:
            match.missing[path] = shape
            # Offsets start at zero in the backbone of a classifier, and a simple pyramid is new.
            is_new = not names[0].startswith(BOTTOM_UP) or "_offset." in names[0]
            is_new |= names[0].startswith(NEW)
            if not (matches(path, allow_missing) or (backbone_only and is_new)):
                match.refused.append(path)
            continue
        match.used.update(names)
        origins = tuple(origin for name in names for origin in source.origins[name])
        arrays = [source.arrays[name] for name in names]
        for name in names:
            if not finite(source.arrays[name]):
                match.not_finite.update(dict.fromkeys(source.origins[name]))
        try:
            value = np.asarray(convert(*arrays))
        except ValueError:  # an array of another rank, or one that cannot be cut in groups
            value = arrays[0]
        if value.shape != shape:
            match.misshapen.append((path, shape, value.shape, origins))
            continue
        match.matched.append((path, origins, shape))
        match.values.append((variable, value.astype(variable.dtype)))
    return match


def finite(array: np.ndarray) -> bool:
    """Whether no number is infinite or undefined."""
    return bool(np.all(np.isfinite(array)))


def _fit_pixel_std(model: PanopticFPN, source: Source) -> None:
    """Scales the stem where the source divides pixels by another deviation; exact."""
    expected = source.expects.get("pixel_std")
    if expected is None or STEM not in source.arrays or np.ndim(source.arrays[STEM]) != 4:
        return
    ratio = np.asarray(model.config["pixel_std"]) / np.asarray(expected)
    if source.arrays[STEM].shape[1] == 3 and not np.allclose(ratio, 1.0, rtol=1e-5):
        source.arrays[STEM] = source.arrays[STEM] * ratio[::-1, None, None]  # the stem reads BGR
        source.notes.append(
            f"The stem is scaled: the source divides pixels by {_numbers(expected)}, the model by "
            f"{_numbers(model.config['pixel_std'])}."
        )


def _numbers(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _config_problems(model: PanopticFPN, source: Source, allow_config: Patterns) -> Iterator[str]:
    expects = source.expects
    mean = expects.get("pixel_mean")
    if mean is not None and not np.allclose(model.config["pixel_mean"], mean, atol=0.01):
        difference = (
            f"the source was trained with pixel_mean {_numbers(mean)} and the model has "
            f"{_numbers(model.config['pixel_mean'])}"
        )
        if "pixel_mean" in allow_config:
            source.notes.append(f"Allowed: {difference}.")
        else:
            yield f"{difference} (set it, or name it in allow_config)"
    stride, backbone = expects.get("stride_in_1x1"), getattr(model.backbone, "config", {})
    bottlenecks = backbone.get("depth", 0) >= 50
    if stride is not None and bottlenecks and backbone["stride_in_1x1"] != stride:
        difference = (
            f"the source was trained with stride_in_1x1 {stride} and the model has {not stride}"
        )
        if "stride_in_1x1" in allow_config:
            source.notes.append(f"Allowed: {difference}.")
        else:
            yield f"{difference} (set it, or name it in allow_config)"


def _hints(source: Source, match: _Match, left_over: list[str]) -> Iterator[str]:
    """How to load the rest, where the mismatch is a usual one."""
    paths = [path for path, *_ in match.misshapen]
    if paths and all(matches(path, PREDICTORS) for path in paths):
        yield (
            "the number of classes differs; to load all but the predictors, pass "
            "skip=tf_panoptic_fpn.weights.PREDICTORS (--skip-predictors on the command line)"
        )
    if match.refused and all(path.startswith("semantic_head/") for path in match.refused):
        yield "for a source without a semantic branch, pass allow_missing=('semantic_head/*',)"
    if left_over and not match.refused and not paths:
        yield "to leave names of the source unused, pass them in allow_left_over"


def _assign(model: PanopticFPN, values: list[tuple[Any, np.ndarray]]) -> str:
    """Sets the variables and runs the model once; puts the old values back if that fails."""
    old = [(variable, ops.convert_to_numpy(variable)) for variable, _ in values]
    problem = "interrupted"
    try:
        for variable, value in values:
            variable.assign(value)
        problem = _self_check(model)
    finally:
        if problem:
            for variable, value in old:
                variable.assign(value)
    if problem:
        raise WeightsError(f"the self-check failed, the model is unchanged: {problem}")
    return f"Self-check: finite outputs on a {SELF_CHECK_SIZE}x{SELF_CHECK_SIZE} test image."


def _self_check(model: PanopticFPN) -> str:
    """Runs the model on a fixed image; returns which outputs are not finite, or ""."""
    axis = np.linspace(0.0, 255.0, SELF_CHECK_SIZE, dtype=np.float32)
    image = np.stack(np.broadcast_arrays(axis[:, None], axis[None], axis[::-1, None]), axis=-1)
    images = image[None]
    x, _ = model.normalize(images, None)
    features = model.fpn(model.backbone(x))
    results = {"features": features, **model(images)}
    return ", ".join(
        name
        for name, value in results.items()
        if not all(finite(ops.convert_to_numpy(leaf)) for leaf in tree.flatten(value))
    )
