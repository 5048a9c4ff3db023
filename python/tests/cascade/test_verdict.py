"""The verdict on both counts: no loss is announced as a success, whatever it is asked of."""

import json

import pytest
import torch

import agflow
from agflow.cascade import CascadeCosts, Verdict, join_predictions
from agflow.evaluation import Timing


def logged(n, costs, *, strength=2.5, seed=0):
    """Two experts of which the heavy one is right wherever the light one is confident."""
    g = torch.Generator().manual_seed(seed)
    labels_N = torch.randint(3, (n,), generator=g)
    truth_NK = torch.nn.functional.one_hot(labels_N, 3)
    light_NK = torch.randn(n, 3, generator=g) + strength * truth_NK
    return join_predictions(light_NK, 9.0 * truth_NK, labels_N, costs)


def confidently_wrong(n, costs):
    labels_N = torch.zeros(n, dtype=torch.long)
    light_NK, heavy_NK = (
        9.0 * torch.nn.functional.one_hot(labels_N + answer, 3) for answer in (1, 0)
    )
    return join_predictions(light_NK, heavy_NK, labels_N, costs)


def router_of(costs, n=2000, **options):
    return agflow.calibrate_router(logged(n, costs), tolerance=0.02, **options)


def speed(ratio):
    return Timing((ratio,) * 5).speed_over(Timing((1.0,) * 5))


def test_a_pass_at_a_loss_is_no_success():
    router = router_of(CascadeCosts(96, 100))
    assert router.verdict == "PASS" and router.ledger.verdict == "loss"
    counts = router.counts
    assert (counts.guarantee, counts.cost, counts.clock) == ("PASS", "loss", "")
    assert not counts.deploy and "make the light expert smaller" in counts.cure
    for text in (str(counts), repr(router), router._repr_html_()):
        assert "PASS, but a LOSS: " in text and "do not deploy this cascade" in text
    assert router._repr_html_().startswith("<b>PASS, but a LOSS: ")
    assert counts.next("serve it") == f"next: {counts.cure}"


def test_a_pass_at_a_gain():
    counts = router_of(CascadeCosts(20, 100)).counts
    assert counts.deploy and str(counts).startswith("PASS and a gain: ")
    assert counts.next("serve it") == "next: serve it"


@pytest.mark.parametrize(
    ("predictions", "guarantee", "cure"),
    [
        (logged(60, CascadeCosts(20, 100), strength=4.0), "INSUFFICIENT DATA", "hold out about"),
        (confidently_wrong(600, CascadeCosts(20, 100)), "FAIL", "more accurate"),
    ],
)
def test_without_a_guarantee_nothing_is_deployed(predictions, guarantee, cure):
    router = agflow.calibrate_router(predictions, tolerance=0.02)
    counts = router.counts
    assert router.verdict == counts.guarantee == guarantee and not counts.deploy
    assert counts.line.startswith(f"{guarantee} and a LOSS: 1.200x") and cure in counts.cure
    assert "every image escalates" in counts.meaning


def test_the_clock_counts_where_it_tells():
    router = router_of(CascadeCosts(20, 100))
    slower = Verdict.of(router, speed=speed(1.25))
    assert not slower.deploy and slower.clock == "loss" and slower.cost == "gain"
    assert "LOSS by the clock" in slower.line and "the clock contradicts: 0.80x" in slower.line
    noisy = Verdict.of(router, speed=Timing((1.25, 0.5, 2.0)).speed_over(Timing((1.0,) * 3)))
    assert noisy.deploy and "the clock is too noisy to tell" in noisy.line
    faster = Verdict.of(router, speed=speed(0.5))
    assert faster.deploy and faster.line.endswith(", 2.00x its images/s")
    dear = Verdict.of(router_of(CascadeCosts(96, 100)), speed=speed(0.5))
    assert not dear.deploy and "a LOSS by MACs" in dear.line and "contradicts" in dear.line


@pytest.mark.parametrize("unit", ["ms", "EUR"])
def test_costs_are_named_by_their_unit(unit):
    line = router_of(CascadeCosts(20, 100, unit=unit)).counts.line
    assert f"the heavy expert's cost per image ({unit})" in line and "MACs" not in line


def test_test_images_can_break_a_guarantee():
    costs = CascadeCosts(20, 100)
    router = router_of(costs)
    assert agflow.evaluate_router(logged(1000, costs, seed=1), router).counts.deploy
    found = agflow.evaluate_router(confidently_wrong(1000, costs), router)
    assert found.lost == 1000 and found.counts.guarantee == "FAIL" and not found.counts.deploy
    assert repr(found).startswith("<agflow.RouterEvaluation: FAIL, but a gain: ")
    assert "does not hold on 1000 test images" in found._repr_html_()


def test_the_verdict_is_that_of_the_command(tmp_path):
    router = router_of(CascadeCosts(20, 100))
    router.save(tmp_path / "router.json")
    assert agflow.Router.load(tmp_path / "router.json").counts == router.counts
    written = json.loads((tmp_path / "router.json").read_text())
    assert "counts" not in written and written["verdict"] == "PASS"
