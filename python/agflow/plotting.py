"""Plots of results: utilities, pruning stages, cascades, reliability and what escalates.

Every function takes results as they are, and draws on Axes of matplotlib that it returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from agflow.cascade.curves import Curve, curve, oracle
from agflow.cascade.ensemble import ENSEMBLE_ANSWERS
from agflow.cascade.ledger import MACS
from agflow.cascade.router_evaluation import evaluate_router
from agflow.diagnostics.confidence import reliability
from agflow.diagnostics.paired import paired_counts
from agflow.errors import InvalidValueError
from agflow.evaluation.intervals import paired_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from agflow._utils.loaders import SizedDataset
    from agflow.cascade.predictions import Predictions
    from agflow.cascade.router import Router
    from agflow.cascade.router_evaluation import RouterEvaluation
    from agflow.pruning.scoring import Scores
    from agflow.recipes.results import RunResult

HEAVY_COLOUR = "#33415c"
LIGHT_COLOUR = "#f4a261"
CASCADE_COLOUR = "#2a9d8f"
RANDOM_COLOUR = "#9aa0a6"
ENSEMBLE_COLOUR = "#7b2cbf"
ORACLE_COLOUR = "#b8860b"
CHOSEN_COLOUR = WRONG_COLOUR = "#d62828"
CRITERION_COLOURS = {
    "agf": CASCADE_COLOUR,
    "agf_relative": "#1d6f65",
    "magnitude": LIGHT_COLOUR,
    "random": RANDOM_COLOUR,
}
BAND_CONFIDENCE = 0.95

Style = dict[str, Any]
"""Keyword arguments of matplotlib's methods."""


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1]


def _percent_ticks(ax: Axes, decimals: int | None = None) -> None:
    from matplotlib.ticker import PercentFormatter

    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=decimals))


def plot_utilities(scores: Scores, *, group: str = "", ax: Axes | None = None) -> Axes:
    """Plot the spread of the utilities in every layer of one group, on a logarithmic axis.

    Parameters
    ----------
    scores : agflow.Scores
    group : that the scores have; by default "mlp", or the first where there is none

    Examples
    --------
    >>> import agflow, torch
    >>> model, preprocessing, _ = agflow.load_model("example")
    >>> images = agflow.load_dataset("example:train", preprocessing=preprocessing, limit=8)
    >>> loader = torch.utils.data.DataLoader(images, batch_size=8)
    >>> scores = agflow.score(agflow.calibrate(model, loader, batches=1))
    >>> plot_utilities(scores, group="heads").get_ylabel()
    'agf per unit'
    """
    ax = _axes(ax, (8, 4))
    groups = [layer.group for layer in scores.layers]
    group = group or ("mlp" if "mlp" in groups else groups[0])
    layers = [layer for layer in scores.layers if layer.group == group]
    values = [np.maximum(scores.of(layer.name), np.finfo(float).tiny) for layer in layers]
    box: Style = dict(facecolor=CASCADE_COLOUR, alpha=0.45, edgecolor=HEAVY_COLOUR)
    how: Style = dict(whis=(1, 99), showfliers=False, patch_artist=True, widths=0.6)
    ax.boxplot(values, boxprops=box, medianprops=dict(color=HEAVY_COLOUR), **how)
    ax.set_yscale("log")
    names = [layer.name.removeprefix("blocks.") for layer in layers]
    ax.set_xticks(range(1, len(layers) + 1), names, rotation=45, ha="right")
    ax.set_xlabel("layer (blocks.)" if names[0] != layers[0].name else "layer")
    ax.set_ylabel(f"{scores.criterion} per unit")
    ax.set_title(f"Utility of each {group} unit: box = quartiles, whiskers = 1 % and 99 %")
    return ax


