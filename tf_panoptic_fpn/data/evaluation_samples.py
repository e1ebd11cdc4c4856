"""The samples of an evaluation."""

import collections
import concurrent.futures
from collections.abc import Iterator

import numpy as np

from tf_panoptic_fpn.formats.records import ImageRecord, PanopticSplit, load_segments

_READ_AHEAD = 4


def evaluation_samples(
    split: PanopticSplit,
) -> Iterator[tuple[ImageRecord, np.ndarray, np.ndarray]]:
    """Reads the images of a split in order, some ahead of the caller.

    Args:
        split: a `PanopticSplit`.

    Yields:
        `(record, image, ids)`: the `ImageRecord`, uint8 `[H, W, 3]` RGB and int32 `[H, W]` ids,
        which are 0 (void) or those of the record's segments.

    Raises:
        DataError: if a file of the split cannot be read or contradicts the annotations.
    """

    def sample(i: int) -> tuple[ImageRecord, np.ndarray, np.ndarray]:
        record = split.images[i]
        return (record, *load_segments(record))

    with concurrent.futures.ThreadPoolExecutor(_READ_AHEAD) as pool:
        ahead: collections.deque[concurrent.futures.Future] = collections.deque()
        for i in range(len(split.images)):
            ahead.append(pool.submit(sample, i))
            if len(ahead) > _READ_AHEAD:
                yield ahead.popleft().result()
        for future in ahead:
            yield future.result()
