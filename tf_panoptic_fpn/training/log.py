"""The log of a run: `metrics.jsonl` and TensorBoard."""

import collections
import contextlib
import functools
import io
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from PIL import Image

from tf_panoptic_fpn.atomic_write import replacing, write_text
from tf_panoptic_fpn.inference.devices import peak_memory
from tf_panoptic_fpn.models.panoptic_fpn import FOREGROUND
from tf_panoptic_fpn.training.step import PIXELS
from tf_panoptic_fpn.training.tensorboard_events import TensorBoardEvents
from tf_panoptic_fpn.workdir import Workdir

SCALARS = (
    "gradient_norm",
    "weight_norm",
    "learning_rate",
    "images_per_second",
    "multiply_adds_per_second",
    "peak_memory_bytes",
    *FOREGROUND,
)
COUNT_AFTER = 600  # seconds: counting a model's multiply-adds takes some
# What a train step returns beside its losses.
STATISTICS = ("gradient_norm", "is_finite", PIXELS, *FOREGROUND)


class MetricsLog:
    """Means over the steps since the last line, to `metrics.jsonl` and TensorBoard.

    What cannot be written, such as on a full disk, is warned about once; training goes on.

    Args:
        workdir: `Workdir`.
        start: steps done; what an interrupted run logged after it is dropped.
        schedule: function of the number of steps done that returns the next step's learning rate.
        weights: those of the model that are trained, of which the norm is logged.
        count_costs: returns the multiply-adds for each pixel of a canvas and for each image; called
            once, after `COUNT_AFTER`.
    """

    def __init__(
        self,
        workdir: Workdir,
        start: int,
        schedule: Callable[[int], Any],
        weights: Sequence[keras.Variable] = (),
        count_costs: Callable[[], tuple[float, float]] = lambda: (0.0, 0.0),
    ) -> None:
        self.count_costs = functools.cache(count_costs)
        self.path, self.pictures = workdir.metrics, workdir.pictures
        self.schedule = schedule
        self.weights = weights
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _is_step_up_to(line, start)]
            write_text(self.path, "".join(f"{line}\n" for line in kept))
        self.events = TensorBoardEvents(str(workdir.tensorboard), start)
        self.start_time = self.last_time = time.perf_counter()
        self.seconds: dict[str, float] = collections.defaultdict(float)  # since the last line
        self.warned: set[str] = set()

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Counts the time within as one in which no step is done, for the share of `what`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[what] += time.monotonic() - start

    def write(
        self, step: int, window: Sequence[Mapping[str, Any]], batch_size: int, damaged_images: int
    ) -> dict[str, float]:
        """Writes the means over `window`, a list of the train step's dicts; returns them.

        Steps without finite gradients are counted and left out; there may be no other.
        """
        is_finite = np.array([float(row["is_finite"]) > 0 for row in window])
        finite_rows = [row for row, finite in zip(window, is_finite, strict=True) if finite]
        means = {}
        for name in dict.fromkeys(name for row in finite_rows for name in row):
            # With alternating losses a row has those of one task.
            means[name] = float(np.mean([float(row[name]) for row in finite_rows if name in row]))
        now = time.perf_counter()
        elapsed, self.last_time = now - self.last_time, now
        rate = len(window) / elapsed
        line: dict[str, Any] = {
            "step": step,
            "loss": {name: value for name, value in means.items() if name not in STATISTICS},
            "gradient_norm": means.get("gradient_norm"),
            "weight_norm": self._weight_norm(),
            **{name: means[name] for name in FOREGROUND if name in means},
            "learning_rate": float(self.schedule(step - 1)),  # of the step itself
            "images_per_second": batch_size * rate,
            "multiply_adds_per_second": self._multiply_adds(means, batch_size, rate),
            "shares": {name: seconds / elapsed for name, seconds in self.seconds.items()},
            "peak_memory_bytes": peak_memory(),
            "skipped_steps": int((~is_finite).sum()),
            "damaged_images": damaged_images,
        }
        self.seconds.clear()
        self._write_line(line)
        scalars = {f"loss/{name}": value for name, value in line["loss"].items()}
        scalars.update({f"shares/{name}": value for name, value in line["shares"].items()})
        scalars.update({name: line[name] for name in SCALARS if line.get(name) is not None})
        with self._warned("tensorboard"):
            self.events.write(step, scalars)
        return means

    def write_validation(
        self,
        step: int,
        figures: Mapping[str, float],
        pictures: Mapping[str, np.ndarray],
        seconds: float,
    ) -> None:
        """Writes a line of its own, and pictures to TensorBoard and to `pictures/` as PNG.

        Args:
            step: int, steps done.
            figures: figures by name.
            pictures: uint8 `[H, W, 3]` by the name of the image.
            seconds: float, what it took.
        """
        self._write_line({"step": step, "validation": dict(figures), "seconds": seconds})
        pngs = {}
        for number, (name, picture) in enumerate(pictures.items()):
            png = io.BytesIO()
            Image.fromarray(picture).save(png, "png")
            pngs[f"validation/{name}"] = png.getvalue(), picture.shape[:2]
            folder = self.pictures / f"{number}_{pathlib.PurePath(name).stem}"
            with self._warned("pictures"):
                folder.mkdir(parents=True, exist_ok=True)
                with replacing(folder / f"step_{step:08}.png") as file:
                    file.write_bytes(png.getvalue())
        scalars = {f"validation/{name}": value for name, value in figures.items()}
        with self._warned("tensorboard"):
            self.events.write(step, scalars, pngs)

    def _write_line(self, line: Mapping[str, Any]) -> None:
        """Appends a whole line, or nothing."""
        with self._warned("metrics"), open(self.path, "ab", buffering=0) as file:
            end = file.tell()
            try:
                file.write(json.dumps(line).encode() + b"\n")
            except OSError:
                file.truncate(end)
                raise

    @contextlib.contextmanager
    def _warned(self, what: str) -> Iterator[None]:
        """Turns what cannot be written into a warning, one for each kind of file."""
        try:
            yield
        except OSError as error:
            if what not in self.warned:
                logging.warning("the %s cannot be written; training goes on: %s", what, error)
            self.warned.add(what)

    def _multiply_adds(self, means: Mapping[str, float], images: int, rate: float) -> float | None:
        if PIXELS not in means or self.last_time - self.start_time < COUNT_AFTER:
            return None
        of_pixel, of_image = self.count_costs()
        return (of_pixel * means[PIXELS] + of_image * images) * rate

    def _weight_norm(self) -> float | None:
        if not self.weights:
            return None
        return float(tf.linalg.global_norm([weight.value for weight in self.weights]))

    def close(self) -> None:
        with self._warned("tensorboard"):
            self.events.close()


def _is_step_up_to(line: str, start: int) -> bool:
    try:
        return json.loads(line)["step"] <= start
    except (ValueError, KeyError, TypeError):
        return False  # a line cut short by a crash
