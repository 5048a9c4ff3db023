"""Held-out images: accuracy an epoch, the best weights kept, a callback, the same bits resumed."""

import pytest
import torch
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

from agflow.errors import CorruptFileError, InvalidValueError
from agflow.evaluation import evaluate
from agflow.training.checkpoint_file import read, write
from agflow.training.finetuning import finetune
from agflow.training.history import History
from agflow.training.options import Checkpointing, Distillation, TrainingOptions


@pytest.fixture
def data(images):
    return TensorDataset(images[0].repeat(2, 1, 1, 1)[:14], images[1].repeat(2)[:14])


@pytest.fixture
def others():
    """Twelve images that do not train, in batches."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(12, 3, 32, 32, generator=generator)
    return DataLoader(TensorDataset(images, torch.arange(12) % 8), batch_size=5, shuffle=True)


def shuffled(data):
    return DataLoader(data, batch_size=4, shuffle=True)


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_model_ends_with_the_weights_of_its_best_epoch(make_vit, data, others):
    model, told = make_vit(drop_rate=0.1), []
    start = evaluate(model, others).top1
    history = finetune(
        model,
        shuffled(data),
        held_out=others,
        epochs=5,
        lr=4e-3,
        seed=4,
        distillation=Distillation(make_vit(depth=2), share=0.1, features=0.1),
        options=TrainingOptions(callback=told.append),
    )
    assert told == history and [entry["epoch"] for entry in told] == [1, 2, 3, 4, 5]
    assert history.start == start
    assert evaluate(model, others).top1 == history.best_accuracy > start
    assert history.best_accuracy == max(entry["held_out_accuracy"] for entry in history)
    assert not model.training


def test_training_that_gains_nothing_changes_nothing(make_vit, images):
    """The images that train have other labels than those that are held out."""
    model = make_vit()
    with torch.no_grad():
        held_out = images[0], model(images[0]).argmax(1)
    wrong = [(images[0], (held_out[1] + 1) % 10)]
    history = finetune(model, wrong, held_out=[held_out], epochs=3, lr=4e-3)
    assert history.start == history.best_accuracy == 1 and history.best_epoch == 0
    assert history[-1]["held_out_accuracy"] < 1 and same_weights(model, make_vit())


def test_training_draws_the_same_with_held_out_images_and_without(make_vit, data, others):
    generator = torch.Generator()
    loader = DataLoader(data, batch_size=4, shuffle=True, generator=generator)
    shared = DataLoader(others.dataset, batch_size=5, shuffle=True, generator=generator)
    plain = finetune(make_vit(drop_rate=0.1), loader, epochs=3)
    for held_out in (others, shared):
        generator.manual_seed(generator.initial_seed())
        again = finetune(make_vit(drop_rate=0.1), loader, epochs=3, held_out=held_out)
        assert [{**one, "held_out_accuracy": 0} for one in plain] == [
            {**one, "held_out_accuracy": 0} for one in again
        ]
    assert plain.start is plain.best_epoch is plain.best_accuracy is None


def test_a_later_epoch_of_the_same_accuracy_is_better():
    entries = [{"epoch": n, "held_out_accuracy": a} for n, a in ((1, 0.5), (2, 0.75), (3, 0.75))]
    assert History(entries, start=0.75).best_epoch == 3
    assert History(entries, start=0.8).best_epoch == 0
    cosines = History([{"epoch": 1, "cosine": 0.6, "held_out_cosine": 0.9}], start=0.8)
    assert (cosines.best_cosine, cosines.best_accuracy, cosines.best_epoch) == (0.9, None, 1)
    assert History(entries, start=0.8).best_cosine is None


@pytest.mark.parametrize("steps", [1, 4, 6, 9])
def test_a_broken_run_ends_with_the_same_best_weights(make_vit, data, others, tmp_path, steps):
    run = {"epochs": 3, "lr": 4e-3, "held_out": others, "seed": 1}
    new = lambda: make_vit(drop_rate=0.1)
    whole, broken, again = new(), new(), new()
    history = finetune(whole, shuffled(data), **run)
    left = [steps]

    def breaking(module, inputs):
        left[0] -= module.training
        if left[0] < 0:
            raise KeyboardInterrupt

    hook = broken.register_forward_pre_hook(breaking)
    run["checkpointing"] = Checkpointing(tmp_path / "run", every=1)
    with pytest.raises(KeyboardInterrupt):
        finetune(broken, shuffled(data), **run)
    hook.remove()
    told = []
    options = TrainingOptions(callback=told.append)
    assert finetune(again, shuffled(data), **run, options=options) == history
    assert same_weights(whole, again)
    assert told == history[(steps - 1) // 4 :] or told == history[steps // 4 :]
    best = max(history[: steps // 4], key=lambda entry: entry["held_out_accuracy"], default=None)
    expected = max(history.start, best["held_out_accuracy"]) if best else history.start
    assert evaluate(broken, others).top1 == expected


def test_an_exception_of_the_callback_leaves_the_best_weights_and_a_checkpoint(
    make_vit, data, others, tmp_path
):
    run = {"epochs": 3, "lr": 4e-3, "held_out": others, "seed": 1}
    run["checkpointing"] = Checkpointing(tmp_path / "run")
    whole, stopped, again = make_vit(), make_vit(), make_vit()

    def stop(entry):
        entry.clear()  # a copy
        raise StopIteration("enough")

    with pytest.raises(StopIteration, match="enough"):
        finetune(stopped, shuffled(data), **run, options=TrainingOptions(callback=stop))
    assert not stopped.training
    _, tensors = read(tmp_path / "run")
    assert torch.equal(tensors["best.head.weight"], stopped.head.weight)
    history = finetune(again, shuffled(data), **run)
    assert finetune(whole, shuffled(data), **{**run, "checkpointing": None}) == history
    assert same_weights(whole, again)


def test_refusals(make_vit, data, others, tmp_path):
    loader = shuffled(data)
    refused = [
        (loader, "read the same images"),
        (DataLoader(data, batch_size=7), "read the same images"),
        (iter(others), "can be read only once.*pass a DataLoader"),
        ("images", "is a str, expected a DataLoader"),
    ]
    for held_out, message in refused:
        model = make_vit()
        with pytest.raises(InvalidValueError, match=message):
            finetune(model, loader, held_out=held_out)
        assert same_weights(model, make_vit())
    with pytest.raises(InvalidValueError, match="callback is a str"):
        TrainingOptions(callback="print")
    parts = [
        DataLoader(data, batch_size=4, sampler=SubsetRandomSampler(part))
        for part in (range(8), range(8, 14))
    ]
    assert len(finetune(make_vit(), parts[0], held_out=parts[1], epochs=1)) == 1

    run = {"epochs": 1, "checkpointing": Checkpointing(tmp_path / "run")}
    finetune(make_vit(), loader, held_out=others, **run)
    with pytest.raises(InvalidValueError, match="another run .the held-out images: .* then, None"):
        finetune(make_vit(), loader, **run)
    with pytest.raises(InvalidValueError, match="another run .the held-out images"):
        finetune(make_vit(), loader, held_out=parts[1], **run)
    content, tensors = read(tmp_path / "run")
    del tensors["best.head.bias"]
    write(tmp_path / "run", content, tensors)
    with pytest.raises(CorruptFileError, match="the best head.bias is missing"):
        finetune(make_vit(), loader, held_out=others, **run)
