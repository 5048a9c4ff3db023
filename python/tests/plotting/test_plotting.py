"""Plots show the figures of the results; oracle, reliability and interval equal counts by hand."""

from dataclasses import fields

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings, strategies as st

import agflow
from agflow.cascade.curves import curve, oracle
from agflow.cascade.ledger import CascadeCosts
from agflow.cascade.predictions import FixedParameters, join_predictions
from agflow.cascade.prior_quality import rank_priors
from agflow.cascade.router import calibrate_router
from agflow.diagnostics.confidence import reliability
from agflow.diagnostics.paired import paired_counts
from agflow.errors import InvalidValueError
from agflow.evaluation.accuracy import Accuracy
from agflow.evaluation.intervals import paired_interval
from agflow.recipes.results import RunResult, Stages

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def predictions_of(light_NK, heavy_NK, labels_N):
    return join_predictions(
        light_NK, heavy_NK, labels_N, CascadeCosts(20, 100), fixed=FixedParameters(1.0, 0.3)
    )


@pytest.fixture(scope="module")
def predictions():
    """A light expert that is right where it is confident; the heavy one is right more often."""
    torch.manual_seed(0)
    labels_N = torch.arange(300) % 5
    truth_NK = torch.nn.functional.one_hot(labels_N, 5).float()
    return predictions_of(
        2 * truth_NK + torch.randn(300, 5), 4 * truth_NK + torch.randn(300, 5), labels_N
    )


@pytest.mark.parametrize("answers", ["heavy", "ensemble"])
def test_the_oracle_is_a_count(predictions, answers):
    columns = predictions.columns
    light = columns["light_prediction"] == columns["label"]
    gained = ~light & (columns[f"{answers}_prediction"] == columns["label"])
    found = oracle(predictions, ensemble=answers == "ensemble")
    assert (
        found["accuracy"] == pytest.approx((light | gained).mean())
        and found["escalated"] == gained.sum()
    )
    assert found["charged"] == pytest.approx(0.2 + gained.mean())
    assert (
        found["accuracy"]
        >= agflow.cascade.curve(predictions, ensemble=answers == "ensemble", points=1000)
        .columns["accuracy"]
        .max()
    )


def test_rank_equals_the_priors_of_a_router(predictions):
    assert rank_priors(predictions) == calibrate_router(predictions, tolerance=0.1).priors


@given(
    values=st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=40),
    bins=st.integers(1, 12),
)
@settings(deadline=None, max_examples=60)
def test_reliability_is_a_count(predictions, values, bins):
    priors, right = (np.array(column) for column in zip(*values, strict=True))
    columns = {
        "label": np.zeros(len(values), np.int64),
        "light_prediction": (~right).astype(np.int64),
        "light_prior": priors.astype(np.float32),
        "heavy_prediction": np.zeros(len(values), np.int64),
    }
    table = agflow.Predictions(pa.table(columns), metadata=predictions.metadata)
    found = reliability(table, bins=bins)
    error, seen = 0.0, 0
    for b in range(bins):
        inside = [i for i, p in enumerate(priors) if (b < p * bins <= b + 1) or (b == 0 and p == 0)]
        assert found.counts[b] == len(inside)
        if inside:
            error += len(inside) * abs(right[inside].mean() - priors[inside].mean())
            seen += len(inside)
    assert seen == len(values) and found.ece == pytest.approx(error / len(values), abs=1e-6)


@pytest.fixture(params=[False, True], ids=["heavy", "ensemble"])
def router(request, predictions):
    router = calibrate_router(predictions, tolerance=0.05, ensemble=request.param)
    assert router.verdict == "PASS" and 0 < router.escalation < 1
    return router


