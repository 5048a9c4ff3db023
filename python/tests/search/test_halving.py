"""Design of a cascade: the exact curve, the cheapest candidate, equal bits for equal seeds."""

import copy
import json

import numpy as np
import pytest
import torch

import agflow
from agflow import commands
from agflow.cascade.ledger import CascadeCosts
from agflow.cascade.predictions import join_predictions
from agflow.cascade.verdict import Verdict
from agflow.errors import BudgetError, EmptyError, InvalidValueError
from agflow.evaluation.accuracy import logits
from agflow.models import count_macs, prefix_macs
from agflow.search.candidates import Candidate, candidates
from agflow.search.frontier import Frontier, evaluate_candidate
from agflow.search.halving import design_cascade
from agflow.search.space import SearchSpace

ASKED = {
    "space": SearchSpace(image_sizes=(28, 16), macs=(1.0, 0.5), shared_blocks=(0, 2)),
    "tolerance": 0.01,
    "epochs": 2,
    "seed": 1,
}


@pytest.fixture(scope="module")
def splits(loader):
    return loader("train", 0, 96, 32), loader("train", 96, 296), loader("train", 296, 496)


@pytest.fixture(scope="module")
def design(example, splits):
    return design_cascade(example[0], *splits[:2], **ASKED)


def same(a, b):
    return a.state_dict().keys() == b.state_dict().keys() and all(
        torch.equal(tensor, b.state_dict()[name]) for name, tensor in a.state_dict().items()
    )


def test_what_is_searched(example):
    small = Candidate((16, 16), 1.0), Candidate((16, 16), 0.5)
    space = SearchSpace(image_sizes=(28, 16), groups=("mlp",), shared_blocks=(0, 2))
    assert candidates(example[0], space) == [
        Candidate((28, 28), 0.5),
        Candidate((28, 28), 0.5, shared_blocks=2),
        *small,
    ]
    assert candidates(example[0], SearchSpace(image_sizes=(16,), groups=("mlp", "block"))) == [
        *small,
        Candidate((16, 16), 0.5, drops=True),
    ]
    half = SearchSpace(macs=(0.5,), groups=("mlp",))
    assert {found.image_size for found in candidates(example[0], half)} == {
        (28, 28),
        (20, 20),
        (16, 16),
        (12, 12),
    }


def test_stages_halve_and_the_cheapest_of_all_is_chosen(design, example):
    rows = design.frontier.rows
    by_stage = {
        stage: [row for row in rows if row.stage == stage] for stage in ("pruned", "short", "full")
    }
    assert [len(of) for of in by_stage.values()] == [4, 2, 2]
    assert {(row.image_size, row.width, row.shared_blocks) for row in by_stage["pruned"]} == {
        ("28x28", 0.5, 0),
        ("28x28", 0.5, 2),
        ("16x16", 1.0, 0),
        ("16x16", 0.5, 0),
    }
    trained = sorted(by_stage["pruned"], key=lambda row: row.oracle)[:2]
    assert {(row.image_size, row.width, row.shared_blocks) for row in by_stage["short"]} == {
        (row.image_size, row.width, row.shared_blocks) for row in trained
    }
    assert design.chosen == design.frontier.chosen and design.chosen.charged == min(
        row.charged for row in rows
    )
    heavy, slack = (
        float(design.frontier.metadata[f"agflow.{name}"])
        for name in ("heavy_accuracy", "tolerance")
    )
    assert (
        slack == pytest.approx(max(ASKED["tolerance"], (heavy * (1 - heavy) / 200) ** 0.5))
        and design.tolerance == ASKED["tolerance"]
    )
    assert all(row.accuracy >= heavy - slack - 1e-9 for row in rows)
    cost = f"expected cost {design.chosen.charged:.3f}x"
    assert str(design).count("->") == 1 and cost in str(design)
    assert str(design).startswith("Not guaranteed yet, and a ")
    assert design.frontier.markdown().count("\n| pruned") == 4
    for result in (design, design.frontier):
        assert cost in repr(result) and "\n" not in repr(result)
        assert result._repr_html_().count("<tr") == 9


def test_the_light_expert_is_the_one_that_was_evaluated(design, example, splits):
    light_NK, labels = logits(design.light, splits[1])
    assert float((light_NK.argmax(1) == labels).double().mean()) == design.chosen.light_accuracy
    assert count_macs(design.light) / count_macs(example[0]) == pytest.approx(
        design.chosen.light, rel=1e-12
    )
    cascade = design.cascade(design.chosen.threshold)
    for x, _ in splits[1]:
        cascade(x)
    assert cascade.ledger.escalation == pytest.approx(
        design.chosen.escalation
    ) and cascade.ledger.charged == pytest.approx(design.chosen.charged)


