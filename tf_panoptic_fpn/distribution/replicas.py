"""The replicas of a run, on one machine or on many."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute import numpy_dataset

from tf_panoptic_fpn import schema
from tf_panoptic_fpn.distribution.rendezvous import (
    find_cluster,
    wait_for_all,
    worker_addresses,
    worker_index,
)
from tf_panoptic_fpn.errors import ConfigError
from tf_panoptic_fpn.inference.devices import replica_devices
from tf_panoptic_fpn.ops.replicas import num_replicas, sum_over_replicas

# Longer than the first worker evaluates alone; the end of a worker is noticed within seconds.
ANSWER_SECONDS = 3600
_PADDING = {schema.GT_CLASSES: -1, schema.SEMANTIC: schema.IGNORED}
_CANVAS_KEYS = (schema.IMAGES, schema.SEMANTIC)
_INSTANCE_KEYS = (schema.GT_BOXES, schema.GT_CLASSES, schema.GT_IS_CROWD, schema.GT_MASKS)


def build_strategy(replicas: int) -> tf.distribute.Strategy:
    """Returns a strategy over the `replica_devices`, or over all GPUs of all machines.

    There are many machines if `TF_CONFIG` or Slurm's variables name them. Must be called before
    TensorFlow computes anything.

    Args:
        replicas: int, logical CPU devices where there is no GPU.

    Raises:
        ConfigError: if `TF_CONFIG` is damaged, or machines without GPU have more than one replica.
        TrainingError: if a machine does not come.
    """
    cluster = find_cluster()
    if cluster is None:
        return tf.distribute.MirroredStrategy(replica_devices(replicas))
    if replicas > 1:
        raise ConfigError(f"`train.replicas` must be 1 on many machines. Received: {replicas}")
    wait_for_all(worker_addresses(cluster), worker_index(cluster))
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=ANSWER_SECONDS)
    return tf.distribute.MultiWorkerMirroredStrategy(cluster, options)


def plain_seeds(next_creator: Callable, **kwargs: Any) -> tf.Variable:
    """For `tf.variable_creator_scope`: a variable of uint32, Keras' seeds, is not distributed.

    Workers get their variables from the first one, and no collective carries uint32.
    """
    if kwargs.get("dtype") in ("uint32", tf.uint32):
        kwargs["colocate_with"] = numpy_dataset.SingleDevice("/device:CPU:0")
    return next_creator(**kwargs)


def distribute(
    dataset: tf.data.Dataset, strategy: tf.distribute.Strategy
) -> tf.distribute.DistributedDataset:
    """Returns the data set for the replicas of a strategy, each batch split among them.

    Args:
        dataset: this worker's share of each batch.
        strategy: `tf.distribute.Strategy`.
    """
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    dataset = dataset.with_options(options)
    if strategy.cluster_resolver is None:
        return strategy.experimental_distribute_dataset(dataset)
    share = next(iter(dataset.element_spec.values())).shape[0]
    local = len(strategy.extended.worker_devices)
    dataset = dataset.rebatch(share // local, drop_remainder=True)
    return strategy.distribute_datasets_from_function(lambda context: dataset)


def pad_alike(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Pads a replica's batch to the largest canvas and number of instances of all replicas.

    The shares of different workers are padded by themselves, and what is beyond an image reaches
    its features through group norm and convolutions. Called in a replica.

    Args:
        batch: dict as in `schema`.
    """
    if num_replicas() == 1:
        return batch
    count, own = num_replicas(), tf.distribute.get_replica_context().replica_id_in_sync_group
    extents = tf.concat(
        [tf.shape(batch[schema.SEMANTIC])[1:], tf.shape(batch[schema.GT_CLASSES])[1:]], 0
    )
    table = tf.one_hot(own, count)[:, None] * tf.cast(extents, tf.float32)
    height, width, instances = tf.unstack(
        tf.cast(tf.reduce_max(sum_over_replicas(table), axis=0), tf.int32)
    )
    padded = dict(batch)
    for keys, extent in ((_CANVAS_KEYS, [height, width]), (_INSTANCE_KEYS, [instances])):
        for key in keys:
            tensor = batch[key]
            missing = tf.stack(extent) - tf.shape(tensor)[1 : 1 + len(extent)]
            paddings = tf.pad(missing[:, None], [[1, tensor.shape.rank - 1 - len(extent)], [1, 0]])
            value = tf.cast(_PADDING.get(key, 0), tensor.dtype)
            padded[key] = tf.ensure_shape(
                tf.pad(tensor, paddings, constant_values=value), tensor.shape
            )
    return padded
