"""Apache Beam, or how to get it."""

import logging

from tf_panoptic_fpn.errors import ConfigError


def import_beam() -> None:
    """Imports Apache Beam, without what it warns of on each import.

    Raises:
        ConfigError: if it, or PyArrow, is not installed.
    """
    logging.disable(logging.WARNING)
    try:
        import apache_beam.ml.inference.base  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError:
        raise ConfigError(
            "This command needs Apache Beam: pip install 'tf-panoptic-fpn[beam]'"
        ) from None
    finally:
        logging.disable(logging.NOTSET)
