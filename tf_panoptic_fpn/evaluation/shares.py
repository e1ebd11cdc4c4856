"""An evaluation that machines share: each predicts a part of the images, the first counts."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, Protocol

from tf_panoptic_fpn.data.evaluation_samples import evaluation_samples
from tf_panoptic_fpn.evaluation.evaluator import OnImage, Predict, predict_files
from tf_panoptic_fpn.formats.records import PanopticSplit


class Machines(Protocol):
    """What `distribution.workers.Workers` is to an evaluation."""

    index: int
    count: int

    def wait(self) -> None:
        """Returns when every machine has called this."""


def share_of(split: PanopticSplit, machines: Machines) -> PanopticSplit:
    """Returns the part of a split that this machine predicts: every `count`-th image."""
    positions = range(machines.index, len(split.images), machines.count)
    return dataclasses.replace(split, images=[split.images[i] for i in positions])


def predict_shares(
    machines: Machines,
    predictor: Predict | Sequence[Predict],
    split: PanopticSplit,
    folder: pathlib.Path,
    identity: dict[str, Any],
    keeps_detections: bool = False,
    on_image: OnImage | None = None,
) -> list[pathlib.Path]:
    """Predicts this machine's share of a split, and waits until all have theirs.

    Args:
        machines: `Machines`, more than one.
        predictor, identity, keeps_detections, on_image: see `predict_files`.
        split: `PanopticSplit`, the whole.
        folder: one that all machines have; each writes to a folder of its own in it.

    Returns:
        The folders of all, which `evaluate` takes as `shares`.
    """
    folders = [folder / f"worker_{number}" for number in range(machines.count)]
    try:
        predict_files(
            predictor,
            evaluation_samples(share_of(split, machines)),
            split.categories,
            folders[machines.index],
            identity,
            keeps_detections,
            on_image,
        )
    finally:  # also of one that a signal stops, for which the others wait
        machines.wait()
    return folders