def plot_stages(result: RunResult, *, ax: Axes | None = None) -> Axes:
    """Plot accuracies after pruning, repair and a short fine-tuning, one bar a criterion.

    Parameters
    ----------
    result : of :func:`agflow.recipes.run`; its dense model is a dashed line

    Examples
    --------
    >>> from types import SimpleNamespace as Result
    >>> stage = lambda top1: Result(top1=top1)
    >>> stages = Result(cut=stage(0.2), repaired=stage(0.7), tuned=stage(0.85), epochs=2)
    >>> ax = plot_stages(Result(stages={"agf": stages}, dense=stage(0.9)))
    >>> [float(bar.get_height()) for bar in ax.containers[0]]
    [0.2, 0.7, 0.85]
    """
    ax = _axes(ax, (7, 4))
    width = 0.8 / len(result.stages)
    for i, (criterion, stages) in enumerate(result.stages.items()):
        values = [stages.cut.top1, stages.repaired.top1, stages.tuned.top1]
        at = np.arange(len(values)) + (i - (len(result.stages) - 1) / 2) * width
        colour = CRITERION_COLOURS.get(criterion)
        bars = ax.bar(at, values, width * 0.92, label=criterion, color=colour)
        texts = [f"{100 * value:.1f}" for value in values]
        ax.bar_label(bars, texts, label_type="center", color="white", fontsize=8)
    dense = result.dense.top1
    label = f"dense {100 * dense:.1f} %"
    ax.axhline(dense, color=HEAVY_COLOUR, linestyle="--", linewidth=1, label=label)
    epochs = next(iter(result.stages.values())).epochs  # the same for all
    last = f"fine-tuned, {epochs} epoch{'' if epochs == 1 else 's'}"
    ax.set_xticks(range(3), ["pruned", "repaired", last])
    ax.set_ylim(0, 1.12)  # room for the legend
    ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    _percent_ticks(ax)
    ax.set_ylabel("top-1 accuracy")
    ax.legend(ncols=len(result.stages) + 1, loc="upper center", fontsize=8, frameon=False)
    return ax


def plot_cascade(
    predictions: Predictions, router: Router, *, ensemble: bool = False, ax: Axes | None = None
) -> Axes:
    """Plot a cascade's accuracy against its expected cost per image, over all thresholds.

    The band is the 95 % confidence interval of the difference to the heavy expert on the same
    images, one threshold at a time; the axis on the right reads it in points. Where its lower edge
    stands above -X, the cascade is not worse than the heavy expert by more than X points. It is
    Tango's score interval for paired proportions (1998, Statistics in Medicine 17, 891-908), from
    the numbers of images that only the heavy expert or only the cascade gets right.

    Parameters
    ----------
    predictions : of test images, made with the router's temperature and light weight
    router : its prior orders the images, its answers are the curve's, its threshold is the star;
        a tolerance of accuracy is a dotted line
    ensemble : also draw the curve of both experts' averaged log-probabilities, where the
        predictions have it

    Raises
    ------
    InvalidValueError
        As :func:`agflow.evaluate_router`; or an ensemble is asked for and not recorded.

    Examples
    --------
    >>> import agflow, torch
    >>> from agflow.cascade import CascadeCosts, join_predictions
    >>> labels = torch.arange(200) % 5
    >>> noise = torch.randn(2, 200, 5, generator=torch.Generator().manual_seed(0))
    >>> light, heavy = torch.eye(5)[labels] * torch.tensor([3.0, 5.0])[:, None, None] + noise
    >>> predictions = join_predictions(light, heavy, labels, CascadeCosts(1, 4))
    >>> router = agflow.calibrate_router(predictions, tolerance=0.1, confidence=0.9)
    >>> plot_cascade(predictions, router).get_ylabel()
    'top-1 accuracy'
    """
    ax = _axes(ax, (8, 5))
    found = evaluate_router(predictions, router)
    averaged = router.answers == ENSEMBLE_ANSWERS
    table = curve(predictions, prior=router.prior, ensemble=averaged)
    heavy = predictions.heavy_accuracy
    _draw_curves(ax, predictions, table)
    _draw_band(ax, predictions, router, table)
    if ensemble and not averaged:
        columns = curve(predictions, prior=router.prior, ensemble=True).columns
        style: Style = dict(
            color=ENSEMBLE_COLOUR, linewidth=1.5, label="cascade, both experts answer"
        )
        ax.plot(columns["charged"], columns["accuracy"], **style)
    best = oracle(predictions, ensemble=averaged or ensemble)
    light = predictions.costs.light / predictions.costs.heavy
    costs = [light, best["charged"], table.columns["charged"].max()]
    accuracies = [found.light, best["accuracy"], best["accuracy"]]
    line: Style = dict(color=ORACLE_COLOUR, linestyle="-.", linewidth=1)
    ax.plot(costs, accuracies, label="oracle: no router is better", **line)
    ax.axhline(heavy, color=HEAVY_COLOUR, linewidth=0.8, alpha=0.5)
    ax.axvline(1.0, color=HEAVY_COLOUR, linewidth=0.8, alpha=0.5)
    point: Style = dict(zorder=3, s=70)
    ax.scatter(light, found.light, color=LIGHT_COLOUR, label="light expert alone", **point)
    ax.scatter(1.0, heavy, color=HEAVY_COLOUR, label="heavy expert alone", **point)
    label = _chosen_label(found)
    chosen: Style = dict(color=CHOSEN_COLOUR, zorder=4, s=130, marker="*", label=label)
    ax.scatter(found.ledger.charged, found.cascade, **chosen)
    _label_cascade(ax, heavy, predictions.costs.unit)
    return ax


