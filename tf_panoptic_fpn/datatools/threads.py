"""Work on many files at once."""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 4  # items in work for each thread


def map_in_threads(function: Callable[[T], R], items: Sequence[T], description: str) -> Iterator[R]:
    """Applies a function to each item in several threads, under a progress bar.

    Decoding and encoding of images and NumPy's loops let other threads run.

    Args:
        function: called with one item.
        items: images, or what stands for them.
        description: the title of the bar.

    Yields:
        The results, in the order of the items.

    Raises:
        What `function` raises; the items not yet begun are then left undone.
    """
    num_threads = os.cpu_count() or 1
    pool = concurrent.futures.ThreadPoolExecutor(num_threads)
    try:
        waiting: collections.deque[concurrent.futures.Future[R]] = collections.deque()
        with tqdm(total=len(items), desc=description, unit="image") as bar:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > _AHEAD * num_threads:
                    yield waiting.popleft().result()
                    bar.update()
            while waiting:
                yield waiting.popleft().result()
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)
