"""Panoptic quality at several thresholds of the merge, from one run of the model."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.categories import CategoryTable
from tf_panoptic_fpn.config import MergeConfig
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.inference.merge import Merger
from tf_panoptic_fpn.metrics.panoptic_quality import PanopticQuality
from tf_panoptic_fpn.results.result import Result, segments_info


class ThresholdSweep:
    """Merges the detections and the semantic map of each image at several settings.

    Args:
        merge: function of (INSTANCES of a predictor or None, SEMANTIC_MAP or None, (H, W),
            `MergeConfig`) that returns the merge's part of `schema`; several threads call it.
        settings: list of `MergeConfig`.
        categories: `CategoryTable`.
    """

    def __init__(
        self, merge: Merger, settings: Iterable[MergeConfig], categories: CategoryTable
    ) -> None:
        self._merge = merge
        self._categories = categories
        self.settings = list(settings)
        self._qualities = [PanopticQuality(categories) for _ in self.settings]

    def score(
        self,
        gt_ids: np.ndarray,
        gt_segments: Sequence[Mapping[str, Any]],
        result: Result,
        image: str = "",
    ) -> list[PanopticQuality]:
        """Scores one image; several threads may.

        Args:
            gt_ids, gt_segments, image: as in `PanopticQuality.update`.
            result: a `Result`, with its detections if the model detects.

        Returns:
            What `add` takes.
        """
        qualities = []
        for setting in self.settings:
            merged = self._merge(
                result.detections, result.semantic_map, result.panoptic_map.shape, setting
            )
            quality = PanopticQuality(self._categories)
            pred_ids = merged[schema.PANOPTIC_MAP]
            quality.update(gt_ids, gt_segments, pred_ids, segments_info(merged), image=image)
            qualities.append(quality)
        return qualities

    def add(self, qualities: Sequence[PanopticQuality]) -> None:
        """Adds an image that `score` scored."""
        for total, quality in zip(self._qualities, qualities, strict=True):
            total.merge(quality)

    def result(self) -> list[dict[str, float]]:
        """Returns a list of dicts, in the order of the settings.

        Each has `score_threshold`, `overlap_threshold`, `stuff_area`, and `PQ`, `SQ`, `RQ` over all
        classes.
        """
        rows = []
        for setting, quality in zip(self.settings, self._qualities, strict=True):
            figures = quality.result()["All"]
            rows.append(
                {**setting.model_dump(), **{key: figures[key] for key in ("PQ", "SQ", "RQ")}}
            )
        return rows


def sweep_overrides(flags: Sequence[str]) -> list[list[str]]:
    """Reads `merge.KEY=VALUE,VALUE...`, repeated for a product.

    Args:
        flags: list of such strings; empty for no sweep.

    Returns:
        list of lists of `merge.KEY=VALUE`, one for each setting.

    Raises:
        ConfigError: if a flag has another form, or a key comes twice.
    """
    if not flags:
        return []
    values = {}
    for flag in flags:
        key, separator, text = flag.partition("=")
        choices = text.split(",")
        if not (key.startswith("merge.") and separator and all(choices)):
            raise ConfigError(f"--sweep takes merge.KEY=VALUE,VALUE... Received: {flag!r}")
        if key in values:
            raise ConfigError(f"--sweep takes {key} once. Received: {flag!r}")
        values[key] = [f"{key}={choice}" for choice in choices]
    return [list(setting) for setting in itertools.product(*values.values())]
