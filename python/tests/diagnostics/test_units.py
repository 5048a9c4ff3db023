"""Diagnostics and the two primitives: figures equal numpy's, and mistakes are one clear error."""

import copy

import numpy as np
import pyarrow as pa
import pytest
import torch

import agflow
from agflow import calibrate
from agflow.diagnostics import RandomControl, against_random, diagnose, stability
from agflow.errors import (
    DtypeError,
    EmptyError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
    UnknownLayerError,
)
from agflow.functional import top_k, utility
from agflow.pruning import score


@pytest.fixture(scope="module")
def measured():
    """A small model with statistics of each of six batches of four images."""
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=32, patch_size=8, num_classes=10, embed_dim=48, depth=2, num_heads=4, mlp_ratio=2.0
    ).eval()
    batches = list(
        zip(torch.randn(24, 3, 32, 32).split(4), torch.randint(0, 10, (24,)).split(4), strict=True)
    )
    return model, batches, [calibrate(model, [batch]) for batch in batches]


def kept(scores, layer, ratio):
    values = scores.of(layer)
    return set(
        np.lexsort((np.arange(len(values)), -values))[
            : max(1, int((1 - ratio) * len(values) + 1e-9))
        ].tolist()
    )


def jaccard(a, b):
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("workers", [1, 3])
def test_utility_is_the_mean_magnitude_bit_for_bit(dtype, workers):
    random = np.random.default_rng(0)
    y, g = (random.standard_normal((50, 33)).astype(dtype) for _ in "yg")
    expected = np.add.accumulate(np.abs(y.astype(np.float64) * g.astype(np.float64)))[-1] / 50
    assert np.array_equal(utility(y, g, workers=workers), expected)
    assert np.array_equal(utility(torch.from_numpy(y), torch.from_numpy(g)), expected)


def test_utility_of_a_layer_is_its_agf_score(make_vit, images):
    from agflow.calibration.hooks import capture
    from agflow.calibration.loss import per_image_loss
    from agflow.models import adapter_for

    model = make_vit()
    layers = [layer for layer in adapter_for(model).layers(model) if layer.kind == "mlp"]
    found = {}
    with capture(
        model, layers, lambda index, _, y, g: found.update({layers[index].name: utility(y, g)})
    ):
        per_image_loss(model(images[0]), images[1]).backward()
    scores = score(calibrate(model, [images], groups=["mlp"]))
    assert (
        all(np.array_equal(scores.of(name), u_C) for name, u_C in found.items()) and len(found) == 3
    )


def test_utility_refusals():
    ones = np.ones((4, 3), np.float32)
    with pytest.raises(EmptyError, match="no rows"):
        utility(ones[:0], ones[:0])
    with pytest.raises(ShapeError):
        utility(ones, ones[:3])
    with pytest.raises(DtypeError):
        utility(ones, ones.astype(np.float64))
    with pytest.raises(NonFiniteError):
        utility(ones, ones * np.float32("nan"))


@pytest.mark.parametrize("workers", [1, 4])
def test_top_k_takes_ties_by_the_lower_index(workers):
    scores = np.random.default_rng(0).integers(0, 9, 2_000).astype(float)
    for k in (0, 1, 700, 2_000):
        mask = top_k(scores, k, workers=workers)
        assert mask.type == pa.bool_() and mask.null_count == 0
        assert set(np.flatnonzero(mask.to_numpy(zero_copy_only=False))) == set(
            np.lexsort((np.arange(2_000), -scores))[:k]
        )


@pytest.mark.parametrize("kind", [list, np.float32, torch.tensor, pa.array])
def test_top_k_of_anything_numpy_can_see(kind):
    assert top_k(kind([3.0, 1.0, 2.0]), 2).to_pylist() == [True, False, True]


def test_top_k_refusals():
    with pytest.raises(InvalidValueError, match="between 0 and"):
        top_k([1.0, 2.0], 3)
    with pytest.raises(NonFiniteError, match="NaN"):
        top_k([1.0, float("nan")], 1)
    with pytest.raises(ShapeError, match="flatten"):
        top_k(np.ones((2, 2)), 1)
    with pytest.raises(DtypeError, match="pass an array of numbers"):
        top_k(["a", "b"], 1)


