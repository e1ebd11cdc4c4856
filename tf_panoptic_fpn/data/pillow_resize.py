"""Pillow's bilinear resizing of images, as matrix products."""

import tensorflow as tf

from tf_panoptic_fpn.ops.shared_body import call_shared

# Many sums end half-way between two levels; these go up, whatever rounding did to them.
HALF = 0.5 + 2**-12
BLOCK = 32  # rows that are made together, of the source rows that they need alone


def resize_images(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Resizes bilinearly, antialiased when shrinking, to whole levels.

    Args:
        images: `[B, H, W, 3]`, 0 to 255.
        size: int32 `[2]`, (height, width).

    Returns:
        float32 `[B, height, width, 3]`.
    """
    # Pillow resizes the rows first and rounds to whole levels after each pass. bfloat16 holds
    # them, in half of the memory of float32, and a GPU gathers it.
    x = tf.cast(images, tf.bfloat16)
    x = call_shared(_resize_first_axis, tf.transpose(x, [2, 0, 1, 3]), size[1])
    x = call_shared(_resize_first_axis, tf.transpose(x, [2, 1, 0, 3]), size[0])
    return tf.cast(tf.transpose(x, [1, 0, 2, 3]), tf.float32)


def _resize_first_axis(x: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """bfloat16 `[n, p, q, 3]` -> bfloat16 `[size, p, q, 3]`, whole levels."""
    n, p, q, channels = tf.unstack(tf.shape(x))
    sources, weights = _bands(n, size)
    rows = tf.gather(tf.reshape(x, [n, -1]), sources)
    resized = tf.matmul(weights, tf.cast(rows, tf.float32))
    resized = tf.clip_by_value(tf.floor(resized + HALF), 0.0, 255.0)
    return tf.reshape(tf.cast(resized, tf.bfloat16), [-1, p, q, channels])[:size]


@tf.function(input_signature=[tf.TensorSpec([], tf.int32)] * 2, autograph=False)
def _bands(n: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Which of `n` rows each block of BLOCK of `size` rows reads, and how much they weigh.

    Returns:
        int32 `[blocks, K]` and float32 `[blocks, BLOCK, K]`; rows behind the last read nothing.
    """
    # In float64, as Pillow does; and so that no order of a sum shows in the weights.
    scale = n / size
    reach = tf.maximum(scale, 1.0)
    blocks = -(-size // BLOCK)
    centers = (tf.cast(tf.range(blocks * BLOCK), tf.float64) + 0.5) * scale
    centers = tf.reshape(centers, [-1, BLOCK, 1])
    first = tf.cast(tf.nn.relu(centers[:, 0, 0] - reach), tf.int32)
    count = tf.cast((BLOCK - 1) * scale + 2 * reach, tf.int32) + 2
    sources = first[:, None] + tf.range(count)
    distances = tf.abs(tf.cast(sources, tf.float64)[:, None] + 0.5 - centers) / reach
    weights = tf.where((sources < n)[:, None], tf.nn.relu(1 - distances), 0)
    weights = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, axis=-1, keepdims=True))
    return tf.minimum(sources, n - 1), tf.cast(weights, tf.float32)
