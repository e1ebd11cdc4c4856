"""A map of ids that is read and written in windows, so that a small segment costs little."""

from typing import NamedTuple

from keras import ops

from tf_panoptic_fpn.ops.kernels import use_tensorflow_kernels
from tf_panoptic_fpn.ops.shared_body import call_shared
from tf_panoptic_fpn.schema import Tensor

RUN = 64  # pixels of a row that are read and written together


class Window(NamedTuple):
    """Part of a map, in pixels; it may reach beyond the right border of the image."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


class WholeCanvas:
    """A map whose only window is all of it: its shapes are known, as XLA wants them.

    Args:
        size: `(H, W)`, ints or int32 scalars.
    """

    def __init__(self, size: tuple[Tensor, Tensor]) -> None:
        self.size = size

    def blank(self) -> Tensor:
        return ops.zeros(self.size, dtype="int32")

    def around(self, box: Tensor) -> Window:
        """The window that holds all pixels of a box: float32 `[4]`, yxyx."""
        return Window(0, 0, *self.size)

    def read(self, canvas: Tensor, window: Window) -> Tensor:
        """Returns int32 `[height, width]`."""
        return canvas

    def write(self, canvas: Tensor, window: Window, ids: Tensor) -> Tensor:
        """Returns the canvas with `ids` in the window."""
        return ids

    def whole(self, canvas: Tensor) -> Tensor:
        """Returns the map, int32 `[H, W]`."""
        return canvas


class RunCanvas(WholeCanvas):
    """A map kept as runs of RUN pixels, int32 `[H * runs, RUN]`, each written in place.

    A window is widened to whole runs; what lies right of the image is cut off in the end. Its
    shapes depend on its values, so it is TensorFlow's alone. A canvas that was written is not to be
    read again: `tensor_scatter_nd_update` would copy the whole for each window.
    """

    def __init__(self, size: tuple[Tensor, Tensor]) -> None:
        super().__init__(size)
        self.runs = -(-size[1] // RUN)

    def blank(self) -> Tensor:
        import tensorflow as tf

        # Not a constant, which would stay as written for the next image.
        shape = [self.size[0] * self.runs, RUN]
        return tf.ensure_shape(
            tf.raw_ops.Empty(shape=shape, dtype=tf.int32, init=True), (None, RUN)
        )

    def around(self, box: Tensor) -> Window:
        height, width = (ops.cast(side, box.dtype) for side in self.size)
        limits = ops.stack([height, width, height, width])
        box = ops.minimum(ops.maximum(box, 0), limits)  # before the cast: a NaN becomes 0
        top, left = ops.unstack(ops.cast(ops.floor(box[:2]), "int32"))
        bottom, right = ops.unstack(ops.cast(ops.ceil(box[2:]), "int32"))
        left, right = left // RUN * RUN, -(-right // RUN) * RUN
        return Window(top, left, ops.maximum(bottom - top, 0), ops.maximum(right - left, 0))

    def read(self, canvas: Tensor, window: Window) -> Tensor:
        import tensorflow as tf

        ids = tf.gather(canvas, self._runs_of(window))
        return ops.reshape(ids, (window.height, window.width))

    def write(self, canvas: Tensor, window: Window, ids: Tensor) -> Tensor:
        import tensorflow as tf

        runs = ops.reshape(self._runs_of(window), (-1,))
        return tf.raw_ops.InplaceUpdate(x=canvas, i=runs, v=ops.reshape(ids, (-1, RUN)))

    def whole(self, canvas: Tensor) -> Tensor:
        return ops.reshape(canvas, (self.size[0], self.runs * RUN))[:, : self.size[1]]

    def _runs_of(self, window: Window) -> Tensor:
        """Returns `[height, width / RUN]`, the rows of the canvas that the window is made of."""
        return call_shared(_runs_of, self.runs, *window)


def _runs_of(runs: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    rows = (top + ops.arange(height, dtype="int32")) * runs
    return rows[:, None] + (left // RUN + ops.arange(width // RUN, dtype="int32"))


def make_canvas(size: tuple[Tensor, Tensor]) -> WholeCanvas:
    """Returns a `RunCanvas` where it can be one, and a `WholeCanvas` elsewhere."""
    return RunCanvas(size) if use_tensorflow_kernels() else WholeCanvas(size)
