"""Images too large for memory: read, cut into tiles, joined again and written; no TensorFlow."""
