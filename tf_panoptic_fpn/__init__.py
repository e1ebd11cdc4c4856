"""Panoptic Feature Pyramid Networks (arXiv:1901.02446) for TensorFlow and Keras 3.

The public names are listed in `__init__.pyi`; each is imported when it is asked for, so that a
command on files starts without TensorFlow and Keras.
"""

import lazy_loader

from tf_panoptic_fpn.cpu_memory import keep_memory
from tf_panoptic_fpn.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

keep_memory()
