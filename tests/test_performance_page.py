"""The page of performance holds the results that are kept, as `docs/render_performance.py` does."""

import json
import pathlib
import runpy

ROOT = pathlib.Path(__file__).parent.parent
RENDER = runpy.run_path(str(ROOT / "docs/render_performance.py"))


def test_the_page_is_current():
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert page == RENDER["page"](), "run docs/render_performance.py"


def test_a_line_by_hand(tmp_path):
    line = {
        "benchmark": "inference",
        "date": "2026-01-02",
        "device": "a processor",
        "cores": 2,
        "load": 0.1,
        "versions": {"python": "3.12.1"},
        "config": "some_recipe",
        "image": [8, 6],
        "ratios": {"peer": 0.51234567},
        "multiply_adds": {"fpn": 3e9},
        "of_the_peak": {"fpn": 0.754},
        "stages": {
            "fpn": {"wall": 1.23456, "cpu": 2.0, "cpu_spread": 0.055},
            "merge": {"wall": 0.01, "cpu": 0.001, "cpu_spread": 0.0},
        },
    }
    (tmp_path / "2026-01-02-inference.jsonl").write_text(json.dumps(line), encoding="utf-8")
    assert (
        RENDER["page"](tmp_path).removeprefix(RENDER["HEADER"])
        == """
## inference some_recipe

2026-01-02, a processor, 2 cores, load 0.1; python 3.12.1.

config: some_recipe; image: 8 x 6; ratios: peer 0.5123.

| stage | processor s | wall s | spread | G multiply-adds | of the peak |
| --- | ---: | ---: | ---: | ---: | ---: |
| fpn | 2 | 1.23 | 6% | 3 | 0.75 |
| merge | 0.001 | 0.01 | 0% |  |  |
"""
    )
