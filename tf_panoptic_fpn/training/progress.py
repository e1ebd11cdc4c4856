"""The bar on the terminal."""

import datetime

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


def expected_end(progress: tqdm) -> str:
    """When the bar will be full at its mean rate so far: a day and a time such as "Sat 14:05"."""
    state = progress.format_dict
    left = (state["total"] - state["n"]) / max(state["n"] - state["initial"], 1)
    end = datetime.datetime.now() + datetime.timedelta(seconds=state["elapsed"] * left)
    return f"{end:%a %H:%M}"
