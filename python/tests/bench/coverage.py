"""How many convolutional networks agflow prunes, beside Torch-Pruning. Not collected by pytest.

    python python/tests/bench/coverage.py [--results coverage.jsonl] [--seconds 240] [NAME ...]

Each network is made with random weights, in a process of its own: calibrate on a few random images,
plan 0.7x of the MACs, prune without compensation (which compares the cut with the mask), compare
again in float64, save and load. Then Torch-Pruning, by magnitude, at about the same MACs. Results
are added to the file, and networks that it holds are left out.
"""

from __future__ import annotations

import argparse
import copy
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings

# The convolutional families of torchvision's classifiers, the smallest of each and well-known ones.
TORCHVISION = (
    "alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 "
    "mnasnet0_5 mobilenet_v2 mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 resnet50 "
    "resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_1 vgg11 vgg11_bn wide_resnet50_2"
).split()
# The smallest of each of timm's modules of convolutional networks (those without attention between
# places), its models for tests left out, and well-known ones.
TIMM = (
    "mobileone_s0 repvgg_a0 gernet_s convmixer_768_32 convnext_atto cs3darknet_s cspnext_tiny "
    "densenet121 dla46x_c dpn48b tinynet_e efficientnet_lite0 fasternet_t0 fastvit_t8 "
    "focalnet_tiny_srf ghostnet_050 hardcorenas_b hgnetv2_b0 hrnet_w18_small inception_next_atto "
    "inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small mambaout_femto poolformerv2_s12 "
    "mobilenetv3_small_050 nasnetalarge nf_regnet_b0 pnasnet5large rdnet_tiny regnetx_002 "
    "regnety_002 repghostnet_050 repvit_m1 res2next50 resnest14d resnet10t resnet18 resnetv2_18 "
    "rexnet_100 selecsls42 legacy_seresnet18 skresnet18 starnet_s050 tresnet_m vgg11_bn "
    "ese_vovnet19b_slim_dw legacy_xception xception41p"
).split()
MODELS = [f"torchvision:{name}" for name in TORCHVISION] + [f"timm:{name}" for name in TIMM]
MACS = 0.7
RATIO = 1 - MACS**0.5  # of the channels, where both sides of each weight lose as many


def made(name: str):
    """The network with random weights, in evaluation mode, and the size of its images."""
    import timm
    import torch
    import torchvision

    torch.manual_seed(0)
    library, _, model = name.partition(":")
    if library == "timm":
        network = timm.create_model(model)
        return network.eval(), tuple(network.default_cfg["input_size"])
    options = {"init_weights": True} if model in ("googlenet", "inception_v3") else {}
    size = 299 if model == "inception_v3" else 224
    return torchvision.models.get_model(model, **options).eval(), (3, size, size)


def of_agflow(name: str) -> dict:
    """Calibrate, plan, prune, compare, save and load."""
    import torch

    import agflow
    from agflow.models.registry import adapter_for
    from agflow.models.tracing.network import traced_network

    model, size = made(name)
    started = time.perf_counter()
    network = traced_network(model, size)
    traced = time.perf_counter() - started
    kinds = sorted({group.kind for group in network.groups} - {"block"})
    result = {
        "groups": len(network.groups),
        "kept": [str(kept) for kept in network.kept],
        "trace_s": round(traced, 1),
    }
    images, labels = torch.randn(2, *size), torch.tensor([1, 2])
    statistics = agflow.calibrate(model, [(images, labels)], groups=kinds)
    plan = agflow.plan(statistics, macs=MACS)
    light = agflow.prune(model, plan, compensate="none")
    share = agflow.count_macs(light) / agflow.count_macs(model)
    assert type(adapter_for(model)).__name__ == "TracedModel"
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        agflow.save(light, f"{folder}/light")
        loaded = agflow.load(f"{folder}/light")
        images = torch.randn(2, *size)
        same = torch.equal(loaded.eval()(images), light.eval()(images))
    return {**result, "macs": round(share, 3), "loads": same, "ok": bool(same and share <= MACS)}


def of_torch_pruning(name: str) -> dict:
    """Prune by group magnitude; it works if the model runs and has its classes."""
    import torch
    import torch_pruning

    model, size = made(name)
    images = torch.randn(1, *size)
    classes = model(images).shape[-1]
    ignored = [
        module
        for module in model.modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))
        and classes in (module.weight.shape[0],)
    ]
    before = torch_pruning.utils.count_ops_and_params(copy.deepcopy(model), images)[0]
    torch_pruning.pruner.MagnitudePruner(
        model,
        images,
        importance=torch_pruning.importance.GroupMagnitudeImportance(),
        pruning_ratio=RATIO,
        ignored_layers=ignored,
    ).step()
    logits = model(torch.randn(2, *size))
    after = torch_pruning.utils.count_ops_and_params(model, images)[0]
    fine = list(logits.shape) == [2, classes] and bool(logits.isfinite().all())
    return {"tp_ok": fine, "tp_macs": round(after / before, 3)}


def in_a_process(side: str, name: str, seconds: int) -> dict:
    """What a side reports of a network, or the reason why it does not."""
    prefix = "tp_" if side == "torch_pruning" else ""
    started = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--side", side, name],
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        result = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        result = {f"{prefix}ok": False, f"{prefix}reason": f"more than {seconds} s"}
    except (IndexError, json.JSONDecodeError):
        result = {f"{prefix}ok": False, f"{prefix}reason": done.stderr[-300:]}
    return {**result, f"{prefix}s": round(time.perf_counter() - started, 1)}


def report(side: str, name: str) -> None:
    """Print one result as JSON."""
    warnings.simplefilter("ignore")
    prefix = "tp_" if side == "torch_pruning" else ""
    try:
        result = of_torch_pruning(name) if prefix else of_agflow(name)
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error)[:300]}"
        result = {f"{prefix}ok": False, f"{prefix}reason": reason}
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path("coverage.jsonl"))
    parser.add_argument("--seconds", type=int, default=240, help="for each side of each network")
    parser.add_argument("--alone", action="store_true", help="without Torch-Pruning")
    parser.add_argument("--side", choices=("agflow", "torch_pruning"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        report(options.side, options.names[0])
        return
    lines = options.results.read_text().splitlines() if options.results.exists() else []
    done = {json.loads(line)["model"] for line in lines}
    for name in options.names or MODELS:
        if name in done:
            continue
        row = {"model": name, **in_a_process("agflow", name, options.seconds)}
        if not options.alone:
            row |= in_a_process("torch_pruning", name, options.seconds)
        with options.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps({**row, "kept": len(row.get("kept", ()))}), flush=True)


if __name__ == "__main__":
    main()
