"""What is computed in full precision whatever the dtype policy: boxes, scores, losses, statistics.

Half precision (`mixed_bfloat16`, `mixed_float16`) is for features and weights: a coordinate above
2048 in float16, or above 256 in bfloat16, is off by pixels. Float64 stays float64.
"""

from typing import Any

import keras
from keras import ops

from tf_panoptic_fpn.schema import Tensor


def full_dtype(dtype: Any) -> str:
    """Returns "float64" for float64 and "float32" for any other dtype."""
    return "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"


def full_precision(x: Tensor) -> Tensor:
    """Casts a tensor of any dtype to float32, but leaves float64 as it is."""
    return ops.cast(x, full_dtype(x.dtype))