@pytest.mark.slow
def test_equal_seeds_give_equal_bits_and_the_heavy_expert_is_left_alone(design, example, splits):
    before = copy.deepcopy(example[0])
    torch.manual_seed(99)
    again = design_cascade(example[0], *splits[:2], **ASKED)
    assert (
        again.frontier == design.frontier
        and same(again.light, design.light)
        and again.tuning == design.tuning
    )
    assert same(example[0], before) and all(
        parameter.requires_grad and parameter.grad is None for parameter in example[0].parameters()
    )


def test_the_threshold_is_calibrated_on_other_images_only(design, splits):
    router = design.calibrate(splits[2], tolerance=0.05)
    assert router.limit == 0.05 and router.ledger.light_cost == count_macs(design.light)
    assert design.calibrate(design.predict(splits[2]), tolerance=0.05) == router
    for used in splits[:2]:
        with pytest.raises(InvalidValueError, match="tuned"):
            design.calibrate(used)


def test_a_shared_prefix_stays_the_heavy_experts_through_cut_and_training(example, splits):
    found = design_cascade(
        example[0],
        *splits[:2],
        space=SearchSpace(
            image_sizes=(28,), macs=(0.7,), shared_blocks=(3,), groups=("mlp", "heads", "block")
        ),
        epochs=1,
    )
    assert (
        found.shared_blocks == 3 and len(found.frontier) == 4
    )  # with whole branches among what may go, and without
    assert found.cascade(0.5).costs.shared == prefix_macs(example[0], 3)
    assert found.chosen.charged == pytest.approx(
        found.chosen.light
        + found.chosen.escalation * (1 - prefix_macs(example[0], 3) / count_macs(example[0]))
    )


@pytest.mark.parametrize("answers", ["heavy", "ensemble"])
@pytest.mark.parametrize("seed", range(4))
def test_the_cheapest_threshold_is_that_of_a_search_through_all(seed, answers):
    random = np.random.default_rng(seed)
    labels = torch.from_numpy(random.integers(0, 4, 120))
    light, heavy = (
        torch.from_numpy(random.normal(0, 1, (120, 4)).astype(np.float32)) for _ in range(2)
    )
    light[range(120), labels] += 1.0
    heavy[range(120), labels] += 2.5
    costs = CascadeCosts(30, 100, 10)
    row = evaluate_candidate(
        "pruned",
        Candidate((8, 8), 0.5),
        4,
        join_predictions(light, heavy, labels, costs),
        costs,
        tolerance=0.02,
        ensemble=answers == "ensemble",
    )
    goal = float((heavy.argmax(1) == labels).double().mean()) - 0.02

    def least(escalated_right):
        prior = light.double().softmax(1).amax(1)
        order = prior.argsort()
        right = (light.argmax(1) == labels)[order].double().flip(0).cumsum(0).flip(0)
        below = escalated_right[order].double().cumsum(0)
        accuracies = torch.cat([right[:1], below[:-1] + right[1:], below[-1:]]) / 120
        return next(
            (
                0.3 + 0.9 * k / 120
                for k, accuracy in enumerate(accuracies.tolist())
                if accuracy >= goal - 1e-12
            ),
            9.0,
        )

    weight = agflow.cascade.ensemble.fit_light_weight(light, heavy, labels)
    both = weight * light.double().log_softmax(1) + (1 - weight) * heavy.double().log_softmax(1)
    ways = {
        "heavy": least(heavy.argmax(1) == labels),
        "ensemble": least(both.argmax(1) == labels) if answers == "ensemble" else 9.0,
    }
    assert row.charged == pytest.approx(min(ways.values())) and ways[row.answers] == pytest.approx(
        row.charged
    )
    assert row.oracle == pytest.approx(0.3 + 0.9 * max(0.0, goal + 0.02 - row.light_accuracy))


@pytest.mark.bench
def test_seconds_are_measured_here(example, splits):
    found = design_cascade(
        example[0],
        *splits[:2],
        space=SearchSpace(image_sizes=(12,), macs=(0.5,), cost="seconds"),
        epochs=1,
    )
    assert 0 < found.chosen.light < 1 < found.chosen.images_per_second
    assert (
        f"{found.chosen.images_per_second:.0f} images/s" in str(found)
        and found.frontier.metadata["agflow.cost_unit"] == "ms"
    )


