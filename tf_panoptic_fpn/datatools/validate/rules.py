"""What is checked, how bad a breach is, and the table of what was found."""

import textwrap

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
    "annotation_twice": (ERROR, "an image has two annotations, or an annotation id occurs twice"),
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
    "bad_box": (ERROR, "the box is not 4 finite numbers with a size above 0"),
    "polygon_points": (ERROR, "a polygon has fewer than 3 points"),
    "segmentation": (ERROR, "the segmentation cannot be read"),
    "empty_mask": (ERROR, "the mask has no pixel in the image"),
    "leak": (ERROR, "an image is in both splits"),
    "other": (ERROR, "the reader refuses the data"),
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
_EXAMPLES = 3
_WIDTH = 100


class Findings:
    """Counts of breaches with their first examples, by rule."""

    def __init__(self):
        self.counts = {}
        self.examples = {}

    def add(self, rule, example):
        """Counts a breach; `example` is a line that names the file."""
        self.counts[rule] = self.counts.get(rule, 0) + 1
        shown = self.examples.setdefault(rule, [])
        if len(shown) < _EXAMPLES:
            # A file name may hold anything, lone surrogates and line ends included.
            printable = "".join(c if c.isprintable() else "?" for c in str(example))
            shown.append(printable[:300])

    def extend(self, breaches):
        """Adds pairs of rule and example."""
        for rule, example in breaches:
            self.add(rule, example)

    def total(self, severity):
        """Returns the number of breaches of a severity."""
        return sum(n for rule, n in self.counts.items() if RULES[rule][0] == severity)

    def table(self):
        """Returns the findings as text for a terminal, the worst first; "" without any."""
        lines = []
        for rule, (severity, text) in RULES.items():
            if rule in self.counts:
                lines.append(f"{severity:8}{self.counts[rule]:7}  {text}")
                for example in self.examples[rule]:
                    lines += textwrap.wrap(
                        example,
                        _WIDTH,
                        initial_indent=" " * 19,
                        subsequent_indent=" " * 21,
                        break_on_hyphens=False,
                    )
        return "\n".join(lines)
