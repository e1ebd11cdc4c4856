"""Which ops of a traced function TensorFlow cannot run on a GPU.

TensorFlow's builds for x86 know the kernels of GPUs without one, or a driver, being there.
"""

import functools

import tensorflow as tf
from tensorflow.python.framework import kernels

ON_GPU = ("GPU", "DEFAULT")
# The runtime's own: it inlines or places them, and what they call is listed by itself.
OF_THE_RUNTIME = {"Placeholder", "PartitionedCall", "StatefulPartitionedCall"}
STRING = tf.string.as_datatype_enum


def ops_without_gpu_kernel(function):
    """Lists them by name and types.

    Args:
        function: a `tf.types.experimental.ConcreteFunction`.

    Returns:
        dict, e.g. {"GatherV2(Tindices=int32, Tparams=uint8)": [names of the nodes]}.
    """
    graph = function.graph.as_graph_def(add_shapes=False)
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    called = {each.signature.name for each in graph.library.function}
    found = {}
    for node in nodes:
        if node.op in OF_THE_RUNTIME or node.op in called:
            continue
        if node.op == "Const" and node.attr["dtype"].type == STRING:
            continue  # what an assertion says; strings stay on the host
        if not any(_fits(kernel, node) for kernel in gpu_kernels(node.op)):
            types = {key: tf.as_dtype(v.type).name for key, v in node.attr.items() if v.type}
            text = f"{node.op}({', '.join(f'{k}={v}' for k, v in sorted(types.items()))})"
            found.setdefault(text, []).append(node.name)
    return found


@functools.cache
def gpu_kernels(op):
    registered = kernels.get_registered_kernels_for_op(op).kernel
    return [kernel for kernel in registered if kernel.device_type in ON_GPU and not kernel.label]


def _fits(kernel, node):
    for constraint in kernel.constraint:
        allowed = set(constraint.allowed_values.list.type)
        value = node.attr[constraint.name]
        if not set(value.list.type or [value.type]) <= allowed:
            return False
    return True
