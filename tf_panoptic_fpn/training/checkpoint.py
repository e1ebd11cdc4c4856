"""Checkpoints of a run: all that decides its future, written beside the training, the last few."""

import collections
import concurrent.futures
import contextlib
import os
import pathlib
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from tf_panoptic_fpn.atomic_write import write_text
from tf_panoptic_fpn.errors import TrainingError

KEPT = 3
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"  # ends TensorFlow's own names
STATE = "state/"  # files of version 0.1 have none of it


class Checkpoints:
    """The checkpoints in one folder, as TensorFlow names and writes variables.

    A thread writes a copy while training goes on. (TensorFlow's own asynchronous checkpoints do not
    take Keras' variables a second time.)

    Args:
        model: the model, built.
        optimizer: the optimizer, built on the model's variables.
        folder: where the checkpoints are.
        writes: bool; False: `save` does nothing, since another worker writes them.
        others: what else decides the future of the run, by name; each a `tf.Module`, a Keras object
            or a variable.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        folder: str | os.PathLike,
        writes: bool = True,
        **others: Any,
    ) -> None:
        self.folder = pathlib.Path(folder)
        self.writes = writes
        self.variables = variables_by_name(model=model, optimizer=optimizer, **others)
        self.writer = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self.writing: concurrent.futures.Future | None = None

    def restore(self) -> int:
        """Restores the newest checkpoint, or the one before where that is damaged.

        Returns:
            int, steps done; 0 without a checkpoint.

        Raises:
            TrainingError: if there are checkpoints and none can be restored.
        """
        damaged = []
        for step in sorted(self._steps(), reverse=True):
            path = self.folder / f"ckpt-{step}"
            try:
                values = self._read(path)
            # TensorFlow raises OpError, IndexError, ValueError and others on a damaged file.
            except Exception as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                damaged.append(f"{path}: cannot be restored: {reason[:200]}")
                continue
            for line in damaged:
                logging.warning("%s; going on from step %d", line, step)
            for name, value in values.items():
                self.variables[name].assign(value)
            return step  # the optimizer's count lacks the steps that changed nothing
        if damaged:
            raise TrainingError(f"{damaged[0]} (nor can {len(damaged) - 1} older ones)")
        return 0

    def _steps(self) -> list[int]:
        """The steps of the files in the folder."""
        names = (path.stem.removeprefix("ckpt-") for path in self.folder.glob("ckpt-*.index"))
        return [int(name) for name in names if name.isdecimal()]

    def _read(self, path: pathlib.Path) -> dict[str, Any]:
        """Reads all values of a file, each of the shape of its variable."""
        reader = tf.train.load_checkpoint(str(path))
        shapes = reader.get_variable_to_shape_map()
        has_state = any(name.startswith(STATE) for name in shapes)
        values = {}
        for name, variable in self.variables.items():
            if name.startswith(STATE) and not has_state:
                continue
            if name not in shapes:
                raise ValueError(f"{name} is missing")
            if list(variable.shape) != shapes[name]:
                raise ValueError(f"{name} has the shape {shapes[name]}, not {variable.shape}")
            values[name] = reader.get_tensor(name)
        return values

    def save(self, step: int) -> None:
        """Begins to write a checkpoint of `step` steps done; what fails is logged, not raised."""
        if not self.writes:
            return
        self.wait()
        with tf.device("CPU"):  # a copy, also of what is on another device
            values = [tf.identity(variable) for variable in self.variables.values()]
        self.writing = self.writer.submit(self._write, step, values)

    def _write(self, step: int, values: list[tf.Tensor]) -> None:
        path = self.folder / f"ckpt-{step}"
        try:
            self.folder.mkdir(exist_ok=True)
            with tf.device("CPU"):
                # Both files get their names when they are complete, the index last.
                tf.raw_ops.SaveV2(
                    prefix=str(path),
                    tensor_names=list(self.variables),
                    shape_and_slices=[""] * len(values),
                    tensors=values,
                )
            self._delete_old()
        except (OSError, tf.errors.OpError) as error:
            reason = " ".join(str(error).split()).split("}} ")[-1][:200]
            logging.warning("%s: could not be written; training goes on: %s", path, reason)
            with contextlib.suppress(OSError):
                self._delete_old()

    def _delete_old(self) -> None:
        """Leaves the newest few and no piece of another; lists them for TensorFlow's own tools."""
        kept = sorted(self._steps())[-KEPT:]
        for file in self.folder.glob("ckpt-*.*"):
            number = file.name.split(".")[0].removeprefix("ckpt-")
            if number.isdecimal() and int(number) not in kept:
                file.unlink()
        if kept:
            lines = [f'model_checkpoint_path: "ckpt-{kept[-1]}"']
            lines += [f'all_model_checkpoint_paths: "ckpt-{step}"' for step in kept]
            write_text(self.folder / "checkpoint", "\n".join(lines) + "\n")

    def wait(self) -> None:
        """Returns when nothing is being written."""
        if self.writing is not None:
            self.writing.result()
            self.writing = None

    def close(self) -> None:
        """Waits for what is being written, and ends the thread."""
        self.wait()
        self.writer.shutdown()


def variables_by_name(**roots: Any) -> dict[str, Any]:
    """Finds all variables of some objects, under the names that `tf.train.Checkpoint` gives them.

    Args:
        roots: objects by name, each a `tf.Module`, a Keras object or a variable.

    Returns:
        Dict: name -> `tf.Variable` or `keras.Variable`; each once, by its shortest path.
    """
    root = tf.train.Checkpoint(**roots)
    view = tf.train.TrackableView(root)
    variables: dict[str, Any] = {}
    known = {id(root)}
    waiting = collections.deque([("", root)])
    while waiting:
        path, parent = waiting.popleft()
        if isinstance(parent, (keras.Variable, tf.Variable)):
            variables[f"{path}{VALUE}"] = parent
        for name, child in view.children(parent).items():
            if id(child) not in known:
                known.add(id(child))
                waiting.append((f"{path}/{name}" if path else name, child))
    return variables
