"""One module for each command of `python -m tf_panoptic_fpn`.

Each has `SUMMARY`, one line; `add_arguments(parser)`; and `run(arguments)`, what the command does.
"""
