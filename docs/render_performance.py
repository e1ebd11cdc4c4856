"""Writes `performance.md` from the results of the benchmarks.

python docs/render_performance.py
"""

import json
import pathlib

DOCS = pathlib.Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"
HEADER = """\
# Performance
What the package takes, stage by stage, on the machines where it was measured. Each benchmark is a
script that prints a table, and a JSON line which is kept as a dated file in `benchmarks/results/`;
the tables below are those lines.

```sh
python benchmarks/inference.py --config=coco_r50_1x --height=800 --width=1216
python benchmarks/inference.py --peer=torchvision
python benchmarks/train_step.py --config=coco_r50_1x --image-size=800,1216 --rounds=3
python benchmarks/startup.py --peer=CHECKOUT_OF_0.1 --rounds=3
python benchmarks/evaluation.py --metrics bbox segm boundary pq
python docs/render_performance.py
```

The last writes this page. Seconds are medians of the rounds, with the spread of the processor
seconds, (most - least) / median. On a machine that does other work too, wall seconds say nothing;
processor seconds do, and so do ratios of what took turns in one run. "Of the peak" is the share of
the multiply-adds that the machine does in a product of two 2048 x 2048 matrices in as many
processor seconds.

The untrained model of `inference` and `train_step` finds as much as it may, 1,000 proposals and 100
detections; the merge uses half of these.

## What makes it fast on a processor
- TensorFlow keeps the memory of a step for the next one. The package sets
  `TF_CPU_ALLOCATOR_USE_BFC=1` when it is imported, unless the environment has it already, and
  `TF_CPU_BFC_MEM_LIMIT_IN_MB` to the memory of the machine. Without it, the system empties each
  feature map page by page. Set it too where an exported model is served.
- A frozen batch norm is part of the kernel before it, in training as well.
- The gradient of a 3x3 convolution to its input is a convolution, where TensorFlow lacks oneDNN's
  kernels.
- Group norm is one scale and shift a channel; RoIAlign one sparse product for all levels; the class
  map is made tile by tile, of the classes alone that can win there; masks are pasted in their
  boxes, and computed for detections alone, not for padding.
- `Predictor(..., panoptic_only=True)` computes no masks but those that the merge can use, and
  returns no instances. The command `predict` does so where no instances are written.

## What a first step waits for
A TensorFlow graph is made operation by operation, in half a millisecond each, so the parts that
come again (group norm, RoIAlign, the gradient of a 3x3 convolution, the anchors of a level, the
tiles of the class map) have one body, which training, validation, prediction and export share.
Grappler, which rewrites graphs before they first run, is off on processors: a prediction of 800 x
1216 pixels takes 3.90 processor seconds without it and 3.93 with it, without oneDNN 4.35 and 4.60.
The commands import TensorFlow and Keras without `jax`, `pandas`, `matplotlib` and `scipy`, where
these are installed, and without Python's collector.

Processor seconds from the command of version 0.1 and of this code in turn, the quickstart's model
of today in both (`python benchmarks/startup.py --peer=CHECKOUT_OF_0.1 --rounds=3`; 2026-11-29, two
cores with AVX-512, load 5). The training draws its data; the others start from a finished run:

| | step, 0.1 | now | prediction, 0.1 | now | evaluation, 0.1 | now | export, 0.1 | now |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| imports | 2.8 | 1.8 | 2.7 | 1.7 | 2.8 | 1.7 | 2.7 | 1.6 |
| data | 4.8 | 3.0 |  |  |  |  |  |  |
| model | 0.5 | 0.5 | 1.1 | 0.9 | 1.0 | 0.9 | 1.1 | 0.9 |
| tracing | 4.4 | 1.7 | 2.1 | 1.0 | 1.9 | 1.0 |  |  |
| first run | 5.6 | 1.4 | 2.1 | 0.8 | 2.0 | 0.9 |  | 1.0 |
| rest | 0.7 | 0.8 | 0.2 | 0.1 | 0.2 | 0.2 | 14.1 | 3.0 |
| all | 18.6 | 9.2 | 8.2 | 4.5 | 8.0 | 4.8 | 17.8 | 6.5 |
| of 0.1 | | .50 | | .55 | | .60 | | .36 |

In an environment that has none of these packages, 0.1 and this code import in as many seconds: a
step comes after .51, a prediction after .67 of 0.1's (`--of step prediction`, same day, load 3).

Nodes of the graphs of the tests' model, with those of the functions in them: a training step 16,379
and now 4,979 (with oneDNN 5,025), prediction 7,267 and 2,887 (`python benchmarks/graph_size.py
--config=tests/tiny.yaml`); `serving_default` of an export 7,321 and 3,658.

Tried, and not worth it on two AVX2 cores: Winograd's convolutions in TensorFlow's operations (1.1
to 1.5 times the time of the plain ones for 256 channels, 1.6 to 2.9 times for 128), and oneDNN
without AVX-512.
"""
KNOWN = ("benchmark", "date", "device", "cores", "threads", "load", "loaded", "versions", "stages")
OWN_COLUMN = ("multiply_adds", "of_the_peak")


def page(results: pathlib.Path = RESULTS) -> str:
    """Returns the page; of each file of results, sorted by name, every line."""
    parts = [HEADER]
    for path in sorted(results.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            parts += _section(json.loads(line))
    return "\n".join(parts)


def _section(line):
    machine = f"{line['date']}, {line['device']}, {line['cores']} cores, load {line['load']}"
    versions = ", ".join(f"{name} {version}" for name, version in line["versions"].items())
    title = " ".join([line["benchmark"], *(str(line[k]) for k in ("config", "model") if k in line)])
    facts = [f"{key}: {_value(line[key])}" for key in line if key not in (*KNOWN, *OWN_COLUMN)]
    return [
        f"## {title}\n",
        f"{machine}; {versions}.\n",
        *([f"{'; '.join(facts)}.\n"] if facts else []),
        *_table(line),
    ]


def _table(line):
    counts, shares = (line.get(name, {}) for name in OWN_COLUMN)
    names = ["stage", "processor s", "wall s", "spread"]
    names += ["G multiply-adds", "of the peak"] if counts else []
    rows = [names, ["---"] + ["---:"] * (len(names) - 1)]
    for stage, row in line["stages"].items():
        cells = [stage, f"{row['cpu']:.3g}", f"{row['wall']:.3g}", f"{row['cpu_spread']:.0%}"]
        if counts:
            cells += [f"{counts[stage] / 1e9:.3g}" if stage in counts else ""]
            cells += [f"{shares[stage]:.2f}" if stage in shares else ""]
        rows.append(cells)
    return [*(f"| {' | '.join(cells)} |" for cells in rows), ""]


def _value(value):
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " x ".join(map(str, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main():
    (DOCS / "performance.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
