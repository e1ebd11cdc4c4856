"""The plain-text table, character by character, and the page, as text and in a browser."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from tf_panoptic_fpn.categories import Category, CategoryTable
from tf_panoptic_fpn.errors import PanopticError
from tf_panoptic_fpn.evaluation import report
from tf_panoptic_fpn.evaluation.plots import line_chart
from tf_panoptic_fpn.evaluation.report import GalleryEntry, format_table, write_report
from tf_panoptic_fpn.metrics.coco_ap import METRICS
from tf_panoptic_fpn.metrics.panoptic_quality import PanopticQuality
from tf_panoptic_fpn.results.result import Result

RESULTS = {
    "panoptic": {
        "All": {"PQ": 0.36449, "SQ": 0.468, "RQ": 0.477, "n": 2},
        "Things": {"PQ": 0.36449, "SQ": 0.468, "RQ": 0.477, "n": 2},
        "Stuff": {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0, "n": 0},
        "per_class": {
            "cat": {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0, "tp": 0, "fp": 12, "fn": 0},
            "traffic light": {"PQ": 1.0, "SQ": 1.0, "RQ": 1.0, "tp": 7, "fp": 0, "fn": 0},
            "snow": {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0, "tp": 0, "fp": 0, "fn": 0},
        },
    },
    "box_ap": {**dict.fromkeys(METRICS, 0.5), "APl": None},
    "mask_ap": dict.fromkeys(METRICS, 0.25),
    "semantic": {"mIoU": 0.4836, "pixel_accuracy": None, "per_class": {}},
    "images": 101,
    "seconds_per_image": 0.75,
}

EXPECTED = """\
Panoptic    PQ    SQ    RQ  classes
All       36.4  46.8  47.7        2
Things    36.4  46.8  47.7        2
Stuff        -     -     -        0

Instances    AP  AP50  AP75   APs   APm   APl   AR1  AR10  AR100
Box        50.0  50.0  50.0  50.0  50.0     -  50.0  50.0   50.0
Mask       25.0  25.0  25.0  25.0  25.0  25.0  25.0  25.0   25.0

Semantic  mIoU  pixel accuracy
All       48.4               -

Class             PQ     SQ     RQ  tp  fp  fn
traffic light  100.0  100.0  100.0   7   0   0
cat              0.0    0.0    0.0   0  12   0

101 images, 0.750 s an image"""


def test_table():
    assert format_table(RESULTS) == EXPECTED


def test_table_of_one_task():
    """Ground truth without panoptic maps has no panoptic quality."""
    results = {"mask_ap": RESULTS["mask_ap"], "images": 3, "seconds_per_image": 0.5}
    lines = format_table(results).splitlines()
    assert [line.split()[0] for line in lines if line] == ["Instances", "Mask", "3"]


EVIL = "<script>alert('x')</script> & \"co\""
CATEGORIES = CategoryTable(
    (
        Category(1, EVIL, True),
        Category(2, "cat", True),
        *(Category(10 + k, f"stuff {k:03d}", False) for k in range(131)),
    )
)


def make_gallery(count=3, size=(120, 160)):
    gallery, quality = [], PanopticQuality(CATEGORIES)
    rng = np.random.default_rng(0)
    for k in range(count):
        image = rng.integers(0, 255, (*size, 3)).astype(np.uint8)
        ids = np.full(size, 1, np.int32)
        ids[: size[0] // 2] = 2
        ids[30:60, 30:80] = 3
        segments = [{"id": i + 1, "category_id": c} for i, c in enumerate((10, 11, 1))]
        predicted = [{**s, "score": 0.5} for s in segments]
        shifted = np.roll(ids, 8 * k, axis=1)
        pq = quality.update(ids, segments, shifted, predicted)
        kind = ("best", "median", "worst")[k * 3 // count]
        name = f"{k}{EVIL}.jpg"
        result = Result(shifted, predicted, CATEGORIES, image=image, file_name=name)
        gallery.append(GalleryEntry(kind, pq, ids, segments, result))
    return gallery, quality.result()


@pytest.fixture(scope="module")
def everything():
    """Results with every part, and their gallery."""
    gallery, panoptic = make_gallery()
    panoptic["confusions"] = [{"gt": EVIL, "pred": "cat", "count": 8}]
    ap = {**dict.fromkeys(METRICS, 0.4), "APl": None, "per_class": {EVIL: 0.4321, "cat": None}}
    recall = np.linspace(0, 1, 101).tolist()
    results = {
        "panoptic": panoptic,
        "box_ap": ap,
        "mask_ap": ap,
        "semantic": {
            "mIoU": 0.41,
            "fIoU": 0.62,
            "mean_accuracy": 0.53,
            "pixel_accuracy": None,
            "per_class": {"other (things)": 0.8765, "stuff 000": 0.5},
        },
        "precision_recall": {
            "recall": recall,
            "AP50": [1 - r**2 for r in recall],
            "AP75": [None] * 101,
            "AP": [0.5 * (1 - r) for r in recall],
        },
        "sweep": [
            {
                "score_threshold": score,
                "overlap_threshold": 0.5,
                "stuff_area": area,
                "PQ": 0.3 + score / 10 - area / 1e6,
                "SQ": 0.7,
                "RQ": 0.6,
            }
            for score in (0.3, 0.5, 0.7)
            for area in (1024, 4096)
        ],
        "images": 3,
        "seconds_per_image": 0.05,
    }
    return results, gallery


@pytest.fixture(scope="module")
def page(everything, tmp_path_factory):
    """The file of a report with every part."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, *everything, f"model: {EVIL}", CATEGORIES)
    return path


