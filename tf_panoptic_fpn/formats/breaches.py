"""What breaks a rule in the files of a data set, and what that costs whoever reads them.

A reader names each breach once, with its place and the value as written, and reads on where it
can. The policy of its `Breaches` decides what follows: STOP for evaluation and the metrics,
LEAVE_OUT for training, LIST for `validate-data` and `convert-data`.
"""

import dataclasses
import logging
import os
import threading

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.messages import printable

STOP, LEAVE_OUT, LIST = "stop", "leave out", "list"
ERROR, WARNING, NOTE = "error", "warning", "note"

# Rule: (severity, what the table says). An error makes a figure wrong or stops a run; a warning may
# be meant; a note is worth a look.
RULES = {
    "json": (ERROR, "the JSON cannot be read"),
    "list": (ERROR, "a list is missing"),
    "entry": (ERROR, "an entry lacks a key or has a wrong type"),
    "category_twice": (ERROR, "a category id occurs twice"),
    "isthing": (ERROR, "`isthing` is neither 0 nor 1"),
    "image_twice": (ERROR, "an image id occurs twice"),
    "file_twice": (ERROR, "a file is listed twice"),
    "annotation_twice": (ERROR, "an image has two annotations"),
    "id_twice": (ERROR, "an annotation id occurs twice"),
    "unknown_image": (ERROR, "an annotation is for an image that is not listed"),
    "no_annotation": (ERROR, "an image has no annotation"),
    "no_segments": (ERROR, "an annotation has no segments"),
    "unknown_category": (ERROR, "the category is not listed"),
    "segment_twice": (ERROR, "a segment id occurs twice in an image"),
    "segment_id": (ERROR, "a segment id is not in 1..2**24-1"),
    "iscrowd": (ERROR, "`iscrowd` is neither 0 nor 1"),
    "missing_file": (ERROR, "a file is missing"),
    "empty_file": (ERROR, "a file is empty"),
    "undecodable": (ERROR, "a file cannot be decoded"),
    "bomb": (ERROR, "an image is too large to be decoded"),
    "size": (ERROR, "the size is not that of the JSON"),
    "map_format": (ERROR, "a panoptic map is no 8-bit RGB PNG"),
    "unlisted_id": (ERROR, "the map holds ids that the JSON lacks"),
    "absent_id": (ERROR, "the map lacks ids that the JSON lists"),
    "area": (ERROR, "the area is not that of the mask"),
    "bad_area": (ERROR, "the area is not a number of 0 or above"),
    "bad_box": (ERROR, "the box is not 4 finite numbers with no negative size"),
    "polygon_points": (ERROR, "a polygon has fewer than 3 points"),
    "segmentation": (ERROR, "the segmentation cannot be read"),
    "empty_mask": (ERROR, "the mask has no pixel in the image"),
    "leak": (ERROR, "an image is in both splits"),
    "other": (ERROR, "the reader refuses the data"),
    "boxes_only": (WARNING, "a box without a mask, which would train as background"),
    "all_crowds": (WARNING, "every annotation of a category is a crowd: nothing is learned of it"),
    "repaired": (WARNING, "a value of another type, read as what it must mean"),
    "path": (WARNING, "a path as Windows writes it, or with needless parts"),
    "mark": (WARNING, "the file begins with a byte order mark"),
    "text_id": (WARNING, "an annotation's `id` is text"),
    "no_id": (WARNING, "an annotation without `id`, which is numbered"),
    "part": (WARNING, "a part of a mask cannot be read and is left out"),
    "empty_box": (WARNING, "a box without a size; the mask's is taken"),
    "no_isthing": (WARNING, "a category without `isthing`, read as a thing"),
    "name_twice": (WARNING, "two categories have one name"),
    "crowd_stuff": (WARNING, "a crowd of stuff"),
    "no_iscrowd": (WARNING, "a segment without `iscrowd`"),
    "no_area": (WARNING, "a segment without `area`"),
    "no_box": (WARNING, "a segment without `bbox`"),
    "box": (WARNING, "the box is not that of the mask"),
    "partly_outside": (WARNING, "a polygon leaves the image"),
    "same_mask": (WARNING, "two annotations of one category have the same mask"),
    "same_image": (WARNING, "two images have the same content"),
    "extension": (WARNING, "the extension is not that of the format"),
    "large": (WARNING, "an image has more pixels than Pillow takes without a warning"),
    "pixel_range": (WARNING, "a 16-bit image uses a small part of the range, and would be dark"),
    "void": (WARNING, "more than half of an image is void"),
    "unused": (NOTE, "a category is never used"),
    "no_instances": (NOTE, "an image has no instances"),
    "rotated": (NOTE, "an image is turned upright by its EXIF orientation"),
    "mode": (NOTE, "an image is not 8-bit RGB and is converted"),
    "parts": (NOTE, "a thing is in several parts"),
    "tiny": (NOTE, "a segment has fewer than 16 pixels"),
}
# What training does without: the annotation, or the image. Any other error stops it.
LOSSES = {
    *("segmentation", "polygon_points", "empty_mask", "boxes_only", "bad_box", "iscrowd"),
    "no_segments",
}
# What training has no need of, and reads on.
_UNUSED_IN_TRAINING = {"bad_area", "file_twice"}
_COST_NOTHING = {"bad_area", "id_twice"}
_EXAMPLES = 3
_SHOWN = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Breach:
    """One breach: its rule, and where; `text` quotes the value as written."""

    rule: str
    file: str
    place: str  # in the file, such as the image's file name and the annotation
    text: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.file, self.place, self.text)))


