"""The memory of TensorFlow on a CPU."""

import contextlib
import os


def keep_memory() -> None:
    """Has TensorFlow keep the memory of a step for the next one, as it does on a GPU.

    Feature maps are so large that the system takes each one back when it is freed, and empties the
    next one page by page: an eighth of the time of a network, and more memory at the peak. An
    environment that says otherwise is left alone. Called before TensorFlow first runs.
    """
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
    with contextlib.suppress(AttributeError, ValueError, OSError):  # not on every system
        megabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
        os.environ.setdefault("TF_CPU_BFC_MEM_LIMIT_IN_MB", str(megabytes))  # not 64 GB