def test_cascade_shows_curve_points_and_tolerance(predictions, router):
    averaged = router.answers == "ensemble"
    ax = agflow.plotting.plot_cascade(predictions, router)
    columns = curve(predictions, ensemble=averaged).columns
    lines = {line.get_label(): line for line in ax.get_lines()}
    cascade = lines["cascade, by max_probability"]
    np.testing.assert_array_equal(cascade.get_xdata(), columns["charged"])
    np.testing.assert_array_equal(cascade.get_ydata(), columns["accuracy"])
    best = oracle(predictions, ensemble=averaged)
    assert max(lines["oracle: no router is better"].get_ydata()) == best["accuracy"]
    (tolerance,) = lines["tolerance: 5 points below the heavy expert"].get_ydata()[:1]
    assert tolerance == pytest.approx(predictions.heavy_accuracy - 0.05)
    points = {
        points.get_label().split(":")[0]: tuple(points.get_offsets()[0])
        for points in ax.collections[1:]
    }
    found = agflow.evaluate_router(predictions, router)
    assert points["the router's threshold"] == (found.ledger.charged, found.cascade)
    assert points["light expert alone"] == (0.2, predictions.light_accuracy)
    assert points["heavy expert alone"] == (1.0, predictions.heavy_accuracy)


def test_the_band_is_the_paired_difference_to_the_heavy_expert(predictions, router):
    ax = agflow.plotting.plot_cascade(predictions, router, ax=plt.figure().subplots())
    columns = curve(predictions, ensemble=router.answers == "ensemble").columns
    right = {
        name: predictions.columns[f"{name}_prediction"] == predictions.columns["label"]
        for name in ("light", "heavy", router.answers)
    }
    lost, gained = [], []
    for threshold in columns["threshold"]:
        escalates = predictions.columns["light_prior"].astype(float) < threshold
        final = np.where(escalates, right[router.answers], right["light"])
        lost.append((right["heavy"] & ~final).sum())
        gained.append((~right["heavy"] & final).sum())
    counts = paired_counts(predictions, router, columns["escalated"])
    np.testing.assert_array_equal(counts, (lost, gained))
    low, high = paired_interval(*counts, len(predictions))
    band = ax.collections[0].get_paths()[0].vertices[:, 1] - predictions.heavy_accuracy
    assert band.min() == pytest.approx(low.min()) and band.max() == pytest.approx(high.max())
    assert (low <= columns["accuracy"] - predictions.heavy_accuracy + 1e-12).all()


def test_the_ensemble_is_drawn_where_it_is_asked_for(predictions):
    router = calibrate_router(predictions, tolerance=0.05)
    plain, more = (
        agflow.plotting.plot_cascade(
            predictions, router, ensemble=ensemble, ax=plt.figure().subplots()
        )
        for ensemble in (False, True)
    )
    assert len(more.get_lines()) == len(plain.get_lines()) + 1
    lines = {line.get_label(): line for line in more.get_lines()}
    np.testing.assert_array_equal(
        lines["cascade, both experts answer"].get_ydata(),
        curve(predictions, ensemble=True).columns["accuracy"],
    )


def score_by_search(lost, gained, images, difference):
    """Tango's score, with the most likely rates at ``difference`` found by search."""
    loss = np.linspace(max(0, -difference), (1 - difference) / 2, 200_001)[1:-1]
    log = (
        lost * np.log(loss)
        + gained * np.log(loss + difference)
        + (images - lost - gained) * np.log(1 - 2 * loss - difference)
    )
    best = loss[np.argmax(log)]
    variance = (2 * best + difference - difference**2) / images
    return ((gained - lost) / images - difference) / np.sqrt(variance)


@pytest.mark.parametrize(("lost", "gained", "images"), [(3, 9, 100), (20, 5, 150), (1, 1, 40)])
def test_the_ends_of_the_interval_have_the_score_of_the_quantile(lost, gained, images):
    low, high = paired_interval(np.array([lost]), np.array([gained]), images)
    for end, quantile in ((low[0], 1.959964), (high[0], -1.959964)):
        score = score_by_search(lost, gained, images, end)
        assert score == pytest.approx(quantile, abs=1e-3)


def test_the_interval_of_equal_answers_shrinks_with_the_images():
    none = np.zeros(1, int)
    low, high = paired_interval(none, none, 1000)
    assert high[0] == pytest.approx(1.959964**2 / (1000 + 1.959964**2)) and low[0] == -high[0]


