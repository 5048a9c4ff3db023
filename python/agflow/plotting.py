"""Pictures of utilities, accuracies and the cascade; each function draws on, and returns, a matplotlib Axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from agflow.diagnostics.confidence import reliability
from agflow.errors import InvalidValueError

HEAVY, LIGHT, CASCADE, RANDOM, BOTH, ORACLE = (
    "#33415c",
    "#f4a261",
    "#2a9d8f",
    "#9aa0a6",
    "#7b2cbf",
    "#b8860b",
)
CRITERION_COLOURS = {
    "agf": CASCADE,
    "agf_relative": "#1d6f65",
    "magnitude": LIGHT,
    "random": RANDOM,
}


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    return ax if ax is not None else plt.subplots(figsize=size, layout="constrained")[1]


def plot_utilities(scores, *, group: str = "mlp", ax: Axes | None = None) -> Axes:
    """Spread of the utilities in every layer of one group, on a logarithmic axis.

    Parameters
    ----------
    scores : agflow.Scores
    group : "mlp" or "heads"
    """
    ax = _axes(ax, (8, 4))
    layers = [layer for layer in scores.layers if layer.group == group]
    values = [np.maximum(scores.of(layer.name), np.finfo(float).tiny) for layer in layers]
    ax.boxplot(
        values,
        whis=(1, 99),
        showfliers=False,
        patch_artist=True,
        widths=0.6,
        boxprops=dict(facecolor=CASCADE, alpha=0.45, edgecolor=HEAVY),
        medianprops=dict(color=HEAVY),
    )
    ax.set_yscale("log")
    ax.set_xticks(
        range(1, len(layers) + 1),
        [layer.name.removeprefix("blocks.") for layer in layers],
        rotation=45,
        ha="right",
    )
    ax.set_xlabel("layer (blocks.)")
    ax.set_ylabel(f"{scores.criterion} per unit")
    ax.set_title(f"Gradient flow per {group} unit: box = quartiles, whiskers = 1 % and 99 %")
    return ax


def plot_stages(
    accuracies: Mapping[str, Sequence[float]],
    stages: Sequence[str],
    dense: float,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Accuracy after each stage, one bar a criterion, the dense model as a line.

    Parameters
    ----------
    accuracies : criterion -> accuracy in [0, 1] after each of ``stages``
    """
    ax = _axes(ax, (7, 4))
    width = 0.8 / len(accuracies)
    for i, (criterion, values) in enumerate(accuracies.items()):
        at = np.arange(len(stages)) + (i - (len(accuracies) - 1) / 2) * width
        bars = ax.bar(
            at, values, width * 0.92, label=criterion, color=CRITERION_COLOURS.get(criterion)
        )
        ax.bar_label(
            bars,
            [f"{100 * value:.1f}" for value in values],
            label_type="center",
            color="white",
            fontsize=8,
        )
    ax.axhline(dense, color=HEAVY, linestyle="--", linewidth=1, label=f"dense {100 * dense:.1f} %")
    ax.set_xticks(range(len(stages)), stages)
    ax.set_ylim(0, 1.12)  # room for the legend
    ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_ylabel("top-1 accuracy")
    ax.legend(ncols=len(accuracies) + 1, loc="upper center", fontsize=8, frameon=False)
    return ax


