"""The table of what was found."""

import textwrap
from collections.abc import Iterable

from tf_panoptic_fpn.formats.breaches import LIST, RULES, Breaches
from tf_panoptic_fpn.messages import printable

_WIDTH = 100


class Findings(Breaches):
    """Counts of breaches with their first examples, by rule; none of them stops a check."""

    def __init__(self) -> None:
        super().__init__(LIST)

    def extend(self, breaches: Iterable[tuple[str, str]]) -> None:
        """Adds pairs of rule and example."""
        for rule, example in breaches:
            self.note(rule, example)

    def note(self, rule: str, example: str) -> None:
        """Counts what no reader names, since it reads on."""
        with self._lock:
            self._count(rule, example)

    def table(self) -> str:
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


class Changes:
    """Counts of the changes of a corrected JSON with an example, by kind."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, str] = {}

    def add(self, kind: str, example: str) -> None:
        """Counts a change."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.examples.setdefault(kind, printable(example))

    def merge(self, other: "Changes") -> None:
        """Adds the changes that others have made."""
        for kind, count in other.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
            self.examples.setdefault(kind, other.examples[kind])
