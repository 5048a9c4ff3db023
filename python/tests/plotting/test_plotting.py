"""The pictures show the figures they are given; the oracle and the reliability are those of a count by hand."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import agflow
from agflow.cascade import curves
from agflow.cascade.curves import oracle
from agflow.cascade.ledger import Costs
from agflow.cascade.predictions import join_predictions
from agflow.cascade.priors import rank
from agflow.cascade.router import calibrate_router
from agflow.diagnostics.confidence import reliability
from agflow.errors import InvalidValueError

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def predictions_of(light_NK, heavy_NK, labels_N):
    return join_predictions(
        light_NK, heavy_NK, labels_N, Costs(light=20, heavy=100), temperature=1.0, light_weight=0.3
    )


@pytest.fixture(scope="module")
def predictions():
    """A light expert that is right where it is sure, and a heavy one that is right more often."""
    torch.manual_seed(0)
    labels_N = torch.arange(300) % 5
    truth_NK = torch.nn.functional.one_hot(labels_N, 5).float()
    return predictions_of(
        2 * truth_NK + torch.randn(300, 5), 4 * truth_NK + torch.randn(300, 5), labels_N
    )


@pytest.mark.parametrize("answers", ["heavy", "both"])
def test_the_oracle_is_a_count(predictions, answers):
    columns = predictions.columns
    light = columns["light_prediction"] == columns["label"]
    gained = ~light & (columns[f"{answers}_prediction"] == columns["label"])
    found = oracle(predictions, ensemble=answers == "both")
    assert (
        found["accuracy"] == pytest.approx((light | gained).mean())
        and found["escalated"] == gained.sum()
    )
    assert found["charged"] == pytest.approx(0.2 + gained.mean())
    assert (
        found["accuracy"]
        >= agflow.cascade.curve(predictions, ensemble=answers == "both", points=1000)
        .columns["accuracy"]
        .max()
    )


def test_rank_is_what_a_router_says_of_the_priors(predictions):
    assert rank(predictions) == calibrate_router(predictions, tolerance=0.1).priors


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
    }
    table = agflow.Predictions(
        pa.RecordBatch.from_pydict(columns, metadata={"agflow.prior": "max_probability"})
    )
    found = reliability(table, bins=bins)
    error, seen = 0.0, 0
    for b in range(bins):
        inside = [i for i, p in enumerate(priors) if (b < p * bins <= b + 1) or (b == 0 and p == 0)]
        assert found.counts[b] == len(inside)
        if inside:
            error += len(inside) * abs(right[inside].mean() - priors[inside].mean())
            seen += len(inside)
    assert seen == len(values) and found.ece == pytest.approx(error / len(values), abs=1e-6)


def test_cascade_with_everything(predictions):
    curve, both, oracle = (
        agflow.cascade.curve(predictions),
        agflow.cascade.curve(predictions, ensemble=True),
        curves.oracle(predictions),
    )
    points = dict(
        light=(0.2, predictions.light_accuracy),
        heavy=(1.0, predictions.heavy_accuracy),
        chosen=(0.5, 0.9),
    )
    ax = agflow.plotting.plot_cascade(
        curve, both=both, oracle=(oracle["charged"], oracle["accuracy"]), **points
    )
    lines = {line.get_label(): line for line in ax.get_lines()}
    np.testing.assert_array_equal(
        lines["the same, both experts answer"].get_ydata(), both.columns["accuracy"]
    )
    assert max(lines["oracle: no router is better"].get_ydata()) == oracle["accuracy"]
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(
        curve.columns["accuracy_low"].min()
    ) and band.max() == pytest.approx(curve.columns["accuracy_high"].max())
    plain = agflow.plotting.plot_cascade(curve, **points, ax=plt.figure().subplots())
    assert len(plain.get_lines()) == len(ax.get_lines()) - 2


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
        int(known.metadata["agflow.utility_macs"]) / agflow.count_macs(heavy)
    )
    assert calibrate_router(known, prior="auto", tolerance=0.5).prior != "agf"
    assert calibrate_router(
        known, prior="agf", tolerance=0.5
    ).ledger.light_macs > agflow.count_macs(light)
    with pytest.raises(InvalidValueError, match="agf"):
        agflow.Cascade(light, heavy, calibrate_router(known, prior="agf", tolerance=0.5))
    with pytest.raises(InvalidValueError, match="the loader has 30 images, the predictions 60"):
        agflow.research.with_utilities(known, light, loader("test", 0, 30))