def table_rows(text, section):
    """The cells of each row in the first table with a body of a section, as plain text."""
    body = text.split(f'<section id="{section}">')[1].split("<tbody>")[1].split("</tbody>")[0]
    rows = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.S) for row in body.split("</tr>")]
    return [[html.unescape(re.sub("<.*?>", "", cell)).strip() for cell in r] for r in rows if r]


SECTIONS = {
    "summary",
    "classes",
    "sizes",
    "confusions",
    "precision-recall",
    "sweep",
    "gallery",
    "configuration",
}


def sections_of(text):
    shown = set(re.findall(r'<section id="(.*?)"', text))
    assert set(re.findall(r'href="#(.*?)"', text)) == shown
    return shown


def test_page_has_every_section_and_needs_no_other_file(page):
    text = page.read_text()
    assert sections_of(text) == SECTIONS
    assert EVIL not in text
    assert html.escape("<script>alert(") in text
    assert text.count("<script>") == 1
    sources = re.findall(r'(?:src|href)="(.*?)"', text)
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert len([s for s in sources if s.startswith("data:image/jpeg")]) == 3 * 4
    assert not re.search(r"https?://|url\(|@import", text)


def test_page_figures(page, everything):
    """Each class has a row, by descending PQ; what does not occur comes last, with dashes."""
    text, (results, _) = page.read_text(), everything
    rows = table_rows(text, "classes")
    assert len(rows) == 134  # with `other (things)`, which has an IoU alone
    by_name = {row[0]: row[1:] for row in rows}
    per_class = results["panoptic"]["per_class"]
    evil = per_class[EVIL]
    shares = [f"{100 * evil[key]:.1f}" for key in ("PQ", "SQ", "RQ")]
    counts = [str(evil[key]) for key in ("tp", "fp", "fn")]
    assert by_name[EVIL] == ["thing", *shares, *counts, "43.2", "43.2", "-"]
    assert by_name["stuff 000"][-1] == "50.0"
    assert by_name["stuff 050"] == ["stuff", *["-"] * 9]
    assert by_name["other (things)"][-1] == "87.6"
    values = [-1 if row[2] == "-" else float(row[2]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert values[2] >= 0 > values[3]

    assert table_rows(text, "confusions") == [[EVIL, "cat", "8"]]
    sizes = table_rows(text, "sizes")
    for (name, *cells, count), key in zip(sizes, ("small", "medium", "large"), strict=True):
        expected = results["panoptic"]["by_size"][key]
        assert (name, count) == (key, str(expected["n"]))
        if expected["n"]:
            assert cells == [f"{100 * expected[figure]:.1f}" for figure in ("PQ", "SQ", "RQ")]
        else:
            assert cells == ["-"] * 3
    sweep = table_rows(text, "sweep")
    assert sweep[0] == ["0.7", "0.5", "1024", "36.9", "70.0", "60.0"]
    assert [row[0] for row in sweep] == ["0.7", "0.7", "0.5", "0.5", "0.3", "0.3"]
    assert text.count('aria-label="Score threshold"') == 1
    assert 'aria-label="Overlap threshold"' not in text  # it does not vary


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ("panoptic", {"classes", "sizes", "confusions"}),
        ("mask_ap", {"classes"}),
        ("semantic", {"classes"}),
        ("precision_recall", {"classes", "precision-recall"}),
        ("sweep", {"classes", "sweep"}),
    ],
)
def test_page_leaves_out_what_is_not_there(everything, tmp_path, kept, expected):
    results = {kept: everything[0][kept], "images": 3, "seconds_per_image": 0.1}
    write_report(tmp_path / "report.html", results, [], "", CATEGORIES)
    text = (tmp_path / "report.html").read_text()
    assert sections_of(text) == {"summary", "configuration", *expected}
    assert len(table_rows(text, "classes")) in (133, 134)


