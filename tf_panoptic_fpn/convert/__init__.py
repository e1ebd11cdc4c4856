"""From other annotations to the COCO panoptic format: one file for each source."""
