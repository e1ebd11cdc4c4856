"""Functions with gradients of their own, alike on every backend."""

from collections.abc import Callable
from typing import Any

from keras import ops

from tf_panoptic_fpn.schema import Tensor


def with_gradient(function: Callable[..., tuple[Tensor, Callable]], *inputs: Tensor) -> Tensor:
    """Calls a function whose gradient is not that of its operations.

    Args:
        function: of tensors; returns its output, and a function from the gradient of the output to
            those of all inputs, one or a tuple.
        *inputs: tensors, no variables.

    Returns:
        The output.
    """

    def adapted(*inputs: Tensor) -> tuple[Tensor, Callable]:
        output, gradient = function(*inputs)

        # TensorFlow and JAX hand over the gradient alone, PyTorch the inputs before it.
        def of_any_backend(*given: Any, upstream: Any = None) -> Any:
            return gradient(given[0] if upstream is None else upstream)

        return output, of_any_backend

    return ops.custom_gradient(adapted)(*inputs)
