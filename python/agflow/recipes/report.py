"""The report of a run: Markdown for people, JSON for machines, pictures for both."""

from __future__ import annotations

import json
import pathlib
import platform
from dataclasses import asdict
from importlib.metadata import version

import matplotlib
from matplotlib.figure import Figure

from agflow import plotting
from agflow.cascade.curves import oracle
from agflow.recipes.results import CascadeResult, RunResult, Stages

STAGES = ("cut", "repaired", "fine-tuned")
LIBRARIES = ("agflow", "torch", "timm", "pyarrow", "numpy")
SLOWER = (
    "FAILURE: the light expert is slower than the heavy one on this machine, whatever its MACs: plan with a greater round_to or "
    "with latency_ms (agflow bench layers)."
)


def write_report(result: RunResult, folder: pathlib.Path) -> None:
    """Write report.md, report.json, utilities.png, stages.png, cascade.png, reliability.png and escalated.png into ``folder``."""
    _pictures(result, folder)
    (folder / "report.json").write_text(json.dumps(as_dict(result), indent=2) + "\n")
    (folder / "report.md").write_text(as_markdown(result))


def _pictures(result: RunResult, folder: pathlib.Path) -> None:
    with matplotlib.rc_context(
        {"axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 120}
    ):
        groups = sorted({layer.group for layer in result.scores.layers}, reverse=True)
        figure = Figure(figsize=(9, 3.6 * len(groups)), layout="constrained")
        for ax, group in zip(
            figure.subplots(len(groups), squeeze=False)[:, 0], groups, strict=True
        ):
            plotting.plot_utilities(result.scores, group=group, ax=ax)
        figure.savefig(folder / "utilities.png")

        figure = Figure(figsize=(8, 4), layout="constrained")
        plotting.plot_stages(
            {name: _top1(stages) for name, stages in result.stages.items()},
            STAGES,
            result.dense.top1,
            ax=figure.subplots(),
        )
        figure.savefig(folder / "stages.png")

        cascade = result.cascade
        light_cost = cascade.ledger.light_macs / cascade.ledger.heavy_macs
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        best = oracle(result.predictions)
        plotting.plot_cascade(
            cascade.curve,
            light=(light_cost, cascade.light),
            heavy=(1.0, cascade.heavy),
            chosen=(cascade.ledger.charged, cascade.cascade),
            oracle=(best["charged"], best["accuracy"]),
            ax=figure.subplots(),
        )
        figure.savefig(folder / "cascade.png")

        plotting.plot_reliability(result.predictions).figure.savefig(
            folder / "reliability.png", bbox_inches="tight"
        )
        plotting.plot_escalated(result.judged, result.predictions, cascade.router).figure.savefig(
            folder / "escalated.png", bbox_inches="tight"
        )


def _top1(stages: Stages) -> list[float]:
    return [stages.cut.top1, stages.repaired.top1, stages.tuned.top1]


def environment() -> dict[str, str]:
    """Versions and processor of this run."""
    cpu = platform.processor() or platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        cpu = next(
            (
                line.split(":", 1)[1].strip()
                for line in info.read_text().splitlines()
                if line.startswith("model name")
            ),
            cpu,
        )
    return {
        "python": platform.python_version(),
        "cpu": cpu,
        **{name: version(name) for name in LIBRARIES},
    }


def as_dict(result: RunResult) -> dict:
    """The run as JSON values: every figure of the Markdown report."""

    def cascade(part: CascadeResult | None) -> dict | None:
        if part is None:
            return None
        return {
            "router": asdict(part.router),
            "ledger": asdict(part.ledger),
            "light": part.light,
            "heavy": part.heavy,
            "cascade": part.cascade,
            "random": part.random,
        }

    return {
        "options": asdict(result.options),
        "model": result.name,
        "classes": result.classes,
        "images": result.images,
        "fingerprint": result.fingerprint,
        "environment": environment(),
        "plan": {
            "macs": result.plan.macs,
            "dense_macs": result.plan.model_macs,
            "report": result.plan.report,
            "layers": [asdict(layer) for layer in result.plan.planned],
        },
        "dense": asdict(result.dense),
        "stages": {name: asdict(stages) for name, stages in result.stages.items()},
        "cascade": cascade(result.cascade),
        "cascade_among_present": cascade(result.cascade_among_present),
        "images_per_second": {
            name: {"median": t.images_per_second, "slowest": t.spread[0], "fastest": t.spread[1]}
            for name, t in result.timings.items()
        },
        "slower": result.slower,
    }


def as_markdown(result: RunResult) -> str:
    options, plan = result.options, result.plan
    seen = ", ".join(f"{count} {use}" for use, count in result.images.items())
    return "\n".join(
        [
            f"# agflow: {result.name}",
            "",
            f"Plan: criterion `{options.criterion}`, {plan.macs / 1e6:.1f} M of {plan.model_macs / 1e6:.1f} M MACs per image "
            f"({plan.macs / plan.model_macs:.3f}x), repair `{options.compensate}`, {options.epochs} epochs of distillation, seed {options.seed}.",
            f"Images: {seen}; no image serves two of tuning, threshold and judging.",
            "",
            "## Accuracy of the light expert",
            "",
            *_accuracy_table(result),
            "",
            "![accuracy after each step](stages.png)",
            "",
            "## Cascade",
            "",
            *_cascade_table(result.cascade, f"all {result.classes} classes"),
            "",
            *(
                _cascade_table(
                    result.cascade_among_present, f"the {result.dense.classes} classes of the data"
                )
                + [""]
                if result.cascade_among_present
                else []
            ),
            "![accuracy against charged cost](cascade.png)",
            "",
            "## Speed",
            "",
            *as_speed_table(result),
            "",
            "## Utilities and plan",
            "",
            *_plan_table(result),
            "",
            "![utilities](utilities.png)",
            "",
            "## Reproduce",
            "",
            "```json",
            json.dumps(
                {
                    "options": asdict(options),
                    "environment": environment(),
                    "data": result.fingerprint,
                },
                indent=2,
            ),
            "```",
            "",
        ]
    )


def _accuracy_table(result: RunResult) -> list[str]:
    partial = result.dense.classes < result.classes
    cell = lambda a: f"{100 * a.top1:.1f}" + (f" ({100 * a.among_present:.1f})" if partial else "")
    rows = [
        f"Top-1 % on {result.dense.images} judging images; dense {cell(result.dense)}."
        + (
            f" In brackets: among the {result.dense.classes} classes of the data."
            if partial
            else ""
        ),
        "",
        "| criterion | " + " | ".join(STAGES) + " |",
        "|---|" + "---|" * len(STAGES),
    ]
    return rows + [
        f"| {name} | {cell(s.cut)} | {cell(s.repaired)} | {cell(s.tuned)} |"
        for name, s in result.stages.items()
    ]


def _cascade_table(cascade: CascadeResult, classes: str) -> list[str]:
    router, ledger = cascade.router, cascade.ledger
    light_cost = ledger.light_macs / ledger.heavy_macs
    promise = f"accuracy(cascade) >= accuracy(heavy) - {router.tolerance:g} with confidence {router.confidence:g}, from {router.samples} held-out images"
    verdict = {
        "PASS": f"PASS: {promise}",
        "FAIL": f"FAIL: not shown: {promise}; every image escalates",
        "INSUFFICIENT DATA": f"INSUFFICIENT DATA for {promise}; about {router.needed_samples} would do; every image escalates",
    }[router.verdict]
    return [
        f"Over {classes}, {router.rule}. {verdict}.",
        "",
        "| | accuracy % | images to the heavy expert % | MACs charged | MACs, light pass of escalated images not charged |",
        "|---|---|---|---|---|",
        f"| heavy expert | {100 * cascade.heavy:.2f} | 100 | 1.000x | 1.000x |",
        f"| light expert | {100 * cascade.light:.2f} | 0 | {light_cost:.3f}x | {light_cost:.3f}x |",
        f"| cascade | {100 * cascade.cascade:.2f} | {100 * ledger.escalation:.1f} | {ledger.charged:.3f}x | {ledger.uncharged:.3f}x |",
        f"| random routing, same share | {100 * cascade.random:.2f} | {100 * ledger.escalation:.1f} | {ledger.charged:.3f}x | {ledger.uncharged:.3f}x |",
        "",
        f"Charged cost: **{ledger.verdict}** (break-even at {100 * ledger.break_even:.1f} % escalated).",
    ]


def as_speed_table(result: RunResult) -> list[str]:
    """Lines of Markdown: images per second of heavy, light and cascade, and a failure where the light expert is the slower one."""
    heavy = result.timings["heavy"].images_per_second
    rows = [
        "Images per second, batch 32, rounds interleaved: median (slowest to fastest round).",
        *([SLOWER] if result.slower else []),
        "",
        "| | images/s | over heavy |",
        "|---|---|---|",
    ]
    return rows + [
        f"| {name} | {t.images_per_second:.0f} ({t.spread[0]:.0f} to {t.spread[1]:.0f}) | {t.images_per_second / heavy:.2f}x |"
        for name, t in result.timings.items()
    ]


def _plan_table(result: RunResult) -> list[str]:
    rows = ["| layer | group | units | kept |", "|---|---|---|---|"]
    return rows + [f"| {p.name} | {p.group} | {p.units} | {p.kept} |" for p in result.plan.planned]


def summary(result: RunResult) -> str:
    """The outcome in a few lines, for a terminal."""
    cascade, ledger = result.cascade, result.cascade.ledger
    last = result.stages[result.options.criterion]
    heavy = result.timings["heavy"].images_per_second
    lines = [
        f"light expert   {100 * last.tuned.top1:5.1f} %  {ledger.light_macs / ledger.heavy_macs:.3f}x MACs  (cut {100 * last.cut.top1:.1f}, repaired {100 * last.repaired.top1:.1f})",
        f"heavy expert   {100 * cascade.heavy:5.1f} %  1.000x MACs",
        f"cascade        {100 * cascade.cascade:5.1f} %  {ledger.charged:.3f}x MACs charged, {ledger.uncharged:.3f}x uncharged, {100 * ledger.escalation:.1f} % escalated: {ledger.verdict}",
        f"random routing {100 * cascade.random:5.1f} %  at the same cost",
        f"threshold      {cascade.router.rule}: {cascade.router.verdict}",
        "images/s       "
        + ", ".join(
            f"{name} {t.images_per_second:.0f} ({t.images_per_second / heavy:.2f}x)"
            for name, t in result.timings.items()
        ),
        *([SLOWER] if result.slower else []),
    ]
    return "\n".join(lines)
