"""Processes of torchrun: equal weights, those of one larger batch, and merged statistics."""

import json
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from agflow._utils.ranks import Ranks
from agflow.calibration.calibration import calibrate
from agflow.calibration.statistics import Statistics
from agflow.cascade.expert_passes import predict
from agflow.cascade.predictions import Predictions
from agflow.errors import InvalidValueError
from agflow.evaluation.accuracy import evaluate
from agflow.training.finetuning import finetune
from agflow.training.options import Distillation

SCRIPT = """
import json, os, pathlib, sys
import torch
from safetensors.torch import save_file
from torch import nn
from timm.models.vision_transformer import VisionTransformer
from torch.utils.data import DataLoader, DistributedSampler, Subset, TensorDataset
import agflow
import agflow._utils.ranks
from agflow.errors import AgflowError
from agflow.training import Checkpointing, Distillation, TrainingOptions

rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
folder = pathlib.Path(sys.argv[1])
torch.set_num_threads(1)

def vit(seed=0):
    torch.manual_seed(seed)
    return VisionTransformer(img_size=32, patch_size=8, num_classes=10, embed_dim=32, depth=2,
                             num_heads=4, mlp_ratio=2.0).eval()

def normed(seed):
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 10))

generator = torch.Generator().manual_seed(1)
data = TensorDataset(torch.randn(24, 3, 32, 32, generator=generator), torch.arange(24) % 10)

def shard(batch, **options):
    return DataLoader(data, batch, sampler=DistributedSampler(data, ranks, rank, **options))

def tune(model, **options):
    distillation = Distillation(vit())
    batches = shard(4, shuffle=False)
    return agflow.finetune(
        model, batches, distillation=distillation, epochs=2, held_out=shard(5), **options
    )

if "tune" in sys.argv:
    model = vit(rank)  # every rank gets the weights of rank 0
    history = tune(model)
    save_file(model.state_dict(), folder / f"tuned-{rank}")

    cnn = normed(rank)
    agflow.finetune(cnn, shard(5, shuffle=False), epochs=2)  # ends with batches of two images
    save_file(cnn.state_dict(), folder / f"cnn-{rank}")

    broken = vit(rank)
    # Evaluation of the held-out images counts no step.
    breaking = lambda module, inputs: (module.training or None) and (
        1 / 0 if len(steps) == 4 else steps.append(1)
    )
    hook = broken.register_forward_pre_hook(breaking)
    steps = []
    try:
        tune(broken, checkpointing=Checkpointing(folder / "run", every=1))
    except ZeroDivisionError:
        hook.remove()
    again = vit(rank)
    histories = [history, tune(again, checkpointing=Checkpointing(folder / "run", every=1))]
    (folder / f"history-{rank}").write_text(json.dumps(histories))
    save_file(again.state_dict(), folder / f"again-{rank}")

    try:
        tune(vit(), options=TrainingOptions(callback=lambda entry: 1 / 0))
    except (ZeroDivisionError, AgflowError) as error:
        (folder / f"stopped-{rank}").write_text(str(error))

    try:
        agflow.finetune(vit(), [next(iter(shard(4)))] * (1 + rank))
    except AgflowError as error:
        (folder / f"refused-{rank}").write_text(str(error))

shared = agflow.calibrate(vit(), shard(3))  # a batch is of three images for every number of ranks
shared.save(folder / f"shared-{rank}.arrow")
agflow.calibration.gather_statistics(shared).save(folder / f"gathered-{rank}.arrow")
alone = data.tensors[0]  # a dataset of images without labels
own_answers = DataLoader(alone, 3, sampler=DistributedSampler(alone, ranks, rank))
agflow.calibrate(vit(), own_answers, loss="self").save(folder / f"self-{rank}.arrow")
own = agflow.calibrate(vit(), DataLoader(Subset(data, range(rank, 24, ranks)), 3))
own.save(folder / f"own-{rank}.arrow")
agflow.calibration.gather_statistics(own).save(folder / f"merged-{rank}.arrow")

predictions = agflow.predict(vit(), vit(1), shard(5))  # 24 images, padded to 25 for two ranks
predictions.save(folder / f"predictions-{rank}.arrow")
accuracy = agflow.evaluate(vit(), shard(5, shuffle=False))
bad = DataLoader(TensorDataset(data.tensors[0], torch.where(torch.arange(24) == 23, 10, 0)), 4,
                 sampler=DistributedSampler(range(24), ranks, rank, shuffle=False))
try:
    agflow.evaluate(vit(), bad)
except AgflowError as error:  # all ranks hear of the label that one has seen
    (folder / f"evaluated-{rank}").write_text(f"{accuracy}; {error}")
"""


FORKING = """
import os, sys
# Imported once for all ranks; the Go core starts in each.
import timm, agflow.calibration, agflow._utils.ranks

script, port, ranks = sys.argv[2:]
os.environ |= {"WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
for rank in range(int(ranks)):
    if os.fork() == 0:
        os.environ["RANK"] = str(rank)
        exec(open(script).read())
        sys.exit()
sys.exit(any(os.wait()[1] for _ in range(int(ranks))))
"""


def run(*command):
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[:3000]


