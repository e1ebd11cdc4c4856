"""Exports a finished run for TF Serving.

python export/export_saved_model.py --workdir=DIR --output=DIR
"""

import argparse
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from tf_panoptic_fpn.errors import exit_on_error
from tf_panoptic_fpn.export.saved_model import export_run
from tf_panoptic_fpn.paths import expand_arguments


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument(
        "--output",
        required=True,
        help="folder of the SavedModel; TF Serving wants a number, MODEL/1",
    )
    arguments = parser.parse_args(expand_arguments(sys.argv[1:]))
    print(export_run(arguments.workdir, arguments.output))


if __name__ == "__main__":
    exit_on_error(main)
