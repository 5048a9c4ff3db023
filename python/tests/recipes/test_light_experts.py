"""How a run trains its light expert and its control: on what views, and for how many epochs."""

import json

import pytest

from agflow.models.expert import load_expert
from agflow.recipes import RunOptions, light_experts, run, run_parts
from agflow.training.digests import digest_of
from agflow.training.finetuning import finetune

SMALL = {"macs": "0.5", "batches": 1, "limit": 60, "eval_limit": 40, "tolerance": 0.3}


@pytest.fixture
def trained(monkeypatch):
    """What each fine-tuning of a run is called with."""
    calls = []

    def record(light, loader, **options):
        calls.append((loader, options))
        return finetune(light, loader, **options)

    monkeypatch.setattr(light_experts, "finetune", record)
    return calls


def test_the_control_is_trained_for_a_few_epochs_and_compared_after_as_many(tmp_path, trained):
    lines = []
    result = run(RunOptions(output=str(tmp_path / "run"), epochs=3, **SMALL), say=lines.append)
    assert [options["epochs"] for _, options in trained] == [2, 3, 2]
    assert {stages.epochs for stages in result.stages.values()} == {2}
    assert any(line.endswith("after 2 epochs") for line in lines)
    report = (tmp_path / "run" / "report.md").read_text()
    assert "Criterion and control are compared after 2 epochs" in report
    light = 100 * result.cascade.evaluation.light
    assert f"trained for 3 epochs: {light:.1f} %" in report and f"{light:.1f} %" in result.summary
    assert (
        json.loads((tmp_path / "run" / "report.json").read_text())["stages"]["agf"]["epochs"] == 2
    )


def test_both_experts_learn_from_the_same_views_that_the_teacher_answered_once(tmp_path, trained):
    run(RunOptions(output=str(tmp_path / "run"), epochs=4, **SMALL), say=lambda line: None)
    *_, (light_views, light), (control_views, control) = trained
    assert light_views is control_views and len(light_views.images) == 2
    assert light["distillation"].teacher is None is control["distillation"].teacher
    assert light_views.tokens is not None and light["distillation"].features > 0


def test_where_views_do_not_fit_into_memory_the_teacher_answers_every_batch(
    tmp_path, trained, monkeypatch
):
    monkeypatch.setattr(run_parts, "VIEWS_BYTES", 60 * 1000)
    options = RunOptions(output=str(tmp_path / "run"), epochs=1, **SMALL)
    run(options, say=lambda line: None)
    assert all(options["distillation"].teacher is not None for _, options in trained)


def test_equal_seeds_give_the_same_bytes(tmp_path):
    for name, seed in (("one", 0), ("other", 0), ("third", 1)):
        options = RunOptions(output=str(tmp_path / name), epochs=3, seed=seed, **SMALL)
        run(options, say=lambda line: None)
    read = lambda name, file: (tmp_path / name / file).read_bytes()
    for file in ("predictions.arrow", "predictions-threshold.arrow", "router.json", "plan.arrow"):
        assert read("one", file) == read("other", file)
    digest = lambda name: digest_of(load_expert(tmp_path / name / "light"))
    assert digest("one") == digest("other") != digest("third")
