"""Pictures of utilities, accuracies and the cascade; each function draws on, and returns, a matplotlib Axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

HEAVY, LIGHT, CASCADE, RANDOM = "#33415c", "#f4a261", "#2a9d8f", "#9aa0a6"
CRITERION_COLOURS = {"agf": CASCADE, "agf_relative": "#1d6f65", "magnitude": LIGHT, "random": RANDOM}


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
    ax.boxplot(values, whis=(1, 99), showfliers=False, patch_artist=True, widths=0.6,
               boxprops=dict(facecolor=CASCADE, alpha=0.45, edgecolor=HEAVY), medianprops=dict(color=HEAVY))
    ax.set_yscale("log")
    ax.set_xticks(range(1, len(layers) + 1), [layer.name.removeprefix("blocks.") for layer in layers], rotation=45, ha="right")
    ax.set_xlabel("layer (blocks.)")
    ax.set_ylabel(f"{scores.criterion} per unit")
    ax.set_title(f"Gradient flow per {group} unit: box = quartiles, whiskers = 1 % and 99 %")
    return ax


def plot_stages(accuracies: Mapping[str, Sequence[float]], stages: Sequence[str], dense: float, *,
                ax: Axes | None = None) -> Axes:
    """Accuracy after each stage, one bar a criterion, the dense model as a line.

    Parameters
    ----------
    accuracies : criterion -> accuracy in [0, 1] after each of ``stages``
    """
    ax = _axes(ax, (7, 4))
    width = 0.8 / len(accuracies)
    for i, (criterion, values) in enumerate(accuracies.items()):
        at = np.arange(len(stages)) + (i - (len(accuracies) - 1) / 2) * width
        bars = ax.bar(at, values, width * 0.92, label=criterion, color=CRITERION_COLOURS.get(criterion))
        ax.bar_label(bars, [f"{100 * value:.1f}" for value in values], label_type="center", color="white", fontsize=8)
    ax.axhline(dense, color=HEAVY, linestyle="--", linewidth=1, label=f"dense {100 * dense:.1f} %")
    ax.set_xticks(range(len(stages)), stages)
    ax.set_ylim(0, 1.12)  # room for the legend
    ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_ylabel("top-1 accuracy")
    ax.legend(ncols=len(accuracies) + 1, loc="upper center", fontsize=8, frameon=False)
    return ax


def plot_cascade(curve, *, light: tuple[float, float], heavy: tuple[float, float], chosen: tuple[float, float],
                 ax: Axes | None = None) -> Axes:
    """Accuracy against charged cost over every threshold, with both experts and the chosen threshold.

    Parameters
    ----------
    curve : agflow.Curve
    light, heavy, chosen : (charged cost as a ratio of the heavy expert, accuracy in [0, 1])
    """
    ax = _axes(ax, (7, 4.5))
    table = curve.columns
    ax.plot(table["charged"], table["accuracy"], color=CASCADE, linewidth=2, label="cascade, by confidence")
    ax.plot(table["charged"], table["random_accuracy"], color=RANDOM, linestyle=":", label="cascade, random routing")
    ax.plot(table["uncharged"], table["accuracy"], color=CASCADE, linewidth=1, alpha=0.4, linestyle="--",
            label="the same, light pass of escalated images not charged")
    ax.axvline(1.0, color=HEAVY, linewidth=0.8, alpha=0.5)
    ax.scatter(*light, color=LIGHT, zorder=3, s=70, label="light expert alone")
    ax.scatter(*heavy, color=HEAVY, zorder=3, s=70, label="heavy expert alone")
    ax.scatter(*chosen, color="#d62828", zorder=4, s=110, marker="*", label="chosen threshold")
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    ax.set_xlabel("MACs per image, charged, as a ratio of the heavy expert")
    ax.set_ylabel("top-1 accuracy")
    ax.legend(fontsize=8, frameon=False, loc="lower right")
    return ax
