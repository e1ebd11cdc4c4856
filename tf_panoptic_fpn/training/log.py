"""The log of a run: `metrics.jsonl` and TensorBoard."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from tf_panoptic_fpn.atomic_write import write_text
from tf_panoptic_fpn.workdir import Workdir


class MetricsLog:
    """Means over the steps since the last line, to `metrics.jsonl` and TensorBoard.

    Args:
        workdir: `Workdir`.
        start: steps done; what an interrupted run logged after it is dropped.
        schedule: function of the number of steps done that returns the next step's learning rate.
    """

    def __init__(self, workdir: Workdir, start: int, schedule: Callable[[int], Any]) -> None:
        self.path = workdir.metrics
        self.schedule = schedule
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _is_step_up_to(line, start)]
            write_text(self.path, "".join(f"{line}\n" for line in kept))
        self.events = EventFileWriter(str(workdir.tensorboard))
        # TensorBoard drops what was logged for this step and later ones before.
        session = SessionLog(status=SessionLog.START)
        self.events.add_event(Event(wall_time=time.time(), step=start + 1, session_log=session))
        self.last_time = time.perf_counter()

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
        means.pop("is_finite", None)
        now = time.perf_counter()
        line = {
            "step": step,
            "loss": {name: value for name, value in means.items() if name != "gradient_norm"},
            "gradient_norm": means.get("gradient_norm"),
            "learning_rate": float(self.schedule(step - 1)),  # of the step itself
            "images_per_second": len(window) * batch_size / (now - self.last_time),
            "skipped_steps": int((~is_finite).sum()),
            "damaged_images": damaged_images,
        }
        self.last_time = now
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._write_scalars(line)
        return means

    def _write_scalars(self, line: Mapping[str, Any]) -> None:
        scalars = {f"loss/{name}": value for name, value in line["loss"].items()}
        for name in ("gradient_norm", "learning_rate", "images_per_second"):
            scalars[name] = line[name]
        for name, value in scalars.items():
            if value is None:
                continue
            event = Event(wall_time=time.time(), step=line["step"], summary=scalar_pb(name, value))
            self.events.add_event(event)
        self.events.flush()

    def close(self) -> None:
        self.events.close()


def _is_step_up_to(line: str, start: int) -> bool:
    try:
        return json.loads(line)["step"] <= start
    except (ValueError, KeyError, TypeError):
        return False  # a line cut short by a crash
