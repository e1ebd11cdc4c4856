"""Panoptic quality, instance AP and semantic IoU of predictions at the size of the image."""
