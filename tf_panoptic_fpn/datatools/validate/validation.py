"""The outcome of the checks of one split."""

import dataclasses
import time

from tf_panoptic_fpn.datatools.validate.findings import Changes, Findings
from tf_panoptic_fpn.formats.breaches import ERROR, NOTE, RULES, WARNING, Breaches
from tf_panoptic_fpn.messages import plural


@dataclasses.dataclass
class Validation:
    """What was found in a split, and its corrected JSON with the changes, by kind.

    `digests` maps a hash of an image's content to the first file that has it.
    """

    findings: Findings = dataclasses.field(default_factory=Findings)
    changes: Changes = dataclasses.field(default_factory=Changes)
    corrected: dict | None = None
    num_images: int = 0
    void: int = 0  # pixels
    pixels: int = 0
    digests: dict[bytes, str] = dataclasses.field(default_factory=dict)
    started: float = dataclasses.field(default_factory=time.monotonic)

    def add_image(self, name: str, digest: bytes | None, void: int = 0, pixels: int = 0) -> None:
        """Counts an image; `digest` is None if it could not be decoded."""
        self.num_images += 1
        self.void += void
        self.pixels += pixels
        if digest is None:
            return
        if digest in self.digests:
            self.findings.note("same_image", f"{name} and {self.digests[digest]}")
        else:
            self.digests[digest] = name

    def note_left_out(self, breaches: Breaches) -> None:
        """Notes as changes what a reader left out and why, but for what is corrected instead."""
        for breach in breaches.left_out:
            if breach.rule in ("bad_box", "iscrowd", "boxes_only"):
                continue
            example = ": ".join(filter(None, (breach.place, breach.text)))
            self.changes.add(f"left out: {RULES[breach.rule][1]}", example)

    def check_leak(self, other: "Validation") -> None:
        """Compares the images with those of another split's `Validation`."""
        for digest, name in self.digests.items():
            if digest in other.digests:
                self.findings.note("leak", f"{name} and {other.digests[digest]}")

    def summary(self) -> str:
        """Returns one line of counts."""
        seconds = time.monotonic() - self.started
        counts = ", ".join(f"{s}s {self.findings.total(s)}" for s in (ERROR, WARNING, NOTE))
        void = f", {100 * self.void / self.pixels:.1f} % void" if self.pixels else ""
        speed = f"{self.num_images / seconds:.1f} images/s" if seconds else ""
        return f"{plural(self.num_images, 'image')}{void}; {counts}; {speed}"
