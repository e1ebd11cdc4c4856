"""The replicas of a run."""

import tensorflow as tf

from tf_panoptic_fpn.inference.devices import replica_devices


def build_strategy(replicas: int) -> tf.distribute.Strategy:
    """Returns a `MirroredStrategy` over the `replica_devices`."""
    return tf.distribute.MirroredStrategy(replica_devices(replicas))


def distribute(
    dataset: tf.data.Dataset, strategy: tf.distribute.Strategy
) -> tf.distribute.DistributedDataset:
    """Returns the data set for the replicas of a strategy, each batch split among them."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return strategy.experimental_distribute_dataset(dataset.with_options(options))
