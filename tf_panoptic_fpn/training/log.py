"""The log of a run: `metrics.jsonl` and TensorBoard."""

import json
import time

import keras
import numpy as np
import tensorflow as tf

from tf_panoptic_fpn.errors import TrainingError


class MetricsLog:
    """Means over the steps since the last line, to `metrics.jsonl` and TensorBoard.

    Args:
        workdir: `Workdir`.
        start: steps done; lines after it, of an interrupted run, are dropped.
        optimizer: gives the learning rate.
    """

    def __init__(self, workdir, start, optimizer):
        self.path = workdir.metrics
        self.optimizer = optimizer
        if self.path.exists():
            lines = self.path.read_text().splitlines()
            kept = [line for line in lines if _is_step_up_to(line, start)]
            self.path.write_text("".join(f"{line}\n" for line in kept))
        self.summary = tf.summary.create_file_writer(str(workdir.tensorboard))
        self.last_time = time.perf_counter()

    def write(self, step, window, batch_size, damaged_images):
        """Writes the means over `window`, a list of the train step's dicts; returns them."""
        is_finite = np.array([float(row["is_finite"]) > 0 for row in window])
        if not is_finite.any():
            raise TrainingError(
                f"No gradient was finite in the {len(window)} steps up to {step}: lower "
                "`optimizer.learning_rate` or set `optimizer.clip_norm`"
            )
        finite_rows = [row for row, finite in zip(window, is_finite, strict=True) if finite]
        means = {}
        for name in dict.fromkeys(name for row in finite_rows for name in row):
            # With alternating losses a row has those of one task.
            means[name] = float(np.mean([float(row[name]) for row in finite_rows if name in row]))
        del means["is_finite"]
        now = time.perf_counter()
        line = {
            "step": step,
            "loss": {name: value for name, value in means.items() if name != "gradient_norm"},
            "gradient_norm": means["gradient_norm"],
            "learning_rate": float(keras.ops.convert_to_numpy(self.optimizer.learning_rate)),
            "images_per_second": len(window) * batch_size / (now - self.last_time),
            "skipped_steps": int((~is_finite).sum()),
            "damaged_images": damaged_images,
        }
        self.last_time = now
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")
        with self.summary.as_default(step=step):
            for name, value in line["loss"].items():
                tf.summary.scalar(f"loss/{name}", value)
            for name in ("gradient_norm", "learning_rate", "images_per_second"):
                tf.summary.scalar(name, line[name])
        return means

    def close(self):
        self.summary.close()


def _is_step_up_to(line, start):
    try:
        return json.loads(line)["step"] <= start
    except (ValueError, KeyError, TypeError):
        return False  # a line cut short by a crash
