"""How the C library hands memory back between the steps of a run on a CPU."""

import contextlib
import ctypes

# From malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> None:
    """Keeps the large blocks that a step frees for the next one, where the C library is glibc.

    Otherwise each step asks the system for its feature maps anew, page by page: a quarter of the
    processor time of a step of `configs/quickstart.yaml`.
    """
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 1 << 30)
        mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_TOP_PAD, 256 << 20)
