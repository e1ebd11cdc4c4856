"""The changes of `mutants.py` are of the code as it is."""

from mutants import MUTANTS, PACKAGE, ROOT


def test_each_change_finds_its_text():
    for file, tests in MUTANTS.items():
        text = (ROOT / PACKAGE / file).read_text(encoding="utf-8")
        for changes in tests.values():
            for old, new in changes:
                assert old in text and old != new, f"{file}: {old!r}"
