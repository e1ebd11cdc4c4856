"""What was found in an image: drawn, written, handed to other tools; no TensorFlow."""
