"""How often an epoch shows an image, so that rare things are seen more."""

import numpy as np

from tf_panoptic_fpn.data.index import DatasetIndex


def repeat_factors(index: DatasetIndex, threshold: float) -> np.ndarray:
    """Returns how often each image comes in an epoch, on average.

    A class c that is in a share f(c) of the images asks for max(1, sqrt(threshold / f(c))); an
    image gets the most that any of its things asks for. Crowds, which train nothing, do not count.

    Args:
        index: a `DatasetIndex`.
        threshold: float, share of the images below which a class is rare.

    Returns:
        float64 `[n]`, 1 or more.

    Reference: LVIS, arXiv:1908.03195, appendix B.
    """
    images = np.repeat(np.arange(len(index)), np.diff(index.instance_offsets))
    classes = index.instance_classes
    counted = ~index.instance_is_crowd & (classes >= 0)
    images, classes = np.unique(np.stack([images[counted], classes[counted]]), axis=1)
    shares = np.bincount(classes) / len(index)
    factors = np.ones(len(index))
    np.maximum.at(factors, images, np.sqrt(threshold / shares[classes]))
    return factors
