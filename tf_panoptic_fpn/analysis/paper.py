"""The costs that the paper compares (arXiv:1901.02446): those of Table 1a and of Figure 5."""

import dataclasses
import os
from collections.abc import Sequence

from tf_panoptic_fpn.analysis.costs import WHOLE, Costs, count_costs
from tf_panoptic_fpn.analysis.feature_resolution import (
    dilated_network,
    fpn_network,
    symmetric_decoder,
)
from tf_panoptic_fpn.models.panoptic_fpn import PanopticFPN

IMAGE_SIZE = (1024, 2048)  # the 2 megapixels of Cityscapes
THINGS, STUFF = 8, 11  # classes of Cityscapes


@dataclasses.dataclass(frozen=True)
class Row:
    """A network of the paper's comparison.

    Attributes:
        name: what it is.
        costs: `Costs` for `IMAGE_SIZE`.
        printed: (multiply-adds in 1e12, activations in 1e9) of Table 1a; None: the paper draws bars
            without numbers.
    """

    name: str
    costs: Costs
    printed: tuple[float, float] | None = None


def table_1a() -> list[Row]:
    """Semantic FPN for Cityscapes, the rows of Table 1a that this package builds.

    The paper does not say which ResNeXt-101; both that the authors published are counted.
    """
    rows = []
    for backbone, printed in (
        ("resnet101", (0.5, 0.8)),
        ("resnext101_64x4d", (0.8, 1.4)),
        ("resnext101_32x8d", (0.8, 1.4)),
    ):
        model = PanopticFPN(THINGS, STUFF, ("semantic",), backbone=backbone, semantic_things="all")
        costs = count_costs(model, IMAGE_SIZE)[WHOLE]
        rows.append(Row(f"Semantic FPN, {backbone}", costs, printed))
    return rows


def figure_5() -> list[Row]:
    """ResNet-101 with each way to features of high resolution (Figure 4), no head on them."""
    models = {
        "dilated, output stride 16": dilated_network(101, 16),
        "dilated, output stride 8": dilated_network(101, 8),
        "symmetric decoder, output stride 4": symmetric_decoder(101),
        "FPN, output stride 4": fpn_network(101),
    }
    return [Row(name, count_costs(model, IMAGE_SIZE)[WHOLE]) for name, model in models.items()]


def plot(rows: Sequence[Row], path: str | os.PathLike) -> None:
    """Draws multiply-adds and activations as bars, a network a group, as Figure 5 does.

    Args:
        rows: `Row`s.
        path: picture file, e.g. `.png` or `.svg`.

    Raises:
        ModuleNotFoundError: without matplotlib, the extra "plots".
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    names = [row.name.replace(", ", "\n") for row in rows]
    quantities = (
        ("multiply-adds, $10^{12}$", [row.costs.multiply_adds / 1e12 for row in rows]),
        ("activations, $10^9$", [row.costs.activations / 1e9 for row in rows]),
    )
    for axes, (title, values) in zip(figure.subplots(1, 2, sharey=True), quantities, strict=True):
        axes.bar_label(axes.barh(names, values, height=0.6), fmt="%.2f", padding=3)
        axes.set_title(title, fontsize=10)
        axes.margins(x=0.15)
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.axes[0].invert_yaxis()
    figure.savefig(path, dpi=150)