def test_stages_show_every_accuracy():
    accuracy = lambda top1: Accuracy(top1, top1, 100, 10)
    stages = {
        "agf": Stages(accuracy(0.25), accuracy(0.75), accuracy(0.875), 2),
        "random": Stages(accuracy(0.125), accuracy(0.5), accuracy(0.8125), 2),
    }
    result = RunResult(
        **{field.name: None for field in fields(RunResult)}
        | {"stages": stages, "dense": accuracy(0.9)}
    )
    ax = agflow.plotting.plot_stages(result)
    heights = [[bar.get_height() for bar in bars] for bars in ax.containers]
    assert heights == [[0.25, 0.75, 0.875], [0.125, 0.5, 0.8125]]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [
        "pruned",
        "repaired",
        "fine-tuned, 2 epochs",
    ]
    assert ax.get_lines()[0].get_label() == "dense 90.0 %"


def test_reliability_shows_counts_and_error(predictions):
    found, ax = reliability(predictions), agflow.plotting.plot_reliability(predictions)
    assert f"{100 * found.ece:.1f} %" in ax.get_title()
    assert [text.get_text() for text in ax.texts] == [str(count) for count in found.counts if count]
    with pytest.raises(InvalidValueError, match="'energy' runs from .*, expected probabilities"):
        agflow.plotting.plot_reliability(predictions, prior="energy")
    with pytest.raises(
        InvalidValueError, match="no prior 'agf'; they have max_probability, margin"
    ):
        agflow.plotting.plot_reliability(predictions, prior="agf")


@pytest.mark.parametrize("channels", [1, 3])
def test_what_escalates_stands_above_what_does_not(predictions, channels):
    router = calibrate_router(predictions, escalation=0.4)
    images = torch.rand(len(predictions), channels, 6, 6)
    ax = agflow.plotting.plot_escalated(images, predictions, router, columns=5, rows=2)
    escalated = (predictions.columns["light_prior"] < router.threshold).sum()
    texts = [text.get_text() for text in ax.texts]
    assert (
        f"escalated: {escalated} of 300 images" in texts
        and f"answered by the light expert alone: {300 - escalated} of 300 images" in texts
    )
    assert len(ax.images) == 20
    assert sum("→" in text for text in texts) == 10
    with pytest.raises(InvalidValueError, match="299 images and 300 predictions"):
        agflow.plotting.plot_escalated(images[1:], predictions, router)


def test_nothing_may_escalate(predictions):
    router = calibrate_router(predictions, escalation=0.0)
    ax = agflow.plotting.plot_escalated(
        [(image, 0) for image in torch.rand(len(predictions), 1, 4, 4)],
        predictions,
        router,
        classes=list("abcde"),
    )
    assert (
        "escalated: 0 of 300 images" in [text.get_text() for text in ax.texts]
        and len(ax.images) == 16
    )


def test_the_prior_agf_is_charged(predictions, example, light, loader):
    heavy, images = example[0], loader("test", 0, 60)
    known = agflow.research.with_utilities(agflow.predict(light, heavy, images), light, images)
    plain, charged = (
        agflow.cascade.curve(known, prior=prior, points=2).columns["charged"][0]
        for prior in ("max_probability", "agf")
    )
    assert charged - plain == pytest.approx(
        int(known.metadata["agflow.utility_cost"]) / agflow.count_macs(heavy)
    )
    assert calibrate_router(known, prior="auto", tolerance=0.5).prior != "agf"
    assert calibrate_router(
        known, prior="agf", tolerance=0.5
    ).ledger.light_cost > agflow.count_macs(light)
    with pytest.raises(InvalidValueError, match="agf"):
        agflow.Cascade(light, heavy, calibrate_router(known, prior="agf", tolerance=0.5))
    with pytest.raises(InvalidValueError, match="the loader has 30 images, the predictions 60"):
        agflow.research.with_utilities(known, light, loader("test", 0, 30))
