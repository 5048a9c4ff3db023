"""Each default stands once: the file, the command's help and Python's signatures agree."""

import functools
import inspect
import json
import pathlib
import re
import subprocess

import pytest

import agflow
from agflow._utils import defaults
from agflow.bench import bottleneck, calibration, cascade, core, coverage, layers, pruning
from agflow.calibration import CalibrationOptions
from agflow.data import DataOptions
from agflow.diagnostics import diagnose, stability
from agflow.pruning import Allocation
from agflow.recipes import (
    DesignOptions,
    RunOptions,
    ShrinkOptions,
    StepOptions,
    light_experts,
    pipeline,
    run_parts,
)
from agflow.search import SearchSpace
from agflow.training import Checkpointing, Distillation, TrainingOptions
from agflow.training.distillation import CACHED_LOGITS

FILE = pathlib.Path(__file__).parents[3] / "core" / "defaults" / "defaults.json"
STEPS_OF_FILE = json.loads(FILE.read_text())
FIGURES = STEPS_OF_FILE.pop("figures")
DEFAULTS = {
    (step, option): value
    for step, options in STEPS_OF_FILE.items()
    for option, value in options.items()
}
# Options that recipes and steps have from another step, by name.
OWNERS = {
    "batches": "calibrate",
    "groups": "calibrate",
    "loss": "calibrate",
    "criterion": "score",
    "pruning_ratio": "diagnose",
    "round_to": "plan",
    "compensate": "prune",
    "costs": "predict",
    "tolerance": "route",
    "confidence": "route",
    "ensemble": "route",
    "share": "monitor",
    "raised_share": "monitor",
    "level": "monitor",
}
ALIASES = {"heavy": "model", "eval": "test_data"}
TESTING = ("predict", "evaluate")  # their data are test images
COMMANDS = (
    "calibrate score diagnose plan prune shrink finetune predict evaluate route decide monitor "
    "export serve run design bench_core bench_calibration bench_layers bench_pruning "
    "bench_cascade bench_bottleneck bench_coverage"
).split()
# What takes the options of a command by their names.
RECIPES = {
    "run": RunOptions,
    "design": DesignOptions,
    "bench_core": core.measure,
    "bench_calibration": calibration.measure,
    "bench_layers": layers.measure,
    "bench_pruning": pruning.PruningBenchOptions,
    "bench_cascade": cascade.measure,
    "bench_bottleneck": bottleneck.BottleneckBenchOptions,
    "bench_coverage": coverage.CoverageOptions,
}
PYTHON_ONLY = {
    "calibrate": {"temperature"},
    "finetune": {"temperature", "weight_decay", "frozen_blocks", "checkpoint_every"},
    "run": {"widths", "features", "control_epochs", "epochs_a_view"},
    "design": {"distill"},
}
OF_SERVICE = {"monitor": {"share", "raised_share"}}  # an audit is drawn where images are answered
NEEDED = ("output", "macs", "criterion", "heavy")  # to be given, or not needed with another flag
# Where a step's option has another name in Python, or belongs to options of their own.
STEPS = [
    ("data", DataOptions, ("cache_bytes",)),
    ("calibrate", agflow.calibrate, ("batches", "groups", "loss", "weight_gradients")),
    ("calibrate", CalibrationOptions, ("nonfinite", "seed", "temperature")),
    ("calibrate", StepOptions, ("batches", "groups", "loss", "criterion", "compensate")),
    ("score", agflow.score, ("criterion", "seed")),
    ("diagnose", diagnose, ("pruning_ratio", "seed")),
    ("diagnose", stability, ("criterion", "pruning_ratio", "sizes", "draws", "seed")),
    ("plan", agflow.plan, ("criterion", "seed")),
    ("plan", Allocation, ("joint", "floor", "round_to")),
    ("prune", agflow.prune, ("compensate",)),
    ("shrink", ShrinkOptions, ("batches", "groups", "criterion", "compensate", "held_out")),
    ("finetune", agflow.finetune, ("epochs", "lr", "seed")),
    ("finetune", StepOptions, ("epochs", "lr")),
    ("finetune", Distillation, ("temperature", "features")),
    ("finetune", TrainingOptions, ("weight_decay", "accumulate", "frozen_blocks")),
    ("predict", agflow.predict, ("features", "second_view")),
    ("route", agflow.calibrate_router, ("confidence", "ensemble")),
    ("route", agflow.cascade.curve, ("points", "ensemble")),
    ("export", agflow.export, ("opset",)),
    ("design", agflow.design_cascade, ("tolerance", "epochs", "lr", "seed")),
    ("design", SearchSpace, ("macs", "groups", "shared_blocks", "ensemble", "cost")),
]


def source(step, option):
    """The entry of the file that gives the default of an option of a step; None for none."""
    option = "test_data" if option == "data" and step in TESTING else ALIASES.get(option, option)
    places = [(place, option) for place in (step, OWNERS.get(option), "common")]
    return next((place for place in places if place in DEFAULTS), None)


def of_python(function, parameter):
    found = inspect.signature(function).parameters[parameter].default
    return list(found) if isinstance(found, tuple) else found


