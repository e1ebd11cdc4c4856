"""The section `tta`: test-time augmentation."""

from tf_panoptic_fpn.section import Count, Section, setting


class TTAConfig(Section):
    """What `evaluate --tta` looks at: each size, and each mirrored."""

    short_sides: tuple[Count, ...] = setting(
        (400, 500, 600, 700, 800, 900, 1000, 1100, 1200), "shorter sides in pixels", min_length=1
    )
    max_long_side: Count = setting(4000, "the longer side is held to it")
    flip: bool = setting(True, "whether each is also mirrored")