def plot_cascade(
    curve,
    *,
    light: tuple[float, float],
    heavy: tuple[float, float],
    chosen: tuple[float, float],
    both=None,
    oracle: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Accuracy against charged cost over every threshold, with its interval of 95 % confidence, both experts and the chosen threshold.

    Parameters
    ----------
    curve : agflow.cascade.Curve, of the heavy expert's answers to what escalates
    light, heavy, chosen : (charged cost as a ratio of the heavy expert, accuracy in [0, 1])
    both : agflow.cascade.Curve of both experts' answers (``agflow.cascade.curve(predictions, ensemble=True)``)
    oracle : the same pair of the cascade that no router beats (:func:`agflow.cascade.curves.oracle`); the line to it from the light
        expert is what a perfect order of the images would reach
    """
    ax = _axes(ax, (7, 4.5))
    table = curve.columns
    ax.fill_between(
        table["charged"],
        table["accuracy_low"],
        table["accuracy_high"],
        color=CASCADE,
        alpha=0.15,
        linewidth=0,
    )
    ax.plot(
        table["charged"],
        table["accuracy"],
        color=CASCADE,
        linewidth=2,
        label="cascade, by confidence (band: 95 %)",
    )
    if both is not None:
        ax.plot(
            both.columns["charged"],
            both.columns["accuracy"],
            color=BOTH,
            linewidth=1.5,
            label="the same, both experts answer",
        )
    ax.plot(
        table["charged"],
        table["random_accuracy"],
        color=RANDOM,
        linestyle=":",
        label="cascade, random routing",
    )
    ax.plot(
        table["uncharged"],
        table["accuracy"],
        color=CASCADE,
        linewidth=1,
        alpha=0.4,
        linestyle="--",
        label="cascade, light pass of escalated images not charged",
    )
    if oracle is not None:
        ax.plot(
            [light[0], oracle[0], table["charged"].max()],
            [light[1], oracle[1], oracle[1]],
            color=ORACLE,
            linestyle="-.",
            linewidth=1,
            label="oracle: no router is better",
        )
    ax.axvline(1.0, color=HEAVY, linewidth=0.8, alpha=0.5)
    ax.scatter(*light, color=LIGHT, zorder=3, s=70, label="light expert alone")
    ax.scatter(*heavy, color=HEAVY, zorder=3, s=70, label="heavy expert alone")
    ax.scatter(*chosen, color="#d62828", zorder=4, s=110, marker="*", label="chosen threshold")
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    ax.set_xlabel("MACs per image, charged, as a ratio of the heavy expert")
    ax.set_ylabel("top-1 accuracy")
    ax.legend(fontsize=8, frameon=False, loc="lower right")
    return ax


def plot_reliability(
    predictions, *, prior: str = "max_probability", bins: int = 10, ax: Axes | None = None
) -> Axes:
    """How often the light expert is right, where its prior says how sure it is: a reliability diagram, with the number of
    images of each bin and the expected calibration error (:func:`agflow.diagnostics.confidence.reliability`).

    Parameters
    ----------
    predictions : agflow.Predictions
    prior : one whose values are probabilities, such as "max_probability" or "max_probability_scaled"
    bins : of equal width over [0, 1]

    Raises
    ------
    InvalidValueError
        There is no such prior, or its values are not all in [0, 1].
    """
    ax = _axes(ax, (5, 4.5))
    found = reliability(predictions, prior=prior, bins=bins)
    filled = found.counts > 0
    middles = (found.edges[:-1] + found.edges[1:])[filled] / 2
    ax.bar(
        middles,
        found.accuracy[filled],
        0.92 / bins,
        color=CASCADE,
        alpha=0.7,
        label="right answers",
    )
    ax.plot([0, 1], [0, 1], color=HEAVY, linestyle="--", linewidth=1, label="calibrated")
    ax.scatter(
        found.confidence[filled],
        found.accuracy[filled],
        color=HEAVY,
        zorder=3,
        s=18,
        label="mean of the prior in the bin",
    )
    for x, share, count in zip(middles, found.accuracy[filled], found.counts[filled], strict=True):
        ax.text(x, share + 0.03, str(count), ha="center", fontsize=7, color=HEAVY)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.08)
    ax.set_xlabel(f"{prior} of the light expert")
    ax.set_ylabel("share of right answers")
    ax.set_title(f"{len(predictions)} images, expected calibration error {100 * found.ece:.1f} %")
    ax.legend(fontsize=8, frameon=False, loc="upper left")
    return ax


def plot_escalated(
    images: Sequence,
    predictions,
    router,
    *,
    columns: int = 8,
    rows: int = 2,
    classes: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A grid of what escalates, above one of what the light expert answers alone, each from the least sure image to the surest.

    Every image is titled by the light expert's answer, of an escalated one followed by that of the router's ``answers``; a wrong last
    answer is red, with the true class in brackets behind it.

    Parameters
    ----------
    images : images [C, H, W] by the rows of ``predictions``, or pairs of an image and its label such as those of a dataset
    predictions : agflow.Predictions, with the prior that the router goes by, at the router's temperature
    router : agflow.Router
    columns, rows : of each of the two grids; images are taken at even steps where there are more
    classes : names of the classes, by default their numbers

    Raises
    ------
    InvalidValueError
        Images and predictions differ in number, or there is no such prior.
    """
    if len(images) != len(predictions):
        raise InvalidValueError(
            f"{len(images)} images and {len(predictions)} predictions were given, expected one of each an image: "
            "pass the images that were predicted, in their order"
        )
    ax = _axes(ax, (1.15 * columns, 2.9 * rows))
    prior_N = predictions.prior(router.prior).astype(
        np.float64
    )  # as Go compares: a float32 prior, widened
    order, escalated_N = np.argsort(prior_N, kind="stable"), prior_N < router.threshold
    parts = {
        "escalated": order[escalated_N[order]],
        "answered by the light expert alone": order[~escalated_N[order]],
    }
    for part, (what, all_rows) in enumerate(parts.items()):
        top = -part * (rows + 0.4)
        ax.text(
            0,
            top + 0.15,
            f"{what}: {len(all_rows)} of {len(order)} images",
            fontsize=9,
            weight="bold",
            color=HEAVY,
        )
        shown = (
            all_rows[np.unique(np.linspace(0, len(all_rows) - 1, columns * rows).astype(int))]
            if len(all_rows)
            else all_rows
        )
        for place, row in enumerate(shown):
            _tile(
                ax,
                images[row],
                place % columns,
                top - place // columns,
                *_title(predictions, row, router.answers if escalated_N[row] else None, classes),
            )
    ax.set_xlim(0, columns)
    ax.set_ylim(-2 * rows - 0.4, 0.4)
    ax.set_axis_off()
    return ax


def _title(
    predictions, row: int, then: str | None, classes: Sequence[str] | None
) -> tuple[str, bool]:
    """The light expert's answer to an image, and what answers ``then``, in words; and whether the last one is right."""
    columns = ["label", "light_prediction", *([f"{then}_prediction"] if then else [])]
    label, *answers = (int(predictions.columns[column][row]) for column in columns)
    name = str if classes is None else classes.__getitem__
    right = answers[-1] == label
    return " → ".join(map(name, answers)) + ("" if right else f" ({name(label)})"), right


def _tile(ax: Axes, image, x: float, top: float, title: str, right: bool) -> None:
    """One image below its title, in the cell of width and height 1 whose upper left corner is (x, top)."""
    image_CHW = np.asarray(image[0] if isinstance(image, tuple) else image, dtype=float)
    low, high = image_CHW.min(), image_CHW.max()
    shown_HWC = ((image_CHW - low) / max(high - low, 1e-12)).transpose(1, 2, 0)
    grey = {"cmap": "gray", "vmin": 0, "vmax": 1} if shown_HWC.shape[2] == 1 else {}
    ax.imshow(
        shown_HWC.squeeze(),
        extent=(x + 0.1, x + 0.9, top - 0.97, top - 0.17),
        aspect="auto",
        **grey,
    )
    ax.text(
        x + 0.5, top - 0.14, title, ha="center", fontsize=6, color=HEAVY if right else "#d62828"
    )
