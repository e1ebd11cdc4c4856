"""Rows of a checkpoint's predictors, carried over to the classes of equal names."""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.weights.report import WeightsError
from tf_panoptic_fpn.weights.source import Source

if TYPE_CHECKING:
    from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN

BOXES = re.compile(r"(roi_heads\.box_predictor(?:\.\d)?)\.cls_score\.weight")  # \d of a cascade
MASKS = "roi_heads.mask_head.predictor"
SEMANTIC = "sem_seg_head.predictor"
# What COCO puts behind names of stuff, after hyphens for underscores and spaces.
ENDINGS = ("-other-merged", "-merged", "-other", "-stuff")
Rows = Mapping[int, int]  # row of the model -> row of the checkpoint
Categories = Sequence[Category | None]  # by row; None is `other`


@dataclasses.dataclass(frozen=True)
class ClassMatch:
    """Which classes of a model a checkpoint knows.

    Attributes:
        things: dict of thing class -> the checkpoint's.
        semantic: dict of semantic class -> the checkpoint's.
        notes: two sentences: the classes that are carried over, and those that start fresh.
    """

    things: Rows
    semantic: Rows
    notes: tuple[str, ...]


def match_classes(
    own: CategoryTable, theirs: CategoryTable, synonyms: Mapping[str, str]
) -> ClassMatch:
    """Matches the classes of a data set with those of a checkpoint, by `plain_name`.

    Where several of the checkpoint have the name, one that is a thing as well, or stuff as well,
    is taken before the others, and of those one whose name is the same to the letter.

    Args:
        own: `CategoryTable` of the data.
        theirs: `CategoryTable` of the checkpoint.
        synonyms: dict of own name -> name in the checkpoint; several may have the same one.

    Raises:
        WeightsError: if a synonym names no class, or a name stands for two of the checkpoint.
    """
    _check_synonyms(own, theirs, synonyms)
    things = _match(own.things, theirs.things, synonyms)
    semantic_own, semantic_theirs = semantic_rows(own), semantic_rows(theirs)
    semantic = _match(semantic_own, semantic_theirs, synonyms)
    carried: dict[int, str] = {}  # category id -> how the log names it
    for own_rows, their_rows, rows in (
        (own.things, theirs.things, things),
        (semantic_own, semantic_theirs, semantic),
    ):
        for row, origin in rows.items():
            category, other = own_rows[row], their_rows[origin]
            if category and other:
                is_same = category.name == other.name
                carried[category.id] = category.name + ("" if is_same else f" (<- {other.name})")
    return ClassMatch(things, semantic, tuple(_notes(own, carried)))


def semantic_rows(table: CategoryTable) -> Categories:
    """Returns the categories of the semantic classes, None for `other`."""
    first = table.things if table.semantic_things == "all" else [None]
    return [*first, *table.stuff]


def carry_over(source: Source, model: "PanopticFPN", match: ClassMatch) -> None:
    """Gives a `Source` predictors for a model's classes: matched rows, and the model's own rows.

    The row of the background goes with the rows of the box head. What the source lacks is left out.

    Args:
        source: a `Source`; its predictors are replaced.
        model: a `PanopticFPN`, new.
        match: `ClassMatch`.
    """
    from tf_panoptic_fpn.weights.detectron2_layout import detectron2_arrays  # late: Keras

    fresh = detectron2_arrays(model)
    layers = [(MASKS, match.things, 1), (SEMANTIC, match.semantic, 1)]
    for predictor in [found[1] for name in source.arrays if (found := BOXES.fullmatch(name))]:
        layers.append((f"{predictor}.cls_score", match.things, 1))
        if not model.config["class_agnostic_boxes"]:
            layers.append((f"{predictor}.bbox_pred", match.things, 4))
    for layer, rows, size in layers:
        for name in (f"{layer}.weight", f"{layer}.bias"):
            if name not in source.arrays or name not in fresh:
                continue
            given, value = source.arrays[name], fresh[name].copy()
            if given.shape[1:] != value.shape[1:]:  # another width, which `set_weights` refuses
                continue
            for row, origin in rows.items():
                value[size * row : size * (row + 1)] = given[size * origin : size * (origin + 1)]
            if layer.endswith("cls_score"):
                value[-1] = given[-1]
            source.arrays[name] = np.asarray(value)
    source.notes += match.notes


def plain_name(name: str) -> str:
    """Returns what is compared of the name of a class.

    Lower case, letters and digits alone, without COCO's "-other-merged", "-merged", "-other" and
    "-stuff" at the end: "Traffic_Light" is "traffic light", and "wall-other-merged" is "wall".
    """
    text = name.casefold().strip().replace("_", "-").replace(" ", "-")
    for ending in ENDINGS:
        if text.endswith(ending):
            text = text.removesuffix(ending)
            break
    return "".join(filter(str.isalnum, text)) or name


def _match(own: Categories, theirs: Categories, synonyms: Mapping[str, str]) -> Rows:
    rows = {}
    for row, category in enumerate(own):
        if category is None:
            found = [origin for origin, other in enumerate(theirs) if other is None]
        else:
            found = _find(category, theirs, synonyms.get(category.name, category.name))
        if found:
            rows[row] = found[0]
    return rows


def _find(category: Category, theirs: Categories, wanted: str) -> list[int]:
    """The row that a category has in the checkpoint, if any."""
    found = [
        (row, other)
        for row, other in enumerate(theirs)
        if other is not None and plain_name(other.name) == plain_name(wanted)
    ]
    found = [pair for pair in found if pair[1].is_thing == category.is_thing] or found
    found = [pair for pair in found if pair[1].name == wanted] or found
    if len(found) > 1:
        names = ", ".join(repr(other.name) for _, other in found)
        raise WeightsError(
            f"the class {category.name!r} may be {names} of the checkpoint; say which by "
            "`train.class_synonyms`"
        )
    return [row for row, _ in found]


def _check_synonyms(own: CategoryTable, theirs: CategoryTable, synonyms: Mapping[str, str]) -> None:
    own_names = [category.name for category in own.categories]
    their_names = [category.name for category in theirs.categories]
    plain = {plain_name(name) for name in their_names}
    for name, synonym in synonyms.items():
        if name not in own_names:
            hint = _close(name, own_names)
            raise WeightsError(f"`train.class_synonyms`: {name!r} is no class of the data{hint}")
        if plain_name(synonym) not in plain:
            hint = _close(synonym, their_names)
            raise WeightsError(
                f"`train.class_synonyms`: {name!r}: {synonym!r} is no class of the checkpoint{hint}"
            )


def _close(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f": {', '.join(names)}"


def _notes(own: CategoryTable, carried: Mapping[int, str]) -> list[str]:
    kinds = {"things": own.things, "stuff": own.stuff}
    notes = []
    for title, is_carried in (("Carried over by name", True), ("Start fresh", False)):
        parts = []
        for kind, categories in kinds.items():
            chosen = [c for c in categories if (c.id in carried) == is_carried]
            if chosen:
                parts.append(f"{kind} {', '.join(carried.get(c.id, c.name) for c in chosen)}")
        notes.append(f"{title}: {'; '.join(parts) or 'none'}.")
    return notes
