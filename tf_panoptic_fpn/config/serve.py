"""The section `serve`: what an exported model takes."""

from tf_panoptic_fpn.section import Count, Section, setting


class ServeConfig(Section):
    """Limits of the exported model, which are in its graph from then on."""

    max_pixels: Count = setting(
        50_000_000, "an image whose head says more is refused before it is decoded"
    )
