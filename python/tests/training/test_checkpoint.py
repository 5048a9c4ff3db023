"""Checkpoints: a run broken anywhere, by SIGKILL too, ends with the bits of an unbroken one."""

import os
import random
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, TensorDataset

from agflow.errors import AgflowError, CorruptFileError, FileError, InvalidValueError
from agflow.training.checkpoint import Progress
from agflow.training.checkpoint_file import read, write
from agflow.training.finetuning import finetune
from agflow.training.options import Checkpointing, Distillation, TrainingOptions

OPTIONS = {"epochs": 2, "seed": 3, "lr": 1e-3}


class Augmented(TensorDataset):
    """Adds noise from torch's global generator, as random augmentation does."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image + 0.1 * torch.randn_like(image), label


@pytest.fixture
def data(images):
    return Augmented(images[0].repeat(2, 1, 1, 1)[:14], images[1].repeat(2)[:14])


def own_generator(data):
    return DataLoader(data, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(7))


LOADERS = {
    "shuffled": lambda data: DataLoader(data, batch_size=4, shuffle=True),
    "own generator": own_generator,
    "sampler's generator": lambda data: DataLoader(
        data,
        4,
        sampler=torch.utils.data.RandomSampler(data, generator=torch.Generator().manual_seed(7)),
    ),
    "distributed sampler": lambda data: DataLoader(
        data, 4, sampler=torch.utils.data.DistributedSampler(data, num_replicas=1, rank=0)
    ),
}


class Broken(Exception):
    pass


def break_after(model, steps):
    """Let the model fail in its forward pass after that many."""
    left = [steps]

    def count(module, inputs):
        left[0] -= 1
        if left[0] < 0:
            raise Broken

    return model.register_forward_pre_hook(count)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("loader", LOADERS)
def test_a_run_broken_at_any_step_ends_with_the_same_bits(
    make_vit, data, tmp_path, loader, accumulate
):
    options = {
        **OPTIONS,
        "distillation": Distillation(make_vit(depth=2)),
        "options": TrainingOptions(accumulate=accumulate),
    }
    new = lambda: make_vit(drop_rate=0.1, drop_path_rate=0.1)
    whole = new()
    history = finetune(whole, LOADERS[loader](data), **options)
    for steps in (1, 4, 6):  # a step, an epoch, and into the second
        model = new()
        hook = break_after(model, steps)
        with pytest.raises(Broken):
            finetune(
                model,
                LOADERS[loader](data),
                checkpointing=Checkpointing(tmp_path / str(steps), every=1),
                **options,
            )
        hook.remove()
        again = new()  # a new process has a new model and loader
        assert (
            finetune(
                again,
                LOADERS[loader](data),
                checkpointing=Checkpointing(tmp_path / str(steps), every=1),
                **options,
            )
            == history
        )
        for (name, a), b in zip(whole.named_parameters(), again.parameters(), strict=True):
            assert torch.equal(a, b), (steps, name)


def test_workers_and_a_loader_that_went_on(make_vit, data, tmp_path):
    """With worker processes, and with the loader of the broken run, its generator moved on."""
    loader = lambda: DataLoader(
        data, batch_size=4, shuffle=True, num_workers=2, generator=torch.Generator().manual_seed(7)
    )
    whole, model, again = (make_vit(drop_rate=0.1) for _ in range(3))
    history = finetune(whole, loader(), **OPTIONS)
    moved = loader()
    hook = break_after(model, 6)
    with pytest.raises(Broken):
        finetune(model, moved, checkpointing=Checkpointing(tmp_path / "run", every=1), **OPTIONS)
    hook.remove()
    assert (
        finetune(again, moved, checkpointing=Checkpointing(tmp_path / "run", every=1), **OPTIONS)
        == history
    )
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True)
    )


def test_a_finished_run_is_only_read(make_vit, data, tmp_path):
    model, again = make_vit(), make_vit()
    history = finetune(
        model,
        own_generator(data),
        checkpointing=Checkpointing(tmp_path / "run", every=1),
        **OPTIONS,
    )
    state = torch.get_rng_state()
    break_after(again, 0)
    assert (
        finetune(
            again,
            own_generator(data),
            checkpointing=Checkpointing(tmp_path / "run", every=1),
            **OPTIONS,
        )
        == history
    )
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
    assert torch.equal(torch.get_rng_state(), state) and os.listdir(tmp_path) == ["run"]


KILLING = """
import os, random, signal, sys, time
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch.utils.data import DataLoader, TensorDataset
from agflow.training import Checkpointing, Distillation, finetune

class Augmented(TensorDataset):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image + 0.1 * torch.randn_like(image), label

def vit(**options):
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=8, num_classes=10, embed_dim=48, num_heads=4,
                             mlp_ratio=2.0, **options)

