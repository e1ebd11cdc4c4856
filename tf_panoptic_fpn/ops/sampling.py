"""Random sampling of anchors and rois, the same on every backend and for any split of a batch."""

from keras import ops

from tf_panoptic_fpn.ops.gather import take_rows
from tf_panoptic_fpn.ops.shared_body import call_shared
from tf_panoptic_fpn.ops.sides import sides
from tf_panoptic_fpn.schema import Tensor

# Separate streams, so that anchors and rois of an image draw different numbers.
ANCHORS, ROIS = range(2)


def random_priorities(seeds: Tensor, keys: Tensor, stream: int) -> Tensor:
    """Draws stateless random integers.

    Backends' own generators differ; an integer hash gives the same numbers everywhere.

    Args:
        seeds: int32 `[B]`, one an image.
        keys: int32 `[B, n]` or `[n]`, names of the candidates.
        stream: int, tells the uses of one seed apart.

    Returns:
        int32 `[B, n]`, uniform over [0, 2**31). A number depends on its own seed and key only.
    """
    # The offset keeps small seeds off the fixed point of the hash, which is 0.
    stream_key = ops.convert_to_tensor([stream + 0x3C6EF372], dtype="int32")
    keys = keys if len(keys.shape) == 2 else keys[None]
    return call_shared(_hash_all, ops.cast(seeds, "int32"), keys, stream_key)


def _hash_all(seeds: Tensor, keys: Tensor, stream_key: Tensor) -> Tensor:
    seed_keys = _mix(ops.bitwise_xor(_mix(seeds), _mix(stream_key)))
    mixed = _mix(ops.bitwise_xor(ops.expand_dims(seed_keys, -1), _mix(keys)))
    return ops.bitwise_and(mixed, 0x7FFFFFFF)


def sample_labels(labels: Tensor, num_samples: int, max_positives: int, seeds: Tensor) -> Tensor:
    """Keeps a random sample of the labelled anchors.

    Args:
        labels: int32 `[B, A]`, 1 positive, 0 negative, -1 neither.
        num_samples: int, labels to keep in each image.
        max_positives: int, at most so many of them positive; negatives fill the rest.
        seeds: int32 `[B]`.

    Returns:
        int32 `[B, A]`, `labels` with -1 for whatever was not drawn.
    """
    num_anchors = sides(labels)[1]
    keys = ops.arange(num_anchors, dtype="int32")
    num_positives = ops.minimum(_count(labels == 1), max_positives)
    num_negatives = ops.minimum(_count(labels == 0), num_samples - num_positives)
    priorities = random_priorities(seeds, keys, ANCHORS)
    positives = _draw(priorities, labels == 1, max_positives)
    negatives = _draw(priorities, labels == 0, num_samples)
    taken = ops.concatenate(
        [
            ops.arange(max_positives, dtype="int32") < num_positives,
            ops.arange(num_samples, dtype="int32") < num_negatives,
        ],
        axis=1,
    )
    drawn = _mark(ops.concatenate([positives, negatives], axis=1), taken, num_anchors)
    return ops.where(drawn, labels, -1)


def sample_rois(
    labels: Tensor, keys: Tensor, num_samples: int, max_foreground: int, seeds: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws the rois that a head trains on.

    Args:
        labels: int32 `[B, R]`, 1 foreground, 0 background, -1 invalid.
        keys: int32 `[B, R]`, names of the rois, which decide together with the seed which are
            drawn: so the draw does not depend on the order of proposals with almost equal scores.
        num_samples: int T, slots an image.
        max_foreground: int F, at most so many foreground; background fills the rest.
        seeds: int32 `[B]`.

    Returns:
        (indices, is_foreground, is_valid), int32, bool and bool `[B, T]`. Foreground comes first,
        so the first F slots hold all of it; slots that could not be filled have index 0.
    """
    num_foreground = ops.minimum(_count(labels == 1), max_foreground)
    num_background = ops.minimum(_count(labels == 0), num_samples - num_foreground)
    priorities = random_priorities(seeds, keys, ROIS)
    foreground = _draw(priorities, labels == 1, num_samples)
    background = _draw(priorities, labels == 0, num_samples)
    slots = ops.expand_dims(ops.arange(num_samples, dtype="int32"), 0)
    is_foreground = slots < num_foreground
    is_valid = slots < num_foreground + num_background
    background_slots = ops.clip(slots - num_foreground, 0, num_samples - 1)
    background = take_rows(background, background_slots)
    indices = ops.where(is_foreground, foreground, background)
    return ops.where(is_valid, indices, 0), is_foreground, is_valid


def _mix(x: Tensor) -> Tensor:
    """Hashes int32 to int32, one to one; multiplication wraps around.

    Reference: github.com/skeeto/hash-prospector, "lowbias32".
    """
    x = ops.bitwise_xor(x, _shift_right(x, 16))
    x = x * 0x7FEB352D
    x = ops.bitwise_xor(x, _shift_right(x, 15))
    x = x * (0x846CA68B - 2**32)
    return ops.bitwise_xor(x, _shift_right(x, 16))


def _shift_right(x: Tensor, bits: int) -> Tensor:
    # Shifts of int32 copy the sign; the mask makes them logical.
    return ops.bitwise_and(ops.right_shift(x, bits), 2 ** (32 - bits) - 1)


def _count(mask: Tensor) -> Tensor:
    return ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True)


def _draw(priorities: Tensor, eligible: Tensor, count: int) -> Tensor:
    """Returns int32 `[B, count]`: eligible indices by descending priority, then any others.

    The index may run past the end by less than `count`, after the eligible ones.
    """
    priorities = ops.where(eligible, priorities, -1)
    # top_k needs at least `count` entries.
    priorities = ops.pad(priorities, [[0, 0], [0, count]], constant_values=-1)
    return ops.cast(ops.top_k(priorities, count)[1], "int32")


def _mark(indices: Tensor, taken: Tensor, length: Tensor) -> Tensor:
    """Returns bool `[B, length]`, True at those of the `indices` `[B, m]` that are `taken`."""
    batch = sides(indices)[0]
    row_starts = ops.arange(batch, dtype="int32")[:, None] * (length + 1)
    at = row_starts + ops.where(taken, indices, length)  # the others share a place of their own
    marks = ops.scatter_update(
        ops.zeros([batch * (length + 1)], dtype="int32"),
        ops.reshape(at, [-1, 1]),
        ops.reshape(ops.ones_like(at), [-1]),
    )
    return ops.reshape(marks, [batch, length + 1])[:, :length] > 0