def test_no_curve_where_no_ground_truth_bears_on_it(tmp_path):
    """As `coco_ap` says of images without things, or with crowds alone."""
    nothing = {**dict.fromkeys(METRICS), "per_class": {"cat": None}}
    curves = {"recall": [0.0, 1.0], **dict.fromkeys(("AP50", "AP75", "AP"))}
    results = {"box_ap": nothing, "mask_ap": nothing, "precision_recall": curves}
    results |= {"images": 1, "seconds_per_image": 0.1}
    write_report(tmp_path / "report.html", results, [], "", CATEGORIES)
    text = (tmp_path / "report.html").read_text()
    assert sections_of(text) == {"summary", "classes", "configuration"}
    assert "<p>1 image, 0.100 s an image" in text
    assert format_table(results).splitlines()[2].split() == ["Mask", *["-"] * len(METRICS)]
    assert format_table(results).endswith("1 image, 0.100 s an image")


def test_page_stays_small_whatever_the_gallery(tmp_path, monkeypatch):
    """Images of noise, which JPEG hardly compresses, in a tenth of the room."""
    assert report.GALLERY_BYTES * 4 / 3 < 4_500_000
    monkeypatch.setattr(report, "GALLERY_BYTES", report.GALLERY_BYTES // 10)
    gallery = make_gallery(1, (240, 320))[0] * 2
    path = tmp_path / "report.html"
    write_report(path, {"images": 1, "seconds_per_image": 1}, gallery, "", CATEGORIES)
    pictures = re.findall(r"base64,(.*?)\"", path.read_text())
    assert len(pictures) == 8
    assert 150_000 < sum(map(len, pictures)) * 3 / 4 <= report.GALLERY_BYTES


def test_page_that_cannot_be_written(everything, tmp_path):
    with pytest.raises(PanopticError, match=r"nowhere/report\.html: cannot be written: No such"):
        write_report(tmp_path / "nowhere" / "report.html", everything[0], [], "", CATEGORIES)


def test_line_chart_by_hand():
    """x from 0 to 10 and y from 0 to 1: the corners of the box are the ends of the line."""
    chart = line_chart({"a": [(0, 0), (5, 0.5), (10, 1)]}, "x", "y")
    x1, y1, x2, y2 = chart["box"]
    assert chart["lines"][0]["points"] == [(x1, y2), ((x1 + x2) / 2, (y1 + y2) / 2), (x2, y1)]
    assert [text for _, text in chart["x_ticks"]] == ["0", "2", "4", "6", "8", "10"]
    assert [text for _, text in chart["y_ticks"]] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    flat = line_chart({"a": [(3, 7)]}, "x", "y")
    assert [text for _, text in flat["y_ticks"]] == ["6", "6.5", "7", "7.5", "8"]


CHECK = """
<script>
addEventListener("load", () => {
  const images = [...document.querySelectorAll(".gallery img")];
  const width = (selector) => document.querySelector(selector).getBoundingClientRect().width;
  const firstClass = () => document.querySelector("#classes tbody th").textContent;
  const found = {
    overflow: document.documentElement.scrollWidth - innerWidth,
    images: images.filter((image) => image.naturalWidth > 0 && image.alt).length,
    chart: width("#precision-recall .chart svg"),
    firstByQuality: firstClass(),
  };
  document.querySelector("#classes th button").click();
  found.firstByName = firstClass();
  images[1].parentElement.click();
  found.enlarged = document.querySelector("dialog").open && width("dialog img");
  console.info("checked");
  parent.postMessage([innerWidth, found], "*");
});
</script>
"""
# A window of Chromium is at least 500 pixels wide; a frame may be as wide as a phone.
FRAMES = """
<script>
const found = {};
addEventListener("message", (event) => {
  found[event.data[0]] = event.data[1];
  document.documentElement.dataset.found = JSON.stringify(found);
});
</script>
<iframe src="checked.html" width="390" height="800" style="border: 0"></iframe>
<iframe src="checked.html" width="1280" height="800" style="border: 0"></iframe>
"""


def test_page_in_a_browser(page, tmp_path):
    """On a phone and on a desk: no error, all pictures there, nothing wider than the screen."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on PATH")
    checked = page.read_text().replace("</body>", f"{CHECK}</body>")
    (tmp_path / "checked.html").write_text(checked)
    (tmp_path / "frames.html").write_text(FRAMES)
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command += ["--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom"]
    command += ["--window-size=1800,900", (tmp_path / "frames.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert len(console) == 2, console
    assert all("checked" in line for line in console)
    found = json.loads(html.unescape(re.search(r'data-found="(.*?)"', done.stdout)[1]))
    assert set(found) == {"390", "1280"}
    for width, frame in found.items():
        assert frame["overflow"] <= 0
        assert frame["images"] == 12
        assert 300 < frame["chart"] <= int(width)
        assert 300 < frame["enlarged"] <= int(width)
        assert frame["firstByName"] == min(EVIL, "cat")
        assert frame["firstByQuality"] == "cat" or frame["firstByQuality"].startswith("stuff")
