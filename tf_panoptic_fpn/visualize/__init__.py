"""Pictures for people: tints, outlines and labels over the image."""

from tf_panoptic_fpn.visualize.difference import DIFFERENCES, difference_map, draw_difference
from tf_panoptic_fpn.visualize.instances import draw_instances
from tf_panoptic_fpn.visualize.layout import side_by_side
from tf_panoptic_fpn.visualize.segments import draw_panoptic, draw_semantic

__all__ = [
    "DIFFERENCES",
    "difference_map",
    "draw_difference",
    "draw_instances",
    "draw_panoptic",
    "draw_semantic",
    "side_by_side",
]
