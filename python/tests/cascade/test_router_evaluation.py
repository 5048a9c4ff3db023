"""A router on logged predictions is judged as it is by definition, and as the cascade it routes runs."""

import numpy as np
import pytest
import torch

import agflow
from agflow.cascade.ledger import Costs
from agflow.cascade.predictions import join_predictions
from agflow.cascade.router import calibrate_router
from agflow.cascade.router_evaluation import evaluate_cascade
from agflow.errors import InvalidValueError


def logged(n, seed, **fitted):
    """Experts of which the heavy one is more often right, and both surer where they are."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=g)
    truth = torch.nn.functional.one_hot(labels, 3)
    light, heavy = (torch.randn(n, 3, generator=g) + strength * truth for strength in (2.0, 3.0))
    return join_predictions(light, heavy, labels, Costs(20, 100, 5), **fitted), light, heavy, labels


@pytest.mark.parametrize("answers", ["heavy", "both"])
def test_a_judgement_is_its_definition(answers):
    held_out = logged(600, 1)[0]
    router = calibrate_router(held_out, tolerance=0.05, confidence=0.8, ensemble=answers == "both")
    assert router.verdict == "PASS" and router.answers == answers
    predictions, light, heavy, labels = logged(
        500, 2, temperature=router.temperature, light_weight=router.light_weight
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


def test_another_weight_of_both_answers_is_refused():
    router = calibrate_router(logged(600, 1)[0], tolerance=0.05, confidence=0.8, ensemble=True)
    with pytest.raises(InvalidValueError, match="predict again with the router.s light_weight"):
        agflow.evaluate_router(logged(500, 2, light_weight=router.light_weight / 2)[0], router)


def test_the_running_cascade_is_judged_the_same(example, loader):
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
    """Agreement takes a second look of every image: the judgement charges it as the router's own ledger does."""
    g = torch.Generator().manual_seed(5)
    labels = torch.randint(3, (600,), generator=g)
    light, heavy, look = (
        torch.randn(600, 3, generator=g) + strength * torch.nn.functional.one_hot(labels, 3)
        for strength in (2.0, 3.0, 2.0)
    )
    predictions = join_predictions(
        light, heavy, labels, Costs(20, 100, look=20), second_view_NK=look
    )
    router = calibrate_router(predictions, prior="agreement", tolerance=0.1, confidence=0.6)
    found = agflow.evaluate_router(predictions, router)
    assert router.verdict == "PASS" and found.ledger.light_macs == router.ledger.light_macs == 40
    assert found.ledger.charged == pytest.approx(0.4 + found.ledger.escalation)