def train(weights, checkpointing=None):
    model, teacher = vit(depth=3, drop_rate=0.1), vit(depth=2)
    generator = torch.Generator().manual_seed(1)
    data = Augmented(torch.randn(14, 3, 32, 32, generator=generator), torch.arange(14) % 10)
    finetune(model, DataLoader(data, batch_size=4, shuffle=True), epochs=8, seed=3, lr=1e-3,
             distillation=Distillation(teacher), checkpointing=checkpointing)
    save_file(model.state_dict(), weights)

def ended(seconds, *arguments):  # whether a process that trains ends in time; else it is killed
    child = os.fork()
    if child == 0:
        train(*arguments)
        os._exit(0)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            assert status == 0
            return True
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False

torch.set_num_threads(1)
folder, draw, kills = sys.argv[1], random.Random(1), 0
assert ended(120, folder + "/whole")
checkpointing = Checkpointing(folder + "/run", every=1)
while not ended(draw.uniform(0.05, 0.15 + 0.05 * kills), folder + "/again", checkpointing):
    kills += 1
    assert kills < 60, "never finished"
print(kills)
"""


@pytest.mark.slow
def test_sigkill_in_the_middle_of_epochs(tmp_path):
    """Each process that is killed is a fork of one that has imported torch."""
    command = [sys.executable, "-c", KILLING, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2
    whole, again = load_file(tmp_path / "whole"), load_file(tmp_path / "again")
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


@pytest.fixture
def broken_run(make_vit, data, tmp_path):
    """A checkpoint in the middle of the first epoch, and what takes it up."""
    model = make_vit()
    break_after(model, 2)
    with pytest.raises(Broken):
        finetune(
            model,
            own_generator(data),
            checkpointing=Checkpointing(tmp_path / "run", every=1),
            **OPTIONS,
        )
    return tmp_path / "run"


def test_other_runs_are_refused_by_name(make_vit, data, broken_run, images):
    def refuse(match, model=None, loader=None, **options):
        model = model or make_vit()
        before = [parameter.clone() for parameter in model.parameters()]
        with pytest.raises(InvalidValueError, match=f"run is of another run .{match}"):
            finetune(
                model,
                loader or own_generator(data),
                checkpointing=Checkpointing(broken_run, every=1),
                **{**OPTIONS, **options},
            )
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))

    refuse("lr: 0.001 then, 0.002 now.: repeat that one, .* or name another checkpoint", lr=2e-3)
    refuse("epochs: 2 then, 3 now", epochs=3)
    refuse("seed: 3 then, 4 now", seed=4)
    refuse("the teacher's weights: None then", distillation=Distillation(make_vit(depth=2)))
    refuse("the model's weights at the beginning", model=make_vit(depth=2))
    other = make_vit()
    with torch.no_grad():
        other.head.bias[0] += 1e-3
    refuse("the model's weights at the beginning", model=other)
    frozen = make_vit()
    frozen.patch_embed.requires_grad_(False)
    refuse("the set of parameters that are not frozen", model=frozen)
    refuse("the number of batches: 4 then, 7 now", loader=DataLoader(data, batch_size=2))
    refuse("the loader's first batch has other", loader=DataLoader(data, batch_size=4))
    refuse(
        "the loader's first batch has other",
        loader=own_generator(Augmented(images[0].flip(0).repeat(2, 1, 1, 1)[:14], data.tensors[1])),
    )


def test_damage_is_one_clear_error(make_vit, data, broken_run):
    """Any byte may be flipped, and the file cut anywhere."""
    raw = broken_run.read_bytes()
    draw = random.Random(0)
    damaged = [raw[: draw.randrange(len(raw))] for _ in range(10)] + [b"", b"no checkpoint"]
    for place in [0, 9, *(draw.randrange(len(raw)) for _ in range(30))]:
        damaged.append(
            raw[:place] + bytes([raw[place] ^ 1 << draw.randrange(8)]) + raw[place + 1 :]
        )
    for content in damaged:
        broken_run.write_bytes(content)
        with pytest.raises(
            CorruptFileError, match="run.* (damaged|of another format|has format)"
        ) as raised:
            finetune(
                make_vit(),
                own_generator(data),
                checkpointing=Checkpointing(broken_run, every=1),
                **OPTIONS,
            )
        assert "\n" not in str(raised.value)


def test_other_files_are_no_checkpoints(make_vit, data, tmp_path):
    save_file({"x": torch.zeros(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(CorruptFileError, match="damaged or no checkpoint"):
        finetune(
            make_vit(),
            own_generator(data),
            checkpointing=Checkpointing(tmp_path / "weights.safetensors", every=1),
            **OPTIONS,
        )
    with pytest.raises(AgflowError):
        finetune(
            make_vit(),
            own_generator(data),
            checkpointing=Checkpointing(tmp_path, every=1),
            **OPTIONS,
        )


def no_state(content, tensors):
    del tensors["rank.0.begin.cpu"]


FORGERIES = {
    "no progress": lambda content, tensors: content.pop("progress"),
    "no run": lambda content, tensors: content.update(run=[]),
    "an unknown field": lambda content, tensors: content["progress"].update(more=1),
    "a missing field": lambda content, tensors: content["progress"].pop("images"),
    "epoch of another kind": lambda content, tensors: content["progress"].update(epoch="1"),
    "epoch 0": lambda content, tensors: content["progress"].update(epoch=0),
    "an epoch without history": lambda content, tensors: content["progress"].update(epoch=3),
    "history": lambda content, tensors: content["progress"].update(epoch=2, history=[{}]),
    "too many batches": lambda content, tensors: content["progress"].update(batches=10**9),
    "no images": lambda content, tensors: content["progress"].update(images=0),
    "a loss of another kind": lambda content, tensors: content["progress"].update(loss=None),
    "no weight": lambda content, tensors: tensors.pop("model.head.weight"),
    "one weight more": lambda content, tensors: tensors.update({"model.x": torch.zeros(1)}),
    "another shape": lambda content, tensors: tensors.update({"model.head.bias": torch.zeros(1)}),
    "another type": lambda content, tensors: tensors.update(
        {"model.head.bias": tensors["model.head.bias"].double()}
    ),
    "optimizer": lambda content, tensors: tensors.update({"optimizer.x.step": torch.zeros(())}),
    "optimizer's index": lambda content, tensors: tensors.update(
        {"optimizer.999999.step": torch.zeros(())}
    ),
    "optimizer's name": lambda content, tensors: tensors.update(
        {"optimizer.0.hook": torch.zeros(())}
    ),
    "optimizer's shape": lambda content, tensors: tensors.update(
        {"optimizer.0.exp_avg": torch.zeros(1)}
    ),
    "half an optimizer": lambda content, tensors: tensors.pop("optimizer.0.exp_avg"),
    "no generator": no_state,
    "a generator's shape": lambda content, tensors: tensors.update(
        {"rank.0.now.cpu": torch.zeros(3, dtype=torch.uint8)}
    ),
    "a generator's state": lambda content, tensors: tensors["rank.0.now.cpu"].fill_(255),
    "a digest's type": lambda content, tensors: tensors.update(
        {"rank.0.first_batch": torch.zeros(32)}
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_file_with_the_right_checksum_is_one_clear_error(
    make_vit, data, broken_run, forgery
):
    content, tensors = read(broken_run)
    FORGERIES[forgery](content, tensors)
    write(broken_run, content, tensors)
    model = make_vit()
    before, state = [p.clone() for p in model.parameters()], torch.get_rng_state()
    with pytest.raises(CorruptFileError, match="checkpoint .*run is damaged: .*; delete it"):
        checkpointing = Checkpointing(broken_run, every=1)
        finetune(model, own_generator(data), checkpointing=checkpointing, **OPTIONS)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_checkpoints_of_other_formats(make_vit, data, broken_run, monkeypatch):
    """The first one is taken up, a newer one is refused by name."""
    whole = make_vit()
    history = finetune(whole, own_generator(data), **OPTIONS)
    again = lambda: finetune(
        make_vit(), own_generator(data), checkpointing=Checkpointing(broken_run), **OPTIONS
    )
    content, tensors = read(broken_run)
    monkeypatch.setattr("agflow.training.checkpoint_file.FORMAT", 5)
    write(broken_run, content, tensors)
    monkeypatch.setattr("agflow.training.checkpoint_file.FORMAT", 4)
    with pytest.raises(CorruptFileError, match="has format 5, this version reads up to 4"):
        again()
    content["progress"]["hits"] = content["progress"].pop("correct")
    monkeypatch.setattr("agflow.training.checkpoint_file.FORMAT", 1)
    write(broken_run, content, tensors)
    monkeypatch.setattr("agflow.training.checkpoint_file.FORMAT", 4)
    assert again() == history


def test_pipes_and_devices_are_refused_before_the_training(make_vit, data, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null", "/dev/zero"):
        with pytest.raises(FileError, match="is no regular file"):
            checkpointing = Checkpointing(path, every=1)
            finetune(make_vit(), own_generator(data), checkpointing=checkpointing, **OPTIONS)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "new folder" / "run"
    first = {"run": {}, "progress": {"step": 1}}
    write(path, first, {"x": torch.arange(3)})
    monkeypatch.setattr(
        os, "fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(FileError, match="cannot be written: No space left"):
        write(path, {"progress": {"step": 2}}, {"x": torch.arange(4)})
    content, tensors = read(path)
    assert (
        content == first
        and torch.equal(tensors["x"], torch.arange(3))
        and os.listdir(path.parent) == ["run"]
    )


def test_means_are_over_images():
    progress = Progress()
    progress.add_step(2, 1.0, 3, 4)
    progress.add_step(1, 4.0, 1, 2)
    progress.end_epoch(0.1)
    assert progress == Progress(
        epoch=2, step=2, history=[{"epoch": 1, "loss": 2.0, "accuracy": 4 / 6, "lr": 0.1}]
    )
