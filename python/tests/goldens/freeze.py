"""Freeze what users compute, as SHA-256 of files and arrays: a later state must be the same.

    python python/tests/goldens/freeze.py inputs FOLDER          # the stored inputs
    python python/tests/goldens/freeze.py portable OUT.json      # what the Go core makes of them
    python python/tests/goldens/freeze.py torch OUT.json [DATA]  # depends on torch and processor

``portable`` results are the same on every machine; ``test_goldens.py`` compares them. ``torch``
results are compared by hand between two states of the sources on one machine. The names of the
digests are options, so that a difference says what changed.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).parent
INPUTS = HERE / "inputs"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def of_table(table) -> str:
    """Digest of a table as the file that ``save`` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "table.arrow"
        table.save(path)
        return sha256(path.read_bytes())


def of_tensors(tensors) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()


def of_model(model) -> str:
    return of_tensors(model.state_dict())


def of_folder(folder: pathlib.Path, names) -> dict[str, str]:
    return {name: sha256((folder / name).read_bytes()) for name in names}


PLANS = {
    "macs=0.35": {"macs": 0.35},
    "macs=0.5 uniform": {"macs": 0.5, "widths": "uniform"},
    "macs=0.5 agf widths": {"macs": 0.5, "widths": "agf_relative"},
    "params=0.5": {"params": 0.5},
    "pruning_ratio=0.5": {"pruning_ratio": 0.5, "widths": "uniform"},
    "latency": {"latency_ms": 30.0, "latency": "latency.arrow"},
    "joint": {"macs": 0.4, "joint": True},
    "floor": {"macs": 0.3, "floor": 0.2},
    "round_to=1": {"macs": 0.45, "round_to": 1},
    "mlp": {"macs": 0.6, "groups": ["mlp"]},
    "ignored": {"macs": 0.6, "ignored_layers": ["blocks.0.*"]},
    "magnitude": {"macs": 0.35, "criterion": "magnitude"},
    "random seed=3": {"macs": 0.35, "criterion": "random", "seed": 3},
}
ROUTERS = {
    "default": {},
    "tolerance": {"tolerance": 0.02, "confidence": 0.9},
    "auto": {"prior": "auto", "tolerance": 0.02},
    "entropy_scaled": {"prior": "entropy_scaled", "tolerance": 0.02},
    "agreement": {"prior": "agreement", "tolerance": 0.02},
    "l1_norm": {"prior": "l1_norm", "escalation": 0.4},
    "charged": {"charged": 0.6},
    "escalation": {"escalation": 0.2},
    "ensemble": {"ensemble": True, "tolerance": 0.02},
}


def portable(api) -> dict[str, str]:
    """What the Go core makes of the stored inputs."""
    found = {}
    statistics = api.Statistics.load(INPUTS / "statistics.arrow")
    predictions = api.Predictions.load(INPUTS / "predictions.arrow")
    latency = INPUTS / "latency.arrow"
    found["statistics merged with itself"] = of_table(statistics.merge(statistics))
    for name in api.criteria():
        found[f"scores {name}"] = of_table(api.score(statistics, name, seed=1))
    plans = {}
    for name, options in PLANS.items():
        given = {**options, **({"latency": latency} if "latency" in options else {})}
        plans[name] = api.plan(statistics, **given)
        found[f"plan {name}"] = of_table(plans[name])
        found[f"report {name}"] = sha256(json.dumps(plans[name].report).encode())
    found["plan of scores"] = of_table(api.plan(api.score(statistics, "agf"), macs=0.35))
    found["diff"] = sha256(repr(plans["macs=0.35"].diff(plans["magnitude"])).encode())
    for name, options in ROUTERS.items():
        router = api.calibrate_router(predictions, **options)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "router.json"
            router.save(path)
            found[f"router {name}"] = sha256(path.read_bytes())
    for prior in ("max_probability", "margin", "energy_scaled"):
        for ensemble in (False, True):
            table = api.curve(predictions, prior=prior, ensemble=ensemble)
            found[f"curve {prior} ensemble={ensemble}"] = of_table(table)
    for ensemble in (False, True):
        found[f"oracle ensemble={ensemble}"] = sha256(
            json.dumps(api.oracle(predictions, ensemble=ensemble)).encode()
        )
    return found


