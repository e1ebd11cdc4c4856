"""The section `merge`: from instances and a semantic map to one panoptic map."""

from tf_panoptic_fpn.section import Section, Share, setting


class MergeConfig(Section):
    """The thresholds of the panoptic merge; all three keep at equality."""

    score_threshold: Share = setting(0.5, "an instance below it is dropped")
    overlap_threshold: Share = setting(0.5, "an instance that is covered by more is dropped")
    stuff_area: int = setting(4096, "stuff below it is dropped, pixels of the original", ge=0)