def test_diagnose_equals_numpy(measured):
    statistics = measured[2][0].merge(*measured[2][1:])
    found = diagnose(statistics, criteria=["agf", "magnitude", "activation"], pruning_ratio=0.25)
    scores = {name: score(statistics, name) for name in found.ranges}
    for name, ranges in found.ranges.items():
        values = scores[name].columns["score"]
        assert ranges.overall.max_over_median == pytest.approx(
            values.max() / np.median(values), rel=1e-12
        )
        assert ranges.overall.p99_over_p1 == pytest.approx(
            np.percentile(values, 99) / np.percentile(values, 1), rel=1e-12
        )
        for layer, inside in ranges.layers.items():
            assert inside.max == scores[name].of(layer).max() and inside.median == pytest.approx(
                np.median(scores[name].of(layer))
            )
    assert set(found.agreements) == {
        ("agf", "magnitude"),
        ("agf", "activation"),
        ("magnitude", "activation"),
    }
    assert found.agreement("magnitude", "agf") is found.agreements["agf", "magnitude"]
    for (a, b), match in found.agreements.items():
        for layer, inside in match.layers.items():
            assert inside.jaccard == jaccard(*(kept(scores[name], layer, 0.25) for name in (a, b)))
            ranks = [scores[name].of(layer).argsort().argsort() for name in (a, b)]
            assert inside.spearman == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_diagnose_takes_what_the_statistics_suffice_for(measured):
    found = diagnose(measured[2][0])
    assert set(found.ranges) == set(agflow.criteria()) - {"taylor_weight"}
    lines = str(found).splitlines()
    assert lines[0].split() == ["dynamic", "range", "max/median", "p99/p1"] and lines[1].startswith(
        "agf "
    )
    assert "Jaccard" in str(found) and "Jaccard" not in str(
        diagnose(measured[2][0], criteria=["agf"])
    )
    with pytest.raises(UnknownLayerError, match="weight_gradients"):
        diagnose(measured[2][0], criteria=["taylor_weight"])
    with pytest.raises(InvalidValueError, match="pruning_ratio is 1"):
        diagnose(measured[2][0], pruning_ratio=1.0)


def test_stability_grows_with_the_batches_and_follows_the_seed(measured):
    tables = measured[2]
    found = stability(tables, sizes=(1, 50), draws=30)
    assert (found.batches, found.draws, found.criterion) == (6, 30, "agf") and list(
        found.sizes
    ) == [1, 50]
    few, many = (found.sizes[size].overall for size in (1, 50))
    assert few.p5 <= few.mean <= few.p95 and few.mean < many.mean <= 1
    assert (
        found
        == stability(tables, sizes=(1, 50), draws=30)
        != stability(tables, sizes=(1, 50), draws=30, seed=1)
    )
    assert str(found).splitlines()[2].split()[0] == "1"


def test_stability_of_one_draw_is_a_jaccard_of_one_batch(measured):
    """The magnitude does not depend on batches, so that every draw keeps what all batches keep.

    With agf a draw of one keeps what some batch does.
    """
    tables = measured[2]
    assert stability(tables, criterion="magnitude", sizes=[1], draws=3).sizes[1].overall.mean == 1
    whole = score(tables[0].merge(*tables[1:]))
    each = {
        jaccard(kept(score(table), "blocks.0.mlp", 0.5), kept(whole, "blocks.0.mlp", 0.5))
        for table in tables
    }
    assert stability(tables, sizes=[1], draws=1).sizes[1].layers["blocks.0.mlp"].mean in each


def test_stability_refusals(measured, make_vit, images):
    tables = measured[2]
    with pytest.raises(EmptyError, match="one a batch"):
        stability([])
    with pytest.raises(InvalidValueError, match="at least two batches"):
        stability(tables[:1])
    with pytest.raises((ShapeError, UnknownLayerError)):
        stability([tables[0], calibrate(make_vit(), [images])])
    with pytest.raises(InvalidValueError, match="draws"):
        stability(tables, draws=0)


def test_a_good_criterion_beats_random(measured):
    """Half of the hidden channels have zero reading weights, and the labels are the predictions.

    Removing those channels costs nothing, removing others does.
    """
    model, batches, _ = measured
    model = copy.deepcopy(model)
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.fc2.weight[:, ::2] = 0
            block.mlp.fc2.weight *= 10
        own = [(images, model(images).argmax(1)) for images, _ in batches]
    statistics = calibrate(model, own, groups=["mlp"])
    found = against_random(model, statistics, own, control=RandomControl(draws=19))
    assert (
        found.verdict == "better than random here"
        and found.p_value == 0.05
        and found.draws == found.needed_draws == 19
    )
    assert found.random_min <= found.random_mean <= found.random_max < found.accuracy == 1
    assert str(found).startswith("better than random here: 100.00 %, random ")
    few = against_random(model, statistics, own, control=RandomControl(draws=3))
    assert few.verdict == "insufficient draws" and "19 draws would do" in str(few)
    itself = against_random(model, statistics, own, criterion="random", seed=7)
    assert itself.verdict == "not distinguishable from random here", (
        "the first draw is the same model"
    )


def test_against_random_compensates(measured):
    model, batches, _ = measured
    statistics = calibrate(model, batches)
    with pytest.raises(InvalidValueError, match="needs images"):
        against_random(
            model, statistics, batches, control=RandomControl(compensate="ridge", draws=1)
        )
    found = against_random(
        model,
        statistics,
        batches,
        control=RandomControl(calibration=batches, compensate="mean", draws=1),
    )
    assert 0 <= found.accuracy <= 1 and found.draws == 1


def test_against_random_refusals(measured):
    model, batches, tables = measured
    with pytest.raises(InvalidValueError, match="loader can be read only once, but 20 models"):
        against_random(model, tables[0], iter(batches))
    with pytest.raises(InvalidValueError, match="calibration can be read only once"):
        against_random(model, tables[0], batches, control=RandomControl(calibration=iter(batches)))
    with pytest.raises(EmptyError, match="random draws"):
        RandomControl(draws=0)
    with pytest.raises(InvalidValueError, match="confidence is 1"):
        RandomControl(confidence=1)
