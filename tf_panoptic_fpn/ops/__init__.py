"""Weightless maths on tensors; all of it runs on every Keras backend."""
