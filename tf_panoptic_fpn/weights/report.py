"""What an import of weights did, name by name."""

import dataclasses

from tf_panoptic_fpn.errors import PanopticError


class WeightsError(PanopticError):
    """The weights do not fit the model."""


@dataclasses.dataclass(frozen=True)
class ImportReport:
    """Which weights of the model were set, and which names stayed unmatched.

    Attributes:
        matched: tuple of (weight of the model, names in the source, shape).
        left_over: names in the source that no weight of the model took.
        missing: weights of the model that the source lacks.
    """

    matched: tuple[tuple[str, tuple[str, ...], tuple[int, ...]], ...]
    left_over: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self):
        lines = [f"{len(self.matched)} weights matched"]
        for title, names in (("left over", self.left_over), ("missing", self.missing)):
            lines.append(f"{len(names)} {title}" + "".join(f"\n  {name}" for name in names))
        return "\n".join(lines)
