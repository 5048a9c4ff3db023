"""Fine-tuning: the same bits from the same seed, the teacher untouched, refusals by name."""

import copy

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from agflow.errors import (
    EmptyError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
    UnsupportedModelError,
)
from agflow.training.features import last_block
from agflow.training.finetuning import finetune
from agflow.training.options import Checkpointing, Distillation, TrainingOptions


@pytest.fixture
def shuffled(images):
    """Batches of 4 of 16 images in an order that torch's global generator decides."""
    return DataLoader(
        TensorDataset(images[0].repeat(2, 1, 1, 1), images[1].repeat(2)), batch_size=4, shuffle=True
    )


def test_same_seed_same_bits_and_the_global_generator_stays(make_vit, shuffled):
    first, second, other = (make_vit(drop_rate=0.1) for _ in range(3))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    histories = [
        finetune(model, shuffled, distillation=Distillation(make_vit(depth=2)), epochs=2, seed=seed)
        for model, seed in ((first, 3), (second, 3), (other, 4))
    ]
    assert histories[0] == histories[1] != histories[2]
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    torch.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), state)


def test_loss_falls_with_and_without_teacher(make_vit, shuffled):
    for distillation in (None, Distillation(make_vit(depth=4), share=0.5)):
        history = finetune(make_vit(), shuffled, epochs=6, lr=4e-3, distillation=distillation)
        assert [entry["epoch"] for entry in history] == list(range(1, 7))
        assert (
            history[-1]["loss"] < 0.7 * history[0]["loss"]
            and history[-1]["accuracy"] > history[0]["accuracy"]
        )
        assert history[-1]["lr"] == pytest.approx(0, abs=1e-12)


def test_distillation_alone_pulls_towards_the_teacher(make_vit, shuffled, images):
    model, teacher = make_vit(), make_vit(depth=4)
    wrong = DataLoader(TensorDataset(images[0], torch.zeros(8, dtype=torch.int64)), batch_size=4)

    def distance():
        with torch.no_grad():
            return (model(images[0]).softmax(1) - teacher(images[0]).softmax(1)).abs().sum().item()

    before = distance()
    finetune(model, wrong, epochs=10, lr=4e-3, distillation=Distillation(teacher, share=1.0))
    assert distance() < 0.5 * before


def test_accumulated_batches_are_one_batch(make_vit, images):
    """Two batches of unequal size make the step that one batch of all their images makes."""
    pieces = [(images[0][:5], images[1][:5]), (images[0][5:], images[1][5:])]
    whole, split = make_vit(), make_vit()
    histories = [
        finetune(
            model,
            loader,
            distillation=Distillation(make_vit(depth=2), features=0.5),
            options=TrainingOptions(accumulate=accumulate),
            epochs=3,
        )
        for model, loader, accumulate in ((whole, [images], 1), (split, pieces, 2))
    ]
    for a, b in zip(*histories, strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    for (name, a), b in zip(whole.named_parameters(), split.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5), name


def test_the_last_group_of_an_epoch_may_be_short(make_vit, images):
    history = finetune(make_vit(), [images] * 3, epochs=2, options=TrainingOptions(accumulate=2))
    assert [entry["lr"] for entry in history][-1] == pytest.approx(0, abs=1e-12)


def test_features_pull_the_last_block_towards_the_teachers(make_vit, images):
    """The term is the weight times the mean squared error of normalised tokens."""
    model, teacher = make_vit(), make_vit(depth=5)

    def tokens(of):
        seen = []
        hook = of.blocks[-1].register_forward_hook(
            lambda block, inputs, output: seen.append(output)
        )
        with torch.no_grad():
            of(images[0])
        hook.remove()
        return torch.nn.functional.layer_norm(seen[0], seen[0].shape[-1:])

    distance = lambda: (tokens(model) - tokens(teacher)).square().mean().item()
    before = distance()
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(images[0]), images[1]).item() + 10 * before
    history = finetune(
        model,
        [images],
        distillation=Distillation(teacher, share=0.0, features=10.0),
        epochs=20,
        lr=3e-3,
    )
    assert history[0]["loss"] == pytest.approx(loss, rel=1e-4)
    assert distance() < 0.5 * before
    assert (
        last_block(model) is model.blocks[-1]
        and not model.blocks[-1]._forward_hooks
        and not teacher.blocks[-1]._forward_hooks
    )


