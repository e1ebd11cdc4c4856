"""The replicas of a run."""

import tensorflow as tf

from tf_panoptic_fpn.inference.devices import replica_devices


def build_strategy(replicas):
    """Returns a `MirroredStrategy` over the `replica_devices`."""
    return tf.distribute.MirroredStrategy(replica_devices(replicas))
