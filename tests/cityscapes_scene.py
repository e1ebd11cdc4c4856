"""Random scenes in the file layout of Cityscapes, and its official scripts on them."""

import os

import numpy as np
import pytest
from PIL import Image

SIZE = (60, 90)


def write_scenes(folder, seed, num_images=2):
    """Writes ground truth to `gt/`, semantic results to `pred/`, instance results to `found/`."""
    rng = np.random.default_rng(seed)
    for number in range(num_images):
        stem = f"ulm_00000{number}_000019"
        gt, pred, found = folder / "gt" / "ulm", folder / "pred", folder / "found"
        for directory in (gt, pred, found / "masks"):
            directory.mkdir(parents=True, exist_ok=True)
        instances, boxes = _ground_truth(rng)
        labels = np.where(instances < 1000, instances, instances // 1000).astype(np.uint8)
        Image.fromarray(instances).save(gt / f"{stem}_gtFine_instanceIds.png")
        Image.fromarray(labels).save(gt / f"{stem}_gtFine_labelIds.png")
        Image.fromarray(_predicted_labels(rng, labels)).save(pred / f"{stem}_pred.png")
        lines = []
        for row, (label, mask, score) in enumerate(_predicted_instances(rng, boxes)):
            Image.fromarray(mask).save(found / "masks" / f"{stem}_{row}.png")
            lines.append(f"masks/{stem}_{row}.png {label} {score}\n")
        (found / f"{stem}_pred.txt").write_text("".join(lines))


def _box(rng, smallest=1):
    y, x = rng.integers(0, SIZE[0] - 8), rng.integers(0, SIZE[1] - 8)
    return y, x, rng.integers(smallest, 30), rng.integers(smallest, 40)


def _ground_truth(rng):
    """Instance ids, and (label, box) of each instance and group."""
    stuff = rng.choice([0, 3, 7, 8, 9, 11, 21, 23], (6, 9)).astype(np.uint16)
    instances = stuff.repeat(10, axis=0).repeat(10, axis=1)
    boxes = []
    for number in range(rng.integers(0, 9)):
        label = int(rng.choice([24, 26, 26, 33, 29, 31]))
        y, x, height, width = box = _box(rng)
        is_group = rng.random() < 0.2
        instances[y : y + height, x : x + width] = label if is_group else label * 1000 + number
        boxes.append((label, box))
    return instances, boxes


def _predicted_labels(rng, labels):
    pred = labels.copy()
    for _ in range(6):
        y, x, height, width = _box(rng)
        pred[y : y + height, x : x + width] = rng.integers(0, 34)
    return pred


def _predicted_instances(rng, boxes):
    """Shifted and doubled ground truth, and false ones; scores with ties; some without a pixel."""
    false = [(int(rng.choice([24, 26, 29, 33, 7])), _box(rng)) for _ in range(3)]
    for label, (y, x, height, width) in boxes + boxes[:3] + false:
        mask = np.zeros(SIZE, np.uint8)
        if rng.random() > 0.1:
            y, x = (max(edge + rng.integers(-2, 3), 0) for edge in (y, x))
            mask[y : y + height, x : x + width] = rng.choice([1, 255])
        yield label, mask, rng.integers(1, 6) / 5


@pytest.fixture
def official(monkeypatch):
    """Loads the module of `cityscapesscripts` that a test names, ready to run."""
    # The scripts of 2.3.0 still call what NumPy 2.4 removed.
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)

    def load(name):
        module = pytest.importorskip(f"cityscapesscripts.evaluation.{name}")
        monkeypatch.setattr(module.args, "quiet", True)
        monkeypatch.setattr(module.args, "JSONOutput", False)
        # Writes `matches.json` all the same, and fails on NumPy 2's numbers.
        monkeypatch.setattr(module, "writeDict2JSON", lambda *_: None)
        return module

    return load


def file_pairs(folder, gt_pattern, pred_pattern):
    """Paths of predictions and of ground truth, as the official scripts take them."""
    gt, pred = (sorted(folder.glob(pattern)) for pattern in (gt_pattern, pred_pattern))
    return [os.fspath(path) for path in pred], [os.fspath(path) for path in gt]