def _draw_band(ax: Axes, predictions: Predictions, router: Router, table: Curve) -> None:
    heavy, charged = predictions.heavy_accuracy, table.columns["charged"]
    counts = paired_counts(predictions, router, table.columns["escalated"])
    low_T, high_T = paired_interval(*counts, len(predictions), confidence=BAND_CONFIDENCE)
    band: Style = dict(color=CASCADE_COLOUR, alpha=0.15, linewidth=0)
    label = f"{100 * BAND_CONFIDENCE:.0f} % interval of the difference to the heavy expert"
    ax.fill_between(charged, heavy + low_T, heavy + high_T, label=label, **band)
    if router.target == "accuracy":
        label = f"tolerance: {100 * router.limit:g} points below the heavy expert"
        line: Style = dict(color=CHOSEN_COLOUR, linestyle=":", linewidth=1)
        ax.axhline(heavy - router.limit, label=label, **line)


def _draw_curves(ax: Axes, predictions: Predictions, table: Curve) -> None:
    columns, prior = table.columns, table.metadata.get("agflow.prior", "confidence")
    line: Style = dict(color=CASCADE_COLOUR, linewidth=2, label=f"cascade, by {prior}")
    ax.plot(columns["charged"], columns["accuracy"], **line)
    line = dict(color=CASCADE_COLOUR, linewidth=1, alpha=0.5, linestyle="--")
    label = "cascade, light pass of escalated images not counted"
    ax.plot(columns["uncharged"], columns["accuracy"], label=label, **line)
    line = dict(color=RANDOM_COLOUR, linestyle=":", label="cascade, random routing")
    ax.plot(columns["charged"], columns["random_accuracy"], **line)


def _chosen_label(found: RouterEvaluation) -> str:
    counts = np.array([found.lost]), np.array([found.gained])
    low, high = paired_interval(*counts, found.images, confidence=BAND_CONFIDENCE)
    return (
        f"the router's threshold: {100 * (found.cascade - found.heavy):+.1f} points "
        f"({100 * low[0]:+.1f} to {100 * high[0]:+.1f})"
    )


def _label_cascade(ax: Axes, heavy: float, unit: str) -> None:
    _percent_ticks(ax, decimals=1)
    cost = unit if unit == MACS else "cost"
    ax.set_xlabel(f"expected {cost} per image, as a ratio of the heavy expert's")
    ax.set_ylabel("top-1 accuracy")
    to_points = lambda y: 100 * (np.asarray(y) - heavy)
    from_points = lambda difference: heavy + np.asarray(difference) / 100
    points = ax.secondary_yaxis("right", functions=(to_points, from_points))
    points.set_ylabel("difference to the heavy expert, points")
    below: Style = dict(loc="upper center", bbox_to_anchor=(0.5, -0.13))
    ax.legend(ncols=2, fontsize=8, frameon=False, **below)


def plot_reliability(
    predictions: Predictions,
    *,
    prior: str = "max_probability",
    bins: int = 10,
    ax: Axes | None = None,
) -> Axes:
    """Plot a reliability diagram: how often the light expert is right against its confidence.

    Numbers above the bars count the images of a bin; the title has the expected calibration error
    (:func:`agflow.diagnostics.reliability`).

    Parameters
    ----------
    predictions : agflow.Predictions
    prior : one whose values are probabilities, such as "max_probability_scaled"
    bins : of equal width over [0, 1]

    Raises
    ------
    InvalidValueError
        There is no such prior, or its values are not all in [0, 1].

    Examples
    --------
    >>> import agflow, torch
    >>> from agflow.cascade import CascadeCosts, join_predictions
    >>> logits = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    >>> predictions = join_predictions(logits, logits, logits.argmax(1), CascadeCosts(1, 4))
    >>> plot_reliability(predictions).get_ylabel()
    'share of correct answers'
    """
    ax = _axes(ax, (5, 4.5))
    found = reliability(predictions, prior=prior, bins=bins)
    filled = found.counts > 0
    middles = (found.edges[:-1] + found.edges[1:])[filled] / 2
    accuracy, confidence = found.accuracy[filled], found.confidence[filled]
    bars: Style = dict(color=CASCADE_COLOUR, alpha=0.7, label="correct answers")
    ax.bar(middles, accuracy, 0.92 / bins, **bars)
    diagonal: Style = dict(color=HEAVY_COLOUR, linestyle="--", linewidth=1, label="calibrated")
    ax.plot([0, 1], [0, 1], **diagonal)
    means: Style = dict(color=HEAVY_COLOUR, zorder=3, s=18, label="mean of the prior in the bin")
    ax.scatter(confidence, accuracy, **means)
    for x, share, count in zip(middles, accuracy, found.counts[filled], strict=True):
        ax.text(x, share + 0.03, str(count), ha="center", fontsize=7, color=HEAVY_COLOUR)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.08)
    ax.set_xlabel(f"{prior} of the light expert")
    ax.set_ylabel("share of correct answers")
    ax.set_title(f"{len(predictions)} images, expected calibration error {100 * found.ece:.1f} %")
    ax.legend(fontsize=8, frameon=False, loc="upper left")
    return ax


