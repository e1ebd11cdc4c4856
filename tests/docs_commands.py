"""The code of the documents: Python blocks, and command lines in blocks and in texts."""

import contextlib
import dataclasses
import pathlib
import re
import runpy
import shlex
import sys
from argparse import ArgumentParser
from unittest import mock

from tf_panoptic_fpn.__main__ import run_command

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:tf-panoptic-fpn|python) [^`\n]+)`")
CONSOLE = ("", "sh")
OURS = ("tf-panoptic-fpn", "python")


@dataclasses.dataclass(frozen=True)
class CommandLine:
    """A command line of a page.

    Attributes:
        page: where it stands.
        words: as the shell splits them.
        whole: whether it can be run as it stands; what is in a text names flags alone.
    """

    page: str
    words: tuple[str, ...]
    whole: bool

    @property
    def name(self):
        """What is run: a command of the package, or a script from the root of the project."""
        program, *others = self.words
        if program == "tf-panoptic-fpn":
            return others[0] if others else ""
        if others[:2] == ["-m", "tf_panoptic_fpn"]:
            return others[2] if len(others) > 2 else ""
        return others[0]


def python_blocks(page):
    """The Python of a page, from top to bottom."""
    return [text for language, text in BLOCK.findall(read(page)) if language == "python"]


def command_lines():
    """Every `CommandLine` of the documents that runs something of this project."""
    lines = []
    for page in PAGES:
        name, text = str(page.relative_to(ROOT)), read(page)
        for language, block in BLOCK.findall(text):
            if language in CONSOLE:
                lines += _of_block(name, block)
        lines += [
            CommandLine(name, tuple(shlex.split(found)), whole=False)
            for found in INLINE.findall(BLOCK.sub("", text))
        ]
    return [line for line in lines if not line.name.startswith("-")]


def _of_block(page, block):
    for line in block.replace("\\\n", " ").splitlines():
        for part in line.split(" && "):
            words = shlex.split(part, comments=True)
            while words and "=" in words[0]:  # variables of the environment
                words = words[1:]
            if words and words[0] in OURS:
                yield CommandLine(page, tuple(words), whole=True)


def read(page):
    return page.read_text(encoding="utf-8")


class _Parsed(BaseException):
    """Carries a parser out of its program; no `except Exception` stops it."""


def check_command_line(line):
    """Parses a command line with the parser of its command; the command is not run.

    Raises:
        AssertionError: if the parser refuses it, or does not know a flag.
    """
    told = f"{line.page}: {' '.join(line.words)}"
    arguments = list(line.words[1:])
    of_package = line.words[0] == "tf-panoptic-fpn" or arguments[:1] == ["-m"]
    if arguments[:1] == ["-m"]:
        arguments = arguments[1:]
    elif of_package:
        arguments = ["tf-panoptic-fpn", *arguments]
    elif "argparse" not in read(ROOT / line.name) and "__main__ import" not in read(
        ROOT / line.name
    ):
        assert len(arguments) == 1, f"{told}: {line.name} takes no arguments"
        return
    parse_args, refused = ArgumentParser.parse_args, []

    def parse(parser, args=None, namespace=None):
        if line.whole:
            parse_args(parser, args, namespace)
        raise _Parsed(parser)

    def refuse(parser, message):
        refused.append(message)
        raise SystemExit(2)

    with (
        mock.patch.object(ArgumentParser, "parse_args", parse),
        mock.patch.object(ArgumentParser, "error", refuse),
        mock.patch.object(sys, "argv", arguments),
        mock.patch.object(sys, "path", [str(ROOT / line.name.rpartition("/")[0]), *sys.path]),
        contextlib.suppress(SystemExit),
    ):
        try:
            if of_package:
                run_command()
            else:
                runpy.run_path(str(ROOT / line.name), run_name="__main__")
        except _Parsed as parsed:
            _check_flags(parsed.args[0], line)
            return
    assert not refused, f"{told}: {refused[0]}"
    assert "--help" in line.words, f"{told}: reads no arguments"


def _check_flags(parser, line):
    known = dict(parser._option_string_actions)
    for action in parser._actions:
        for subparser in (
            (getattr(action, "choices", None) or {}) if action.dest == "command" else ()
        ):
            if subparser == line.name:
                known |= action.choices[subparser]._option_string_actions
    flags = [word.partition("=")[0] for word in line.words if re.match(r"--\w", word)]
    passed_on = [n for n, flag in enumerate(flags) if flag in known and known[flag].nargs == "..."]
    unknown = sorted({*flags[: passed_on[0] if passed_on else None]} - known.keys())
    assert not unknown, f"{line.page}: {' '.join(line.words)}: no flag {', '.join(unknown)}"
