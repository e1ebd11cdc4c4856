"""The section `serve`: what an exported model takes."""

from typing import Literal

from tf_panoptic_fpn.section import Count, Section, setting


class ServeConfig(Section):
    """What the exported model takes and how it is stored, which is in it from then on."""

    max_pixels: Count = setting(
        50_000_000, "an image whose head says more is refused before it is decoded"
    )
    weights: Literal["float32", "bfloat16"] = setting(
        "float32", "what a SavedModel stores them in; it computes with float32"
    )
    canvases: tuple[tuple[Count, Count], ...] = setting(
        (), "[height, width] of images, each of a signature of its own that XLA compiles"
    )
    batch: Count = setting(1, "images of a batch of such a signature")
