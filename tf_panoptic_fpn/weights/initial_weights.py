"""The weights that a new training starts from."""

import dataclasses
import difflib
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.known_categories import known_tables
from tf_panoptic_fpn.weights.convert import open_source
from tf_panoptic_fpn.weights.match_classes import carry_over, match_classes, plain_name
from tf_panoptic_fpn.weights.pretrained import is_pretrained, pretrained_source
from tf_panoptic_fpn.weights.report import WeightsError
from tf_panoptic_fpn.weights.source import PREDICTORS, Source
from tf_panoptic_fpn.weights.tf_panoptic_fpn import is_keras_file
from tf_panoptic_fpn.weights.zoo import MODEL_ZOO, published_source
from tf_panoptic_fpn.workdir import Workdir

if TYPE_CHECKING:
    from tf_panoptic_fpn.config import TrainConfig
    from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN

# A task's weights: patterns in the model, and what their names start with in a source.
PARTS = {
    "instance": (
        ("rpn_head/*", "box_head/*", "mask_head/*"),
        ("proposal_generator.", "roi_heads."),
    ),
    "semantic": (("semantic_head/*",), ("sem_seg_head.",)),
}
HEADS = {"instance": "box and mask heads", "semantic": "semantic branch"}
# The predictors, whose rows are the classes of a task.
PREDICTOR = {
    "roi_heads.box_predictor.cls_score.bias": "instance",
    "roi_heads.box_predictor.0.cls_score.bias": "instance",  # of a cascade
    "sem_seg_head.predictor.bias": "semantic",
}
BY_NAME = (
    "`train.match_classes: by_name` carries over the classes of equal names, `none` starts all "
    "classes fresh"
)


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """What a training starts from, read and not yet set.

    Attributes:
        name: as it is in the configuration.
        source: `Source`.
        settings: `TrainConfig`.
        known: `CategoryTable` that lies beside the file, or is given; or None.
    """

    name: str
    source: Source
    settings: "TrainConfig"
    known: CategoryTable | None = None


def load_initial_weights(
    model: "PanopticFPN", settings: "TrainConfig", categories: CategoryTable | None = None
) -> None:
    """Sets a new model's weights from what a `TrainConfig` names, if anything.

    Args:
        model: a `PanopticFPN`.
        settings: `TrainConfig`.
        categories: `CategoryTable` of the data; needed for `match_classes: by_name`.

    Raises:
        WeightsError: if it cannot be read or does not fit.
    """
    initial = read_initial_weights(settings, model.config)
    if initial:
        set_initial_weights(model, initial, categories)


def read_initial_weights(
    settings: "TrainConfig", model_config: Mapping[str, Any]
) -> InitialWeights | None:
    """Reads what a training starts from, and compares its classes with the model's.

    Args:
        settings: `TrainConfig`. Its `initial_weights` is a name of `weights.MODEL_ZOO`, a file of
            any source, a `.keras`, the folder of a run, or of `weights.pretrained`.
        model_config: the arguments of the `PanopticFPN`.

    Returns:
        `InitialWeights`, or None where the training starts from scratch.

    Raises:
        WeightsError: if nothing can be read there, or the numbers of classes differ and
            `match_classes` is "same".
    """
    name = settings.initial_weights
    if not name:
        return None
    backbone = model_config.get("backbone", "")
    if is_pretrained(name, backbone):
        return InitialWeights(name, pretrained_source(name, backbone), settings)
    source, beside = _open(name, settings.initial_weights_source)
    if settings.match_classes == "same":
        _check_rows(name, source, model_config)
    return InitialWeights(name, source, settings, _own_categories(settings, source, beside))


def set_initial_weights(
    model: "PanopticFPN", initial: InitialWeights, categories: CategoryTable | None
) -> None:
    """Sets a new model's weights; prints the report, with the classes that are carried over.

    Args:
        model: a `PanopticFPN`.
        initial: `InitialWeights`.
        categories: `CategoryTable` of the data; None skips the comparison of names.

    Raises:
        WeightsError: if the weights, or with `match_classes: same` the classes, do not fit.
    """
    # Keras takes its seconds to import: after what may be refused without it.
    from tf_panoptic_fpn.weights.set_weights import set_weights

    source, settings = initial.source, initial.settings
    allowed: dict[str, Any] = {}
    if settings.match_classes == "same":
        if initial.known and categories:
            _check_same_names(initial, categories)
    else:
        allowed = _absent_parts(source, model.config)
    if settings.match_classes == "none":
        allowed["skip"] = PREDICTORS
    if settings.match_classes == "by_name" and predictor_rows(source):
        if categories is None:
            raise WeightsError("`train.match_classes: by_name` takes the categories of the data")
        theirs = initial.known or _taken_categories(initial)
        carry_over(source, model, match_classes(categories, theirs, settings.class_synonyms))
    set_weights(model, source, **allowed)


def predictor_rows(source: Source) -> dict[str, int]:
    """Dict: task -> rows of its predictor in a `Source`; empty for a backbone."""
    arrays = source.arrays
    return {task: len(arrays[name]) for name, task in PREDICTOR.items() if name in arrays}


