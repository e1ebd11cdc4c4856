"""What an import of weights did, name by name."""

import dataclasses

from tf_panoptic_fpn.errors import WeightsError as WeightsError


@dataclasses.dataclass(frozen=True)
class ImportReport:
    """Which weights of the model were set, and which names stayed unmatched.

    Attributes:
        matched: tuple of (weight of the model, names in the source, shape).
        left_over: tuple of (name in the source that no weight of the model took, shape).
        missing: tuple of (weight of the model that keeps its value, shape).
        unused: tuple of (name in the source that is known and not needed, shape), such as counters.
        notes: tuple of sentences: what was converted, and what the self-check saw.
    """

    matched: tuple[tuple[str, tuple[str, ...], tuple[int, ...]], ...]
    left_over: tuple[tuple[str, tuple[int, ...]], ...] = ()
    missing: tuple[tuple[str, tuple[int, ...]], ...] = ()
    unused: tuple[tuple[str, tuple[int, ...]], ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{len(self.matched)} weights matched"]
        lines += [f"  {path} {shape} <- {', '.join(names)}" for path, names, shape in self.matched]
        for title, entries in (
            ("left over in the source", self.left_over),
            ("missing from the source", self.missing),
            ("known and not needed", self.unused),
        ):
            lines.append(f"{len(entries)} {title}")
            lines += [f"  {name} {shape}" for name, shape in entries]
        return "\n".join([*lines, *self.notes])