@functools.cache
def of_help(command):
    """Texts of the defaults by option, as the command's help shows them; None where it has none."""
    words = ["agflow", *command.split("_", 1)] if "bench" in command else ["agflow", command]
    text = subprocess.run([*words, "--help"], capture_output=True, text=True, check=True).stdout
    text = re.sub(r"\n {30}", " ", text)  # a long description has several lines
    found = {}
    for line in text.splitlines():
        if flag := re.match(r"  --([a-z-]+)(?: |$)", line):
            shown = re.search(r"\(default: ([^()]*)\)(?: \[\$\w+\])?$", line)
            found[flag[1].replace("-", "_")] = shown and shown[1]
    return found


def shown_as(value):
    """How the help shows a default."""
    if isinstance(value, bool):
        assert value is False  # a switch that is given turns something on
        return None
    values = value if isinstance(value, list) else [value]
    return ", ".join(one if isinstance(one, str) else f"{one:g}" for one in values)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_shows_the_defaults_of_the_file(command):
    shown = of_help(command)
    for option, text in shown.items():
        entry = source(command, option)
        if text is None:
            assert entry is None or DEFAULTS[entry] is False or option in NEEDED, option
        elif entry and not re.match("by |all$|the |random ", text):  # what happens without a value
            assert text.partition(", or ")[0] == shown_as(DEFAULTS[entry]), option
    expected = {option for step, option in DEFAULTS if step == command}
    elsewhere = PYTHON_ONLY.get(command, set()) | OF_SERVICE.get(command, set())
    assert expected == shown.keys() & expected | elsewhere


@pytest.mark.parametrize("command", RECIPES)
def test_recipes_have_the_options_and_defaults_of_their_command(command):
    parameters = inspect.signature(RECIPES[command]).parameters
    if isinstance(RECIPES[command], type):
        common = {"json", "debug", "python", "check"}
        assert set(parameters) == set(of_help(command)) - common
    for option in parameters.keys() & of_help(command).keys():
        found, entry = of_python(RECIPES[command], option), source(command, option)
        if found not in (None, [], inspect.Parameter.empty):
            assert entry and found == DEFAULTS[entry], option


@pytest.mark.parametrize(
    ("step", "function", "options"), STEPS, ids=lambda of: getattr(of, "__name__", None)
)
def test_steps_have_the_defaults_of_the_file(step, function, options):
    for option in options:
        found, expected = of_python(function, option), DEFAULTS[source(step, option)]
        assert found == expected and type(found) is type(expected), option


def test_options_that_python_names_otherwise():
    assert Distillation().share == DEFAULTS["finetune", "distill"]
    assert Checkpointing("run").every == DEFAULTS["finetune", "checkpoint_every"]
    assert CACHED_LOGITS.share == DEFAULTS["design", "distill"]
    assert CACHED_LOGITS.temperature == DEFAULTS["finetune", "temperature"]
    assert light_experts.TEACHER_SHARE == DEFAULTS["finetune", "distill"]
    assert light_experts.TOKENS_WEIGHT == DEFAULTS["run", "features"]
    assert light_experts.CONTROL_EPOCHS == DEFAULTS["run", "control_epochs"]
    assert run_parts.EPOCHS_A_VIEW == DEFAULTS["run", "epochs_a_view"]
    assert run_parts.VIEWS_BYTES == DEFAULTS["data", "cache_bytes"]
    assert pipeline.WIDTHS == DEFAULTS["run", "widths"]
    assert pruning.MACS == DEFAULTS["bench_pruning", "macs"]
    inputs = pathlib.Path(__file__).parents[1] / "goldens" / "inputs"
    statistics = agflow.Statistics.load(inputs / "statistics.arrow")
    assert agflow.plan(statistics, macs=0.5).widths == DEFAULTS["plan", "widths"]
    predictions = agflow.Predictions.load(inputs / "predictions.arrow")
    assert agflow.calibrate_router(predictions).limit == DEFAULTS["route", "tolerance"]


def test_every_default_of_the_file_is_used():
    by_command = {source(step, option) for step in COMMANDS for option in of_help(step)}
    by_python = {source(step, option) for step, _, options in STEPS for option in options}
    by_recipes = {(step, option) for step, options in PYTHON_ONLY.items() for option in options}
    assert DEFAULTS.keys() <= by_command | by_python | by_recipes


def test_without_the_file_the_error_names_the_cure(monkeypatch, tmp_path):
    monkeypatch.setattr(defaults, "DEFAULTS_FILE", tmp_path / "defaults.json")
    defaults._steps.cache_clear()
    with pytest.raises(ImportError, match="defaults.json is missing, .*make native.* or .* pip"):
        defaults.default("plan", "floor")
    monkeypatch.undo()
    assert defaults.default("plan", "floor") == 0.0


@pytest.mark.parametrize("recipe", ["run", "design"])
def test_what_a_recipe_sets_otherwise_has_its_figure_beside_it(recipe):
    steps = ("calibrate", "score", "plan", "prune", "finetune", "predict", "route")
    for (step, option), value in DEFAULTS.items():
        others = [DEFAULTS[other, option] for other in steps if (other, option) in DEFAULTS]
        if step == recipe and option != "output" and others and value not in others:
            assert f"{recipe}.{option}" in FIGURES
    assert {name.split(".")[0] for name in FIGURES} <= STEPS_OF_FILE.keys()
