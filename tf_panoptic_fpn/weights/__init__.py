"""Weights from elsewhere.

The public names are listed in `__init__.pyi`; each is imported when it is asked for: the readers of
files need numpy alone, the rest Keras.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