def test_features_need_a_teacher_with_as_many_tokens(make_vit, images):
    model = make_vit()
    with pytest.raises(ShapeError, match=r"\[8, 17, 48\], that of the teacher \[8, 65, 48\]"):
        finetune(model, [images], distillation=Distillation(make_vit(patch_size=4), features=1.0))
    with pytest.raises(UnsupportedModelError):
        blockless = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
        finetune(model, [images], distillation=Distillation(blockless, features=1.0))
    with pytest.raises(InvalidValueError, match="no teacher"):
        finetune(model, [images], distillation=Distillation(features=1.0))
    assert not model.blocks[-1]._forward_hooks


def test_features_of_a_wider_teacher_are_learned_by_their_similarities(make_vit, images):
    distillation = Distillation(make_vit(embed_dim=64), share=0.0, features=100.0)
    history = finetune(make_vit(), [images], distillation=distillation, epochs=20, lr=3e-3)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]


def test_teacher_modes_and_gradients_are_left_alone(make_vit, shuffled):
    model, teacher = make_vit(), make_vit().train()
    teacher.blocks[0].eval()
    model.blocks[1].train()
    state = copy.deepcopy(teacher.state_dict())
    modes = [module.training for part in (model, teacher) for module in part.modules()]
    finetune(model, shuffled, distillation=Distillation(teacher), epochs=1)
    assert all(torch.equal(tensor, state[name]) for name, tensor in teacher.state_dict().items())
    assert [module.training for part in (model, teacher) for module in part.modules()] == modes
    assert all(
        parameter.grad is None for part in (model, teacher) for parameter in part.parameters()
    )


def test_frozen_parameters_stay(make_vit, shuffled):
    model = make_vit()
    model.patch_embed.requires_grad_(False)
    before = model.patch_embed.proj.weight.clone(), model.head.weight.clone()
    finetune(model, shuffled, epochs=1)
    assert torch.equal(model.patch_embed.proj.weight, before[0]) and not torch.equal(
        model.head.weight, before[1]
    )


def test_a_non_finite_loss_keeps_the_last_good_weights(make_vit, images):
    model = make_vit()
    good, bad = images, (images[0] * float("nan"), images[1])
    expected = make_vit()
    with pytest.raises(NonFiniteError, match="epoch 1 after 8 images.*lower lr"):
        finetune(model, [good, bad], epochs=1)
    with pytest.raises(NonFiniteError):
        finetune(expected, [good, bad], epochs=1)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True)
    )


def test_refusals(make_vit, images):
    model = make_vit()
    with pytest.raises(EmptyError, match="no batch"):
        finetune(model, [])
    with pytest.raises(InvalidValueError, match="has no length"):
        finetune(model, iter([images]))
    with pytest.raises(InvalidValueError, match="epochs is 0"):
        finetune(model, [images], epochs=0)
    with pytest.raises(InvalidValueError, match="accumulate is 0"):
        TrainingOptions(accumulate=0)
    with pytest.raises(InvalidValueError, match="weight_decay is -1"):
        TrainingOptions(weight_decay=-1)
    with pytest.raises(InvalidValueError, match="every is 0"):
        Checkpointing("run", every=0)
    with pytest.raises(InvalidValueError, match="features is -1"):
        Distillation(features=-1)
    with pytest.raises(InvalidValueError, match="lr is -1"):
        finetune(model, [images], lr=-1)
    with pytest.raises(InvalidValueError, match="share .*is 2"):
        Distillation(share=2)
    with pytest.raises(InvalidValueError, match="temperature is 0"):
        Distillation(temperature=0)
    with pytest.raises(InvalidValueError, match="every parameter of the model is frozen"):
        finetune(model.requires_grad_(False), [images])
