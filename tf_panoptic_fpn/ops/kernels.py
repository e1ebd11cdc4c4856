"""Whether a faster TensorFlow kernel may stand in for portable maths."""

import keras


def use_tensorflow_kernels() -> bool:
    """Says if TensorFlow kernels that XLA cannot compile may be used here.

    Returns:
        bool, True on the TensorFlow backend outside XLA-compiled functions. Inside
        `tf.function(jit_compile=True)`, and on the other backends, it is False.
    """
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util

    # TensorFlow has no public call for this; the context also holds for the bodies of loops and
    # for functions that are called from a compiled one.
    return not control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def must_repeat() -> bool:
    """Says if TensorFlow was asked for the same bits in every run.

    Returns:
        bool, True after `tf.config.experimental.enable_op_determinism()`. The gradients through
        sparse products were seen to differ in the last bit then.
    """
    from tensorflow.python.framework import config  # TensorFlow has no public call for this

    return config.is_op_determinism_enabled()
