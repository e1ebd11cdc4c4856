"""The outcome of the checks of one split."""

import dataclasses
import time

from tf_panoptic_fpn.datatools.validate.rules import ERROR, NOTE, WARNING, Findings
from tf_panoptic_fpn.formats.folders import plural

DROPPED = "an entry of `{}` is dropped"


@dataclasses.dataclass
class Validation:
    """What was found in a split, and its corrected JSON with the changes, by kind.

    `digests` maps a hash of an image's content to the first file that has it.
    """

    findings: Findings = dataclasses.field(default_factory=Findings)
    changes: Findings = dataclasses.field(default_factory=Findings)
    corrected: dict | None = None
    num_images: int = 0
    void: int = 0  # pixels
    pixels: int = 0
    digests: dict[bytes, str] = dataclasses.field(default_factory=dict)
    started: float = dataclasses.field(default_factory=time.monotonic)

    def add_image(self, name, digest, void=0, pixels=0):
        """Counts an image; `digest` is None if it could not be decoded."""
        self.num_images += 1
        self.void += void
        self.pixels += pixels
        if digest is None:
            return
        if digest in self.digests:
            self.findings.add("same_image", f"{name} and {self.digests[digest]}")
        else:
            self.digests[digest] = name

    def note_dropped(self, tree, kept):
        """Counts the entries of the lists of `tree` that are not in the dicts `kept`."""
        for key, entries in kept.items():
            for _ in range(len(tree[key]) - len(entries)):
                self.changes.add(DROPPED.format(key), "it cannot be read or comes again")

    def check_leak(self, other):
        """Compares the images with those of another split's `Validation`."""
        for digest, name in self.digests.items():
            if digest in other.digests:
                self.findings.add("leak", f"{name} and {other.digests[digest]}")

    def summary(self):
        """Returns one line of counts."""
        seconds = time.monotonic() - self.started
        counts = ", ".join(f"{s}s {self.findings.total(s)}" for s in (ERROR, WARNING, NOTE))
        void = f", {100 * self.void / self.pixels:.1f} % void" if self.pixels else ""
        speed = f"{self.num_images / seconds:.1f} images/s" if seconds else ""
        return f"{plural(self.num_images, 'image')}{void}; {counts}; {speed}"