@pytest.fixture
def script(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path / "script.py"


@pytest.fixture
def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def namespace_of_one_process(tmp_path):
    """What the script defines, in this process: the same models and images."""
    namespace = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RANK": "0", "WORLD_SIZE": "1"}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["script.py", str(tmp_path)])
        exec(SCRIPT.partition('if "tune"')[0], namespace)
    return namespace


def check_statistics(folder, ranks, namespace):
    """Every rank has those of all images, and they are those of one process but for rounding."""
    load = lambda name: Statistics.load(folder / f"{name}.arrow")
    first, *others = [load(f"own-{rank}") for rank in range(ranks)]
    expected = first.merge(*others)
    assert all(load(f"merged-{rank}") == expected != first for rank in range(ranks))

    shared = load("shared-0")
    assert all(
        load(f"{name}-{rank}") == shared for name in ("shared", "gathered") for rank in range(ranks)
    )
    data = namespace["data"]
    for found, images, loss in (("shared", data, "labels"), ("self", data.tensors[0], "self")):
        together = load(f"{found}-0")
        assert all(load(f"{found}-{rank}") == together for rank in range(ranks))
        batches = DataLoader(images, 3, sampler=DistributedSampler(images, 1, 0))
        alone = calibrate(namespace["vit"](), batches, loss=loss)
        assert together.columns["samples"][0] == alone.columns["samples"][0] == 24
        for name in alone.columns:
            if alone.columns[name].dtype == np.float64:
                np.testing.assert_allclose(together.columns[name], alone.columns[name], rtol=1e-12)
    return shared


def check_answers(folder, ranks, namespace):
    """Every rank has the answers to all images, each once and in order, as one process has them."""
    images = DataLoader(namespace["data"], 5)
    predict(namespace["vit"](), namespace["vit"](1), images).save(folder / "expected.arrow")
    expected = Predictions.load(folder / "expected.arrow")
    accuracy = evaluate(namespace["vit"](), images)
    for rank in range(ranks):
        assert Predictions.load(folder / f"predictions-{rank}.arrow") == expected
        said = (folder / f"evaluated-{rank}").read_text()
        assert said.startswith(f"{accuracy}; ") and "labels run from 0 to 10" in said


def test_two_ranks_tune_as_one_process_with_both_batches(tmp_path, script):
    run(
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        script,
        tmp_path,
        "tune",
    )
    tuned = [load_file(tmp_path / f"tuned-{rank}") for rank in range(2)]
    assert all(torch.equal(tensor, tuned[1][name]) for name, tensor in tuned[0].items())
    normed = [load_file(tmp_path / f"cnn-{rank}") for rank in range(2)]
    assert all(torch.equal(tensor, normed[1][name]) for name, tensor in normed[0].items())
    assert normed[0]["1.num_batches_tracked"] == 6 and normed[0]["1.running_mean"].all()

    namespace = namespace_of_one_process(tmp_path)
    model, images = namespace["vit"](), namespace["data"].tensors
    order = (
        torch.arange(24).view(12, 2).T.reshape(2, 3, 4).transpose(0, 1).flatten()
    )  # step by step, rank 0's batch before rank 1's
    both = DataLoader(TensorDataset(*(tensor[order] for tensor in images)), batch_size=8)
    history = finetune(
        model,
        both,
        distillation=Distillation(namespace["vit"]()),
        epochs=2,
        held_out=DataLoader(namespace["data"], 5),
    )
    assert all(
        torch.allclose(tensor, tuned[0][name], atol=2e-5)
        for name, tensor in model.state_dict().items()
    )

    reported = [json.loads((tmp_path / f"history-{rank}").read_text()) for rank in range(2)]
    assert reported[0] == reported[1]
    for entry, expected in zip(reported[0][0], history, strict=True):
        assert entry == pytest.approx(expected, rel=1e-4)

    # Broken in the second epoch and taken up: the same bits and history. Only rank 0 writes.
    assert reported[0][0] == reported[0][1]
    again = [load_file(tmp_path / f"again-{rank}") for rank in range(2)]
    assert all(
        torch.equal(tensor, each[name]) for each in again for name, tensor in tuned[0].items()
    )

    # What stops rank 0 stops the others.
    stopped = [(tmp_path / f"stopped-{rank}").read_text() for rank in range(2)]
    assert stopped[0] == "division by zero" and "ZeroDivisionError" in stopped[1]

    # Ranks that differ are refused on every rank, and none waits for ever.
    for rank in range(2):
        assert (
            (tmp_path / f"refused-{rank}")
            .read_text()
            .startswith("batches is 1 on rank 0 and 2 on rank 1, expected the same on all")
        )
    check_statistics(tmp_path, 2, namespace)
    check_answers(tmp_path, 2, namespace)


@pytest.mark.slow
def test_statistics_have_the_same_bits_for_every_number_of_ranks(tmp_path, script, free_port):
    namespace, found = namespace_of_one_process(tmp_path), []
    for ranks in (4, 3, 2):
        run("-c", FORKING, tmp_path, script, free_port, ranks)
        found.append(check_statistics(tmp_path, ranks, namespace))
        check_answers(tmp_path, ranks, namespace)
    assert found[0] == found[1] == found[2]


def test_alone_nothing_is_exchanged(make_vit, images):
    ranks = Ranks.of_process()
    assert (ranks.rank, ranks.size) == (0, 1) and ranks.gather(b"x") == [b"x"]
    ranks.agree(batches=3)
    ranks.share(make_vit())


def test_what_differs_is_named(monkeypatch):
    monkeypatch.setattr(
        Ranks, "gather", lambda self, payload: [payload, b'{"lr": 2.0, "model": {"a": 1}}']
    )
    with pytest.raises(InvalidValueError, match="lr is 1.0 on rank 0 and 2.0 on rank 1"):
        Ranks(0, 2).agree(lr=1.0, model={"a": 1})
    with pytest.raises(InvalidValueError, match="model is .* on rank 0"):
        Ranks(0, 2).agree(lr=2.0, model={"a": 2})
