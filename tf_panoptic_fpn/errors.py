"""The errors that a user can mend; the command line prints each on one line."""


class PanopticError(ValueError):
    """Base of every error that this package raises about its input."""


class ConfigError(PanopticError):
    """A configuration key or value breaks a rule."""


class DataError(PanopticError):
    """A file of a data set breaks a rule; the message names the file."""


class DamagedFileError(DataError):
    """An image or a map cannot be decoded; training goes on without it."""
