"""Entry points of the ``agflow`` command: the benchmarks."""

from __future__ import annotations

from agflow._utils.files import check_file
from agflow.commands.entry import command, computing_of, given_options, load_role, save_table, say


@command
def bench_core(options: dict) -> dict:
    """The statistics pass, top-k and a bridge call; see :mod:`agflow.bench.core`."""
    from agflow.bench import core

    found = core.measure(**given_options(options))
    return {"summary": core.text(found), **found}


@command
def bench_calibration(options: dict) -> dict:
    """A calibration over its bare passes; see :mod:`agflow.bench.calibration`."""
    from agflow.bench import calibration

    found = calibration.measure(**given_options(options))
    return {"summary": calibration.text(found), **found}


@command
def bench_layers(options: dict) -> dict:
    """The latency table of a model, written as an Arrow file; see :mod:`agflow.bench.layers`."""
    from agflow.bench import layers

    check_file(options["output"], "output")
    computing = computing_of(options)
    model, _, name = load_role(options, "model")
    table = layers.measure(computing.move(model), batch=options["batch"], rounds=options["rounds"])
    save_table(table, options)
    return {
        "summary": f"{layers.text(table)}\n{options['output']}: {len(table)} sizes",
        "output": options["output"],
        "model": name,
        "sizes": len(table),
        "model_ms": table.model_ms,
        "metadata": table.metadata,
    }


@command
def bench_pruning(options: dict) -> dict:
    """The whole prune step beside torch-pruning's; see :mod:`agflow.bench.pruning`."""
    from agflow.bench import pruning

    found = pruning.measure(pruning.PruningBenchOptions(**given_options(options)), say=say)
    return {"summary": pruning.text(found), **found}


@command
def bench_cascade(options: dict) -> dict:
    """A cascade over its two bare passes; see :mod:`agflow.bench.cascade`."""
    from agflow.bench import cascade

    found = cascade.measure(**given_options(options))
    return {"summary": cascade.text(found), **found}


@command
def bench_bottleneck(options: dict) -> dict:
    """AGF's signal during training and AGF as a router; see :mod:`agflow.bench.bottleneck`."""
    from agflow.bench import bottleneck

    found = bottleneck.measure(bottleneck.BottleneckBenchOptions(**given_options(options)), say=say)
    return {"summary": bottleneck.text(found), **found}


@command
def bench_coverage(options: dict) -> dict:
    """Which models agflow prunes; see :mod:`agflow.bench.coverage`."""
    from agflow.bench import coverage

    found = coverage.measure(coverage.CoverageOptions(**given_options(options)), say=say)
    return {"summary": coverage.text(found), **found}
