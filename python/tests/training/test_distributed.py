"""Processes of torchrun: equal weights, those of one larger batch, and merged statistics."""

import json
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader, TensorDataset

from agflow._utils.ranks import Ranks
from agflow.calibration.statistics import Statistics
from agflow.errors import InvalidValueError
from agflow.training.finetuning import finetune
from agflow.training.options import Distillation

SCRIPT = """
import json, os, pathlib, sys
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
import agflow
import agflow._utils.ranks
from agflow.errors import AgflowError
from agflow.training import Checkpointing, Distillation

rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
folder = pathlib.Path(sys.argv[1])
torch.set_num_threads(1)

def vit(seed=0):
    torch.manual_seed(seed)
    return VisionTransformer(img_size=32, patch_size=8, num_classes=10, embed_dim=32, depth=2,
                             num_heads=4, mlp_ratio=2.0).eval()

generator = torch.Generator().manual_seed(1)
data = TensorDataset(torch.randn(24, 3, 32, 32, generator=generator), torch.arange(24) % 10)

def shard(batch, **options):
    return DataLoader(data, batch, sampler=DistributedSampler(data, ranks, rank, **options))

def tune(model, **options):
    distillation = Distillation(vit())
    batches = shard(4, shuffle=False)
    return agflow.finetune(model, batches, distillation=distillation, epochs=2, **options)

if "tune" in sys.argv:
    model = vit(rank)  # every rank gets the weights of rank 0
    history = tune(model)
    save_file(model.state_dict(), folder / f"tuned-{rank}")

    broken = vit(rank)
    breaking = lambda module, inputs: 1 / 0 if len(steps) == 4 else steps.append(1)
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
        agflow.finetune(vit(), [next(iter(shard(4)))] * (1 + rank))
    except AgflowError as error:
        (folder / f"refused-{rank}").write_text(str(error))

own = agflow.calibrate(vit(), shard(3))
own.save(folder / f"own-{rank}.arrow")
agflow.calibration.gather_statistics(own).save(folder / f"merged-{rank}.arrow")
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
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def script(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path / "script.py"


@pytest.fixture
def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def check_statistics(folder, ranks):
    first, *others = [Statistics.load(folder / f"own-{rank}.arrow") for rank in range(ranks)]
    expected = first.merge(*others)
    assert all(
        Statistics.load(folder / f"merged-{rank}.arrow") == expected != first
        for rank in range(ranks)
    )


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

    namespace = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RANK": "0", "WORLD_SIZE": "1"}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["script.py", str(tmp_path)])
        exec(SCRIPT.partition('if "tune"')[0], namespace)  # the same model and images
    model, images = namespace["vit"](), namespace["data"].tensors
    order = (
        torch.arange(24).view(12, 2).T.reshape(2, 3, 4).transpose(0, 1).flatten()
    )  # step by step, rank 0's batch before rank 1's
    both = DataLoader(TensorDataset(*(tensor[order] for tensor in images)), batch_size=8)
    history = finetune(model, both, distillation=Distillation(namespace["vit"]()), epochs=2)
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

    # Ranks that differ are refused on every rank, and none waits for ever.
    for rank in range(2):
        assert (
            (tmp_path / f"refused-{rank}")
            .read_text()
            .startswith("batches is 1 on rank 0 and 2 on rank 1, expected the same on all")
        )
    check_statistics(tmp_path, 2)


@pytest.mark.slow
def test_four_ranks_merge_their_statistics(tmp_path, script, free_port):
    run("-c", FORKING, tmp_path, script, free_port, 4)
    check_statistics(tmp_path, 4)


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