def inputs(api, folder: pathlib.Path) -> None:
    """Write the stored inputs: statistics of all groups, predictions with all priors, latencies."""
    import torch

    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    heavy, load = api.example()
    statistics = api.calibrate(
        heavy, load("train", 0, 256), batches=4, groups=("mlp", "heads"), weight_gradients=True
    )
    statistics.save(folder / "statistics.arrow")
    light = api.prune(heavy, api.plan(statistics, macs=0.35), load("train", 0, 256))
    predictions = api.predict(
        light, heavy, load("train", 2400, 3400), features=True, second_view=True
    )
    predictions.save(folder / "predictions.arrow")
    api.latency(heavy).save(folder / "latency.arrow")


def of_torch(api, data: pathlib.Path | None) -> dict[str, str]:
    """What depends on torch and on the processor: calibration, cuts, training, whole recipes."""
    import torch

    torch.set_num_threads(1)
    found = {}
    heavy, load = api.example()
    groups = ("mlp", "heads", "head_dim", "embed", "block")
    for name, options in {
        "default": {},
        "all groups": {"groups": groups},
        "weight_gradients": {"weight_gradients": True},
        "image_size=16": {"image_size": 16},
    }.items():
        statistics = api.calibrate(heavy, load("train", 0, 128), batches=2, **options)
        found[f"statistics {name}"] = of_table(statistics)
        plan = api.plan(statistics, macs=0.5)
        found[f"torch plan {name}"] = of_table(plan)
        for compensate in ("ridge", "ridge_at_once", "mean", "none"):
            if compensate != "ridge" and name in ("all groups",):
                continue
            light = api.prune(heavy, plan, load("train", 0, 128), compensate=compensate)
            found[f"light {name} {compensate}"] = of_model(light)
    light = api.prune(heavy, plan, load("train", 0, 128))
    found["predictions"] = of_table(
        api.predict(light, heavy, load("test", 0, 200), features=True, second_view=True)
    )
    found["cascade"] = of_tensors(
        {"logits": api.Cascade(light, heavy, 0.8)(next(iter(load("test", 0, 64)))[0])}
    )
    api.finetune(light, load("train", 0, 256), teacher=heavy, epochs=1, lr=1e-3, features=0.0)
    found["finetuned"] = of_model(light)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        api.save(light, folder / "light", plan)
        names = ("config.json", "model.safetensors", "plan.arrow")
        found |= {f"expert {k}": v for k, v in of_folder(folder / "light", names).items()}
        api.run(folder / "run")
        names = ("statistics.arrow", "plan.arrow", "predictions.arrow", "curve.arrow")
        names += ("predictions-threshold.arrow", "router.json", "light/model.safetensors")
        found |= {f"run {k}": v for k, v in of_folder(folder / "run", names).items()}
        api.design(folder / "design")
        names = ("router.json", "frontier.arrow", "predictions.arrow", "light/model.safetensors")
        found |= {f"design {k}": v for k, v in of_folder(folder / "design", names).items()}
    if data is not None:
        found |= _deit(api, data)
    return found


def _deit(api, data: pathlib.Path) -> dict[str, str]:
    heavy, load = api.deit(data)
    statistics = api.calibrate(heavy, load(0, 16), batches=2)
    plan = api.plan(statistics, macs=0.5)
    light = api.prune(heavy, plan, load(0, 16))
    predictions = api.predict(light, heavy, load(16, 32))
    return {
        "deit statistics": of_table(statistics),
        "deit plan": of_table(plan),
        "deit light": of_model(light),
        "deit predictions": of_table(predictions),
    }


def main(api) -> None:
    what, target, *more = sys.argv[1:]
    path = pathlib.Path(target)
    if what == "inputs":
        return inputs(api, path)
    data = pathlib.Path(more[0]) if more else None
    found = portable(api) if what == "portable" else of_torch(api, data)
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{len(found)} digests in {path}")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    import interface

    main(interface)