def plot_escalated(
    images: SizedDataset,
    predictions: Predictions,
    router: Router,
    *,
    columns: int = 8,
    rows: int = 2,
    classes: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Show images that escalate above images that the light expert answers alone.

    Both grids run from low to high confidence. The title of an image is the light expert's answer,
    followed by the final answer where the image escalates; a wrong final answer is red, with the
    true class in brackets.

    Parameters
    ----------
    images : images [C, H, W] by the rows of ``predictions``, or pairs of an image and its label
        such as those of a dataset
    predictions : with the router's prior at the router's temperature
    router : agflow.Router
    columns, rows : of each of the two grids; images are taken at even steps where there are more
    classes : names of the classes, by default their numbers

    Raises
    ------
    InvalidValueError
        Images and predictions differ in number, or there is no such prior.

    Examples
    --------
    >>> import agflow, torch
    >>> from agflow.cascade import CascadeCosts, join_predictions
    >>> logits = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    >>> predictions = join_predictions(logits.flip(1), logits, logits.argmax(1), CascadeCosts(1, 4))
    >>> router = agflow.calibrate_router(predictions, escalation=0.5)
    >>> ax = plot_escalated(torch.rand(200, 3, 8, 8), predictions, router, columns=4, rows=1)
    >>> len(ax.images)
    8
    """
    if len(images) != len(predictions):
        raise InvalidValueError(
            f"{len(images)} images and {len(predictions)} predictions were given, expected one of "
            "each an image: pass the images that were predicted, in their order"
        )
    ax = _axes(ax, (1.15 * columns, 2.9 * rows))
    prior_N = predictions.prior(router.prior).astype(np.float64)  # Go compares in float64, too
    order, escalated_N = np.argsort(prior_N, kind="stable"), prior_N < router.threshold
    parts = {
        "escalated": order[escalated_N[order]],
        "answered by the light expert alone": order[~escalated_N[order]],
    }
    for part, (what, members) in enumerate(parts.items()):
        top = -part * (rows + 0.4)
        title = f"{what}: {len(members)} of {len(order)} images"
        ax.text(0, top + 0.15, title, fontsize=9, weight="bold", color=HEAVY_COLOUR)
        for place, row in enumerate(_evenly(members, columns * rows)):
            final = router.answers if escalated_N[row] else None
            text = _title(predictions, row, final, classes)
            _tile(ax, images[row], place % columns, top - place // columns, *text)
    ax.set_xlim(0, columns)
    ax.set_ylim(-2 * rows - 0.4, 0.4)
    ax.set_axis_off()
    return ax


def _evenly(members: np.ndarray, most: int) -> np.ndarray:
    """At most ``most`` members at even steps, the first and the last among them."""
    if not len(members):
        return members
    return members[np.unique(np.linspace(0, len(members) - 1, most).astype(int))]


def _title(
    predictions: Predictions, row: int, final: str | None, classes: Sequence[str] | None
) -> tuple[str, bool]:
    """The answers to an image, the light expert's first, and whether the last is right."""
    columns = ["label", "light_prediction", *([f"{final}_prediction"] if final else [])]
    label, *answers = (int(predictions.columns[column][row]) for column in columns)
    name = str if classes is None else classes.__getitem__
    right = answers[-1] == label
    return " → ".join(map(name, answers)) + ("" if right else f" ({name(label)})"), right


def _tile(ax: Axes, image, x: float, top: float, title: str, right: bool) -> None:
    """Draw an image below its title, in the unit square with the upper left corner (x, top)."""
    image_CHW = np.asarray(image[0] if isinstance(image, tuple) else image, dtype=float)
    low, high = image_CHW.min(), image_CHW.max()
    shown_HWC = ((image_CHW - low) / max(high - low, 1e-12)).transpose(1, 2, 0)
    grey = {"cmap": "gray", "vmin": 0, "vmax": 1} if shown_HWC.shape[2] == 1 else {}
    place = (x + 0.1, x + 0.9, top - 0.97, top - 0.17)
    ax.imshow(shown_HWC.squeeze(), extent=place, aspect="auto", **grey)
    colour = HEAVY_COLOUR if right else WRONG_COLOUR
    ax.text(x + 0.5, top - 0.14, title, ha="center", fontsize=6, color=colour)
