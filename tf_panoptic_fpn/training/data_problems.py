"""What is wrong with the data while training goes on."""

from absl import logging


class DataProblems:
    """What is wrong with the data: damaged images, skipped and logged once each, or an error."""

    def __init__(self):
        self.reasons = {}  # path of a damaged image -> why
        self.error = None

    def skip(self, path, reason):
        if path not in self.reasons:
            self.reasons[path] = reason
            logging.warning("skipped a damaged image: %s", reason)

    def stop(self, error):
        self.error = error
