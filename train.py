"""Trains, evaluates and exports a Panoptic FPN; the same as `tf-panoptic-fpn train`.

python train.py --config=configs/quickstart.yaml [--workdir=DIR] [--set a.b=value ...]

The same command goes on where an interrupted run stopped.
"""

from tf_panoptic_fpn.__main__ import main

if __name__ == "__main__":
    main("train")