def test_refusals(example, splits):
    for change, words in (
        ({"tolerance": -0.1}, "tolerance is -0.1"),
        ({"epochs": 0}, "epochs is 0"),
        ({"space": SearchSpace(image_sizes=(28,), macs=(1,))}, "no candidate is left"),
        (
            {"space": SearchSpace(image_sizes=(15,), macs=(0.5,))},
            "multiples of the model's patches",
        ),
    ):
        with pytest.raises(InvalidValueError, match=words):
            design_cascade(example[0], *splits[:2], **change)
    for change, words in (
        ({"macs": (0,)}, "expected shares"),
        ({"shared_blocks": (0, -1)}, "expected whole numbers"),
        ({"cost": "joules"}, "'macs' or 'seconds'"),
    ):
        with pytest.raises(InvalidValueError, match=words):
            SearchSpace(**change)
    with pytest.raises(BudgetError, match="none of the 1 candidates"):
        space = SearchSpace(image_sizes=(28,), macs=(0.1,), shared_blocks=(5,))
        design_cascade(example[0], *splits[:2], space=space)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What ``agflow design`` writes, for 3 of the example's classes."""
    output = tmp_path_factory.mktemp("cli") / "design"
    answer = commands.design(
        json.dumps(
            {
                "model": "example",
                "data": "example:train",
                "output": str(output),
                "classes": [8, 1, 5],
                "image_sizes": [16],
                "macs": ["1", "0.5"],
                "groups": ["mlp", "heads"],
                "shared_blocks": [0],
                "ensemble": True,
                "cost": "macs",
                "epochs": 1,
                "lr": 3e-4,
                "tolerance": 0.02,
                "confidence": 0.9,
                "batch_size": 32,
                "seed": 0,
                "limit": 240,
            }
        )
    )
    return output, json.loads(answer)


def test_the_command_fills_a_cascade_folder(folder, loader, example):
    output, answer = folder
    cascade = agflow.load(output)
    frontier, predictions = (
        Frontier.load(output / "frontier.arrow"),
        agflow.Predictions.load(output / "predictions.arrow"),
    )
    assert len(predictions) == 48 and answer["chosen"]["charged"] == frontier.chosen.charged
    counts, lines = Verdict(**answer["counts"]), answer["summary"].splitlines()
    assert (output / "frontier.md").read_text() == frontier.markdown(counts)
    assert lines[0] == counts.line and lines[-1] == answer["next"] and counts.clock
    assert frontier.listing in answer["summary"]
    for page in ("frontier.md", "README.md"):  # both begin with the verdict
        assert (output / page).read_text().splitlines()[2] == f"**{counts.line}**"
    assert (output / "light" / "plan.arrow").exists() == (frontier.chosen.width < 1)
    assert agflow.Router.load(output / "router.json").verdict == answer["verdict"]
    evaluated = answer["evaluated"]
    assert (
        evaluated["images"] == 48
        and evaluated["light"] == predictions.light_accuracy
        and evaluated["heavy"] == predictions.heavy_accuracy
    )
    mixed = (
        evaluated["ledger"]["escalation"] * evaluated["heavy"]
        + (1 - evaluated["ledger"]["escalation"]) * evaluated["light"]
    )
    assert (
        evaluated["random"] == pytest.approx(mixed)
        and evaluated["random_low"] < evaluated["random"] + 1e-9
        and evaluated["random"] < evaluated["random_high"] + 1e-9
    )
    x = next(iter(loader("test", 0, 32)))[0]
    assert cascade(x).shape == (32, 3)
    with torch.no_grad():
        assert torch.allclose(cascade.heavy(x), example[0](x)[:, [8, 1, 5]], atol=1e-4)


def test_too_few_images_for_all_parts_are_refused(tmp_path):
    options = {
        "model": "example",
        "data": "example:train",
        "output": str(tmp_path / "x"),
        "classes": [],
        "batch_size": 8,
        "seed": 0,
        "limit": 4,
        "tolerance": 0.01,
    }
    with pytest.raises(EmptyError, match="too few for 3 parts"):
        commands.design(json.dumps(options))


def test_a_tolerance_that_no_threshold_can_keep_is_refused_before_the_training(tmp_path):
    with pytest.raises(
        InvalidValueError, match="tolerance is 0, expected an accepted loss of accuracy above 0"
    ):
        commands.design(
            json.dumps(
                {
                    "model": "example",
                    "data": "example:train",
                    "output": str(tmp_path / "x"),
                    "tolerance": 0,
                }
            )
        )