class Breaches:
    """What was found in the files of a data set; called from several threads at once.

    Attributes:
        counts: dict: rule -> number of breaches.
        examples: dict: rule -> the first of them, as text.
        left_out: list of `Breach`, of all that the data set is without: annotations, images.

    Args:
        policy: STOP, where an error raises DataError; LEAVE_OUT, where one of `LOSSES` costs the
            annotation or image and any other raises; or LIST, where nothing does.
    """

    def __init__(self, policy: str = STOP) -> None:
        self.policy = policy
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}
        self.left_out: list[Breach] = []
        self._lock = threading.Lock()

    def add(self, rule: str, place: str, text: str = "", file: str | os.PathLike = "") -> None:
        """Counts a breach of `RULES`; the reader goes on without the entry if it was an error.

        Args:
            rule: key of `RULES`.
            place: in the file.
            text: with the value as written.
            file: "" where the place names it.

        Raises:
            DataError: if the policy says so.
        """
        breach = Breach(rule, str(file), place, text)
        is_error = RULES[rule][0] == ERROR
        if self.policy == STOP:
            stops = is_error or rule in LOSSES
        else:
            stops = self.policy == LEAVE_OUT and is_error
            stops = stops and rule not in LOSSES | _UNUSED_IN_TRAINING
        if stops:
            raise DataError(printable(str(breach)))
        with self._lock:
            if rule in LOSSES or (is_error and rule not in _COST_NOTHING):
                self.left_out.append(breach)
            self._count(rule, ": ".join(filter(None, (place, text))))
            is_first = self.counts[rule] == 1
        if self.policy == STOP and is_first:  # whoever stops at errors asks for no list
            logging.getLogger(__name__).warning("%s", printable(str(breach)))

    def leave_out(self, text: str) -> None:
        """Notes an image that is left out for a reason that is none of `RULES`."""
        with self._lock:
            self.left_out.append(Breach("other", "", "", text))

    def _count(self, rule, example):
        self.counts[rule] = self.counts.get(rule, 0) + 1
        shown = self.examples.setdefault(rule, [])
        if len(shown) < _EXAMPLES:
            # A file name may hold anything, lone surrogates and line ends included.
            shown.append(printable(example)[:300])

    def merge(self, other: "Breaches") -> None:
        """Adds what others have found."""
        with self._lock:
            for rule, count in other.counts.items():
                shown = self.examples.setdefault(rule, [])
                shown += other.examples[rule][: _EXAMPLES - len(shown)]
                self.counts[rule] = self.counts.get(rule, 0) + count
            self.left_out += other.left_out

    def total(self, severity: str) -> int:
        """Returns the number of breaches of a severity."""
        return sum(n for rule, n in self.counts.items() if RULES[rule][0] == severity)

    def first_reason(self) -> str:
        """Returns the first thing that was left out and why; "" without any."""
        return printable(str(self.left_out[0])) if self.left_out else ""

    def lines(self) -> list[str]:
        """Returns a few lines for a log: what was left out, and what was read all the same."""
        lines = []
        if self.left_out:
            texts = sorted(printable(str(breach)) for breach in self.left_out)
            more = f"; and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
            shown = "; ".join(texts[:_SHOWN])
            lines.append(f"{len(texts)} annotations or images are left out: {shown}{more}")
        return lines + self.warnings()

    def warnings(self) -> list[str]:
        """Returns a line for each rule that was breached, but cost nothing."""
        return [
            f"{count} times: {RULES[rule][1]}, e.g. {self.examples[rule][0]}"
            for rule, count in self.counts.items()
            if rule not in LOSSES and (RULES[rule][0] == WARNING or rule in _UNUSED_IN_TRAINING)
        ]
