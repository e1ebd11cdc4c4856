"""Sums over the replicas of a `tf.distribute` strategy."""

from typing import Any

import keras


def num_replicas() -> int:
    """Returns how many replicas run this computation; 1 outside of TensorFlow's strategies."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    # Across replicas, as in the scope of a strategy, nothing is split.
    if tf.distribute.get_replica_context() is None:
        return 1
    return tf.distribute.get_strategy().num_replicas_in_sync


def sum_over_replicas(values: Any) -> Any:
    """Sums every tensor of a nested structure over the replicas; each gets the same sums."""
    if num_replicas() == 1:
        return values
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    flat = tf.nest.flatten(values)
    return tf.nest.pack_sequence_as(values, context.all_reduce(tf.distribute.ReduceOp.SUM, flat))
