"""The devices that a model runs on."""

import contextlib
import sys

import tensorflow as tf

from tf_panoptic_fpn.errors import ConfigError


def replica_devices(replicas: int) -> list[str]:
    """Names all GPUs or, without any, logical CPU devices.

    Args:
        replicas: int, logical CPU devices to run on.

    Raises:
        ConfigError: if TensorFlow already runs with fewer logical CPU devices.
    """
    gpus = _local_devices("GPU") if tf.config.list_physical_devices("GPU") else []
    if gpus:
        return [gpu.name for gpu in gpus]
    if replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        # Refused where TensorFlow runs already; what counts is how many devices there are.
        with contextlib.suppress(RuntimeError):
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
            )
    devices = _local_devices("CPU")
    if len(devices) < replicas:
        raise ConfigError(
            f"`train.replicas` must be set before TensorFlow starts. Received: {replicas} replicas "
            f"and {len(devices)} running CPU device(s)"
        )
    return [device.name for device in devices[:replicas]]


def limit_gpu_memory(limit: str | int) -> None:
    """Says how much memory TensorFlow takes of each GPU; before it computes anything.

    Args:
        limit: "growth", as it is needed; "all", at once; or a number of MB.
    """
    if limit == "all":
        return
    for gpu in tf.config.list_physical_devices("GPU"):
        # Refused where TensorFlow runs already.
        with contextlib.suppress(RuntimeError):
            if limit == "growth":
                tf.config.experimental.set_memory_growth(gpu, True)
            else:
                device = tf.config.LogicalDeviceConfiguration(memory_limit=int(limit))
                tf.config.set_logical_device_configuration(gpu, [device])


def peak_memory() -> int | None:
    """Returns the most bytes taken so far, of the fullest GPU or of this process, or None."""
    gpus = tf.config.list_logical_devices("GPU") if tf.config.list_physical_devices("GPU") else []
    if gpus:
        names = [gpu.name.removeprefix("/device:") for gpu in gpus]
        return max(tf.config.experimental.get_memory_info(name)["peak"] for name in names)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _local_devices(kind: str) -> list[tf.config.LogicalDevice]:
    """TensorFlow lists those of other workers of a run too."""
    devices = tf.config.list_logical_devices(kind)
    own_task = tf.DeviceSpec.from_string(tf.constant(0).device).task
    return [d for d in devices if tf.DeviceSpec.from_string(d.name).task in (None, own_task)]