def _open(name: str, source_name: str) -> tuple[Source, pathlib.Path | None]:
    """Returns the `Source` that a name stands for, and where its categories may lie."""
    if name in MODEL_ZOO:
        return published_source(name), None
    path = pathlib.Path(name)
    if path.is_dir():
        workdir = Workdir(path)
        if not workdir.config.is_file():
            raise WeightsError(
                f"{path}: `train.initial_weights` must be a file, the folder of a run or a "
                f"published model. Received: a folder without {workdir.config.name}"
            )
        try:
            workdir.check_trained()
        except ConfigError as error:
            raise WeightsError(str(error)) from None
        path = workdir.trained
    if not path.is_file():
        close = difflib.get_close_matches("/".join(path.parts[-2:]), MODEL_ZOO, n=1)
        hint = f"; did you mean the published model {close[0]}?" if close else ""
        raise WeightsError(f"{path}: no such file (`train.initial_weights`){hint}")
    told = source_name == "infer" or is_keras_file(path)
    return open_source(path, None if told else source_name), Workdir(path.parent).categories


def _check_rows(name: str, source: Source, model_config: Mapping[str, Any]) -> None:
    """Raises `WeightsError` unless a detector has the tasks and as many classes as the model."""
    received = predictor_rows(source)
    if not received:
        return
    things, stuff = model_config["num_thing_classes"], model_config["num_stuff_classes"]
    in_semantic = things if model_config["semantic_things"] == "all" else 1
    rows = {"instance": things + 1, "semantic": in_semantic + stuff}
    rows = {task: number for task, number in rows.items() if task in model_config["tasks"]}
    for task, head in HEADS.items():
        if (task in rows) != (task in received):
            where = "it has none and the model one" if task in rows else "the model has none"
            raise WeightsError(f"{name}: {head}: {where}; {BY_NAME}")
        if rows.get(task) != received.get(task):
            kind, background = ("thing", 1) if task == "instance" else ("semantic", 0)
            raise WeightsError(
                f"{name}: has {received[task] - background} {kind} classes, and the model "
                f"{rows[task] - background}; {BY_NAME}"
            )


def _check_same_names(initial: InitialWeights, categories: CategoryTable) -> None:
    """Raises `WeightsError` where a class of the checkpoint has another name in the data."""
    tasks = predictor_rows(initial.source)
    for task, kind in (("instance", "things"), ("semantic", "stuff")):
        if task not in tasks:
            continue
        pairs = zip(getattr(initial.known, kind), getattr(categories, kind), strict=False)
        for theirs, own in pairs:
            if plain_name(theirs.name) != plain_name(own.name):
                raise WeightsError(
                    f"{initial.name}: class {theirs.name!r} of its {kind} is {own.name!r} in the "
                    f"data; {BY_NAME}"
                )


def _absent_parts(source: Source, model_config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `set_weights` for heads that the source or the model lacks."""
    allow_missing: list[str] = []
    allow_left_over: list[str] = []
    for task, (patterns, starts) in PARTS.items():
        if not any(name.startswith(starts) for name in source.arrays):
            allow_missing += patterns
        if task not in model_config["tasks"]:
            allow_left_over += [f"{start}*" for start in starts]
    return {"allow_missing": allow_missing, "allow_left_over": allow_left_over}


def _own_categories(
    settings: "TrainConfig", source: Source, beside: pathlib.Path | None
) -> CategoryTable | None:
    """The categories that are given, which must fit, or that lie beside, if they do."""
    rows = predictor_rows(source)
    if not rows:
        return None
    if settings.initial_categories:
        table = CategoryTable.load(settings.initial_categories)
        fitted = _fitted(table, source)
        if fitted is None:
            raise WeightsError(
                f"{settings.initial_categories}: {len(table.things)} things and "
                f"{len(table.stuff)} stuff are not the classes of {settings.initial_weights}, "
                f"which has {_numbers(rows)}"
            )
        return fitted
    if beside is None or not beside.is_file():
        return None
    return _fitted(CategoryTable.load(beside), source)


def _taken_categories(initial: InitialWeights) -> CategoryTable:
    """The categories of the data set that has as many classes."""
    for title, table in known_tables():
        fitted = _fitted(table, initial.source)
        if fitted:
            initial.source.notes.append(f"As many classes as {title}, whose names are taken.")
            return fitted
    raise WeightsError(
        f"{initial.name}: brings no categories and is of no known data set; give them as "
        f"`train.initial_categories`. Received: {_numbers(predictor_rows(initial.source))}"
    )


def _fitted(table: CategoryTable, source: Source) -> CategoryTable | None:
    """A table with what the source's semantic branch predicts for things; None if it cannot fit."""
    rows = predictor_rows(source)
    if rows.get("instance") not in (None, len(table.things) + 1):
        return None
    saved = source.model_config
    for semantic_things in [saved["semantic_things"]] if saved else ["other", "all"]:
        fitted = table.with_semantic_things(semantic_things)
        if rows.get("semantic") in (None, fitted.num_semantic_things + len(table.stuff)):
            return fitted
    return None


def _numbers(rows: Mapping[str, int]) -> str:
    texts = {"instance": "{} thing classes and background", "semantic": "{} semantic classes"}
    counts = {"instance": rows.get("instance", 0) - 1, "semantic": rows.get("semantic", 0)}
    return " and ".join(texts[task].format(counts[task]) for task in rows)
