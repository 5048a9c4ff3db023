"""A router on logged predictions is evaluated by definition, and as the cascade it routes runs."""

import numpy as np
import pytest
import torch

import agflow
from agflow.cascade.cascade_evaluation import evaluate_cascade
from agflow.cascade.ledger import CascadeCosts
from agflow.cascade.predictions import ExtraPriors, FixedParameters, join_predictions
from agflow.cascade.router import calibrate_router
from agflow.errors import InvalidValueError
from agflow.evaluation.intervals import paired_interval


def logged(n, seed, fixed=FixedParameters()):
    """Experts of which the heavy one is more often right, both more confident where they are."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=g)
    truth = torch.nn.functional.one_hot(labels, 3)
    light, heavy = (torch.randn(n, 3, generator=g) + strength * truth for strength in (2.0, 3.0))
    predictions = join_predictions(light, heavy, labels, CascadeCosts(20, 100, 5), fixed=fixed)
    return predictions, light, heavy, labels


@pytest.mark.parametrize("answers", ["heavy", "ensemble"])
def test_an_evaluation_is_its_definition(answers):
    held_out = logged(600, 1)[0]
    router = calibrate_router(
        held_out, tolerance=0.05, confidence=0.8, ensemble=answers == "ensemble"
    )
    assert router.verdict == "PASS" and router.answers == answers
    predictions, light, heavy, labels = logged(
        500, 2, FixedParameters(router.temperature, router.light_weight)
    )
    escalated = light.softmax(1).amax(1).double() < router.threshold
    w = router.light_weight
    both = w * light.double().log_softmax(1) + (1 - w) * heavy.double().log_softmax(1)
    answer = torch.where(escalated, both.argmax(1), light.argmax(1))
    found = agflow.evaluate_router(predictions, router)
    assert found.cascade == pytest.approx(float((answer == labels).double().mean()))
    assert found.ledger.escalated == int(escalated.sum()) and found.ledger.charged == pytest.approx(
        0.2 + found.ledger.escalation * 0.95
    )
    assert found.random_low < found.random < found.random_high and found.random < found.cascade
    assert f"{100 * found.cascade:.2f} %" in str(found)
    correct = {"light": light.argmax(1), "heavy": heavy.argmax(1), "cascade": answer}
    for name, predicted in correct.items():
        low, high = getattr(found, f"{name}_interval")
        assert low < float((predicted == labels).double().mean()) < high
    assert found.difference == pytest.approx((found.gained - found.lost) / 500)
    low, high = paired_interval(np.array([found.lost]), np.array([found.gained]), 500)
    assert found.difference_interval == pytest.approx((low[0], high[0]), abs=1e-9)


def test_another_weight_of_the_ensemble_is_refused():
    router = calibrate_router(logged(600, 1)[0], tolerance=0.05, confidence=0.8, ensemble=True)
    with pytest.raises(InvalidValueError, match="predict again with the router.s light_weight"):
        other = FixedParameters(light_weight=router.light_weight / 2)
        agflow.evaluate_router(logged(500, 2, other)[0], router)


def test_the_running_cascade_is_evaluated_the_same(example, loader):
    heavy = example[0]
    light = agflow.models.at_image_size(heavy, 20)
    router = agflow.calibrate_router(
        agflow.predict(light, heavy, loader("train", 0, 300)), tolerance=0.1, confidence=0.6
    )
    images = loader("test", 0, 200)
    predictions = agflow.predict(light, heavy, images, router=router)
    run = evaluate_cascade(agflow.Cascade(light, heavy, router), images, predictions)
    assert run == agflow.evaluate_router(predictions, router) and 0 < run.ledger.escalated < 200
    assert np.isclose(
        run.random, (1 - run.ledger.escalation) * run.light + run.ledger.escalation * run.heavy
    )


def test_a_prior_that_costs_is_charged():
    """Agreement takes a second view of every image; evaluation and router charge it alike."""
    g = torch.Generator().manual_seed(5)
    labels = torch.randint(3, (600,), generator=g)
    light, heavy, view = (
        torch.randn(600, 3, generator=g) + strength * torch.nn.functional.one_hot(labels, 3)
        for strength in (2.0, 3.0, 2.0)
    )
    predictions = join_predictions(
        light,
        heavy,
        labels,
        CascadeCosts(20, 100, second_view=20),
        extra=ExtraPriors(second_view_NK=view),
    )
    router = calibrate_router(predictions, prior="agreement", tolerance=0.1, confidence=0.6)
    found = agflow.evaluate_router(predictions, router)
    assert router.verdict == "PASS" and found.ledger.light_cost == router.ledger.light_cost == 40
    assert found.ledger.charged == pytest.approx(0.4 + found.ledger.escalation)


def test_results_describe_themselves():
    predictions = logged(600, 1)[0]
    router = calibrate_router(predictions, tolerance=0.05, confidence=0.8)
    evaluation = agflow.evaluate_router(predictions, router)
    heavy = f"{100 * predictions.heavy_accuracy:.1f} %"
    charged = f"{router.ledger.charged:.3f}x the heavy expert's"
    for result, words in (
        (predictions, ("600 images", f"heavy {heavy}", "priors max_probability, margin")),
        (router, ("PASS", router.rule, charged)),
        (router.ledger, ("600 images", charged, "gain")),
        (evaluation, ("600 images", charged, "random routing")),
        (agflow.cascade.curve(predictions), (f"{heavy} at 1.150x expected cost",)),
    ):
        assert all(word in repr(result) for word in words), repr(result)
        assert "\n" not in repr(result) and "<table>" in result._repr_html_()


def test_a_cascade_describes_itself(example):
    light = agflow.models.at_image_size(example[0], 20)
    cascade = agflow.Cascade(light, example[0], 0.8)
    assert "escalates when its max_probability is below 0.8" in repr(cascade)
    assert "no image yet" in repr(cascade) and "heavy expert" in cascade._repr_html_()
    cascade(torch.zeros(2, 1, 28, 28))
    assert f"expected cost {cascade.ledger.charged:.3f}x on 2 images" in repr(cascade)
