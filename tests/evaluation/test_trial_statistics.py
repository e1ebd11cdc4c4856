"""Median and spread over several results."""

import json

import pytest

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.evaluation.trial_statistics import format_trials, summarize_trials


def write_trials(folder, qualities):
    folders = []
    for number, quality in enumerate(qualities):
        results = {
            "panoptic": {"All": {"PQ": quality, "n": 3}, "per_class": {"cat": {"PQ": quality}}},
            "mask_ap": {"AP": None if number == 0 else 0.25},
            "box_ap": {"AP": None},
            "sweep": [{"PQ": 1.0}],
        }
        folders.append(folder / f"trial{number}")
        folders[-1].mkdir()
        (folders[-1] / "results.json").write_text(json.dumps(results))
    return folders


def test_figures_of_five_runs(tmp_path):
    folders = write_trials(tmp_path, [0.41, 0.40, 0.44, 0.42, 0.40])
    summary = summarize_trials(folders)
    assert summary["trials"] == [str(folder) for folder in folders]
    figure = summary["figures"]["panoptic"]["All"]["PQ"]
    assert figure["median"] == 0.41
    assert (figure["min"], figure["max"]) == (0.40, 0.44)
    # Mean .414; squared distances (.004^2 + 2 * .014^2 + .026^2 + .006^2) = .00112, over 4.
    assert figure["std"] == pytest.approx(0.00028**0.5)
    assert figure["values"] == [0.41, 0.40, 0.44, 0.42, 0.40]
    assert summary["figures"]["panoptic"]["per_class"]["cat"]["PQ"] == figure
    assert summary["figures"]["mask_ap"]["AP"]["values"] == [0.25] * 4
    assert summary["figures"]["box_ap"] == {}
    assert "sweep" not in summary["figures"]

    header, *rows = format_trials(summary).splitlines()
    assert header.split() == ["median", "min", "max", "std", "runs"]
    assert [row.split() for row in rows] == [
        ["PQ", "41.0", "40.0", "44.0", "1.7", "5"],
        ["Mask", "AP", "25.0", "25.0", "25.0", "0.0", "4"],
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"results\.json: cannot be read: No such file"),
        ('{"panoptic": {', r"results\.json: not JSON"),
        ("[1]", r"results\.json: must hold a JSON object"),
    ],
)
def test_broken_results(tmp_path, text, message):
    folders = write_trials(tmp_path, [0.4, 0.5])
    (folders[1] / "results.json").unlink()
    if text:
        (folders[1] / "results.json").write_text(text)
    with pytest.raises(DataError, match=message):
        summarize_trials(folders)
    with pytest.raises(DataError, match=r"two or more folders\. Received: 1"):
        summarize_trials(folders[:1])
