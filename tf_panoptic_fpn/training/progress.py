"""The bar on the terminal."""

from tqdm import tqdm

from tf_panoptic_fpn.config import TrainConfig


def progress_bar(settings: TrainConfig, start: int) -> tqdm:
    """Returns a bar that counts images.

    Args:
        settings: `TrainConfig`.
        start: int, steps done.
    """
    return tqdm(
        total=settings.steps * settings.batch_size,
        initial=start * settings.batch_size,
        unit="image",
        desc="train",
        mininterval=1.0,
        dynamic_ncols=True,
    )
