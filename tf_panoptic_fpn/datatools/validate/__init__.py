"""Checks of a data set before it is trained on: one file for each format, `rules` for what is
checked."""
