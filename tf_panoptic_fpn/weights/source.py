"""A checkpoint under detectron2's names, to which every importer renames its own."""

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tf_panoptic_fpn.weight_files.checkpoint_files import Checkpoint
from tf_panoptic_fpn.weight_files.trainer_wrapping import Rules, averaged_copies, find_prefix
from tf_panoptic_fpn.weights.report import WeightsError

BOTTOM_UP = "backbone.bottom_up"
STEM = f"{BOTTOM_UP}.stem.conv1.weight"
NORM_EPSILON = 1e-5
# Weights whose shapes depend on the classes, as patterns for `skip`.
PREDICTORS = (
    "box_head/*classes/*",
    "box_head/*deltas/*",
    "mask_head/predictor/*",
    "semantic_head/predictor/*",
)


@dataclasses.dataclass
class Source:
    """A checkpoint under detectron2's names and in its layouts.

    Attributes:
        arrays: dict of name -> array.
        origins: dict of name -> names in the file.
        unused: dict of name in the file -> shape; known, and of no use here.
        expects: dict of what the checkpoint was trained with: `pixel_mean` and `pixel_std` (RGB),
            `stride_in_1x1`, `roi_sampling_ratio`; a key that the file does not settle is absent.
        notes: list of sentences for the report.
        model_config: arguments of the `PanopticFPN` that was saved, where the file holds them.
    """

    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    origins: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    unused: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    expects: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    model_config: dict | None = None

    def change(self, names: Iterable[str], function: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replaces the arrays of these names, where they are there and not single numbers."""
        for name in names:
            if name in self.arrays and self.arrays[name].ndim:
                self.arrays[name] = function(self.arrays[name])


def rename(checkpoint: Checkpoint, rules: Rules, unused: Sequence[str] = ()) -> Source:
    """Starts a `Source`: the first rule that matches a whole name gives the new one.

    What stands before the names, such as "model.", is left out first; a moving average beside the
    weights and a trainer's counters are not needed.

    Args:
        checkpoint: a `Checkpoint`.
        rules: (regular expression, replacement) pairs; a name without a rule keeps its own.
        unused: patterns (`fnmatch`) of names that are known and not needed.

    Returns:
        A `Source`.

    Raises:
        WeightsError: if two names become one.
    """
    source = Source(notes=list(checkpoint.notes))
    copies = averaged_copies(checkpoint.arrays)
    names = [name for name in checkpoint.arrays if name not in copies]
    prefix = find_prefix(names, rules)
    if prefix:
        count = sum(name.startswith(prefix) for name in names)
        source.notes.append(f"`{prefix}` is left out of {count} name(s).")
    if copies:
        source.notes.append(f"{len(copies)} name(s) are a moving average's, which is not read.")
    for given, value in checkpoint.arrays.items():
        name = given.removeprefix(prefix)
        is_counter = value.ndim == 0 and "." not in name
        if given in copies or is_counter or matches(name, unused):
            source.unused[name] = value.shape
            continue
        new = _renamed(name, rules)
        if new in source.arrays:
            raise WeightsError(f"{name} and {source.origins[new][0]} both stand for {new}")
        source.arrays[new] = value
        source.origins[new] = (name,)
    return source


def _renamed(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        if match := re.fullmatch(pattern, name):
            return replacement(match) if callable(replacement) else match.expand(replacement)
    return name


def matches(name: str, patterns: str | Iterable[str]) -> bool:
    """Whether a name fits one of the `fnmatch` patterns, or the only one."""
    patterns = (patterns,) if isinstance(patterns, str) else patterns
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
