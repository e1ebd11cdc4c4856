"""What the configuration of a split is in every format; each format's own stands by its reader."""

import os
import pathlib
from typing import Any, ClassVar

import pydantic

from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.formats.breaches import Breaches
from tf_panoptic_fpn.formats.records import PanopticSplit
from tf_panoptic_fpn.section import Count, Path, Section, Share, setting

# Version 0.1 wrote all of these into the configuration of a run, empty where they were not given.
_KEYS_OF_0_1 = (
    "images",
    "panoptic_json",
    "panoptic_dir",
    "instances_json",
    "label_dir",
    "categories",
)


class SplitConfig(Section):
    """How the images of a split are resized, and a folder of records in place of its files.

    A format narrows the field `format` to its name and adds one for each path that it reads. The
    paths of `alternatives` are those of which one set must be given; by default that is all.
    """

    tasks: ClassVar[tuple[str, ...] | None] = (
        None  # those that the format has labels for, if not all
    )
    alternatives: ClassVar[tuple[frozenset[str], ...]] = ()

    format: str = setting("", "how the files are read")
    records: Path = setting("", "folder of `write-records`, read in training instead of the others")
    short_sides: tuple[Count, ...] = setting(
        (800,), "shorter side, drawn in training, the first at test; pixels", min_length=1
    )
    max_long_side: Count = setting(1333, "the longer side is held to it; pixels")
    flip_probability: Share = setting(0.0, "of mirroring a training image")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _without_empty_paths(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        others = set(_KEYS_OF_0_1) - set(cls.model_fields)
        return {k: v for k, v in tree.items() if not (k in others and v == "")}

    @classmethod
    def path_keys(cls) -> list[str]:
        """The keys of the paths of this format."""
        return [key for key in cls.model_fields if key not in SplitConfig.model_fields]

    def paths(self, root: str | os.PathLike) -> dict[str, pathlib.Path]:
        """Dict: key -> path below `root`, of the paths that are given."""
        given = [key for key in self.path_keys() if getattr(self, key)]
        return {key: pathlib.Path(root, getattr(self, key)) for key in given}

    def read(self, root: str | os.PathLike, breaches: Breaches | None = None) -> PanopticSplit:
        """Reads the split; each format does.

        Args:
            root: folder that the paths are taken from.
            breaches: takes what breaks a rule; by default that is an error.

        Raises:
            DataError: if a file of the data set breaks a rule.
        """
        raise NotImplementedError

    def check_paths(self, name: str) -> None:
        """Raises ConfigError unless the paths that the format needs are given, or records.

        Args:
            name: "train" or "validation".
        """
        given = set(self.paths(""))
        allowed = self.alternatives or (set(self.path_keys()),)
        if given in allowed or (self.records and not given):
            return
        closest = min(allowed, key=lambda keys: len(keys ^ given))
        missing, extra = sorted(closest - given), sorted(given - closest)
        if missing:
            raise ConfigError(
                f"`data.{name}.{missing[0]}` must be given with `format: {self.format}`, or "
                f"`data.shapes`"
            )
        raise ConfigError(
            f"`data.{name}.{extra[0]}` is not read with `format: {self.format}` beside "
            f"{sorted(closest)}. Received: {getattr(self, extra[0])!r}"
        )
