"""Fine-tuning of convolutional networks: norms over the batch, maps as features, frozen stages."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from agflow._utils.modes import evaluating
from agflow.errors import NonFiniteError, ShapeError, UnsupportedModelError
from agflow.models.last_map import last_map, pixels_a_position, tokens_of
from agflow.training.features import feature_error
from agflow.training.finetuning import finetune
from agflow.training.freezing import training_mode
from agflow.training.options import Checkpointing, TrainingOptions
from agflow.training.running_statistics import RunningStatistics


def normed(*more, classes=10):
    """A network whose last norm sees one value a channel of an image."""
    torch.manual_seed(0)
    features = nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(
        *features, nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6), *more, nn.Flatten(), nn.Linear(6, classes)
    ).eval()


def statistics(model):
    return [tensor.clone() for tensor in RunningStatistics(model).tensors]


def same(a, b):
    return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


def test_a_last_batch_of_one_image_takes_the_running_statistics(images):
    """Torch itself refuses one value a channel; the other images move the statistics alone."""
    model = normed()
    loader = DataLoader(TensorDataset(images[0][:7], images[1][:7]), batch_size=3)
    assert [len(labels) for _, labels in loader] == [3, 3, 1]
    with pytest.raises(ValueError, match="more than 1 value"):
        normed().train()(images[0][:1])
    history = finetune(model, loader, epochs=1)
    assert history[0]["loss"] > 0
    assert model[1].num_batches_tracked == 2


def test_one_image_trains_and_moves_no_statistics(images):
    model = normed()
    before, weight = statistics(model), model[0].weight.clone()
    finetune(model, [(images[0][:1], images[1][:1])] * 2, epochs=1, lr=1e-2)
    assert all(map(torch.equal, statistics(model), before))
    assert not torch.equal(model[0].weight, weight)


def test_norms_without_statistics_and_in_evaluation_mode_stay_as_they_are(images):
    model = normed(nn.GroupNorm(2, 6), nn.InstanceNorm2d(6))
    of_batch = RunningStatistics(model)
    assert len(of_batch.tensors) == 4
    model.train()
    model[1].eval()
    with of_batch.for_batch_of(1):
        assert not model[5].training and model[6].training
    assert model[5].training and not model[1].training


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_broken_run_ends_with_the_same_bits_running_statistics_included(images, tmp_path, steps):
    loader = lambda: DataLoader(TensorDataset(*images), batch_size=3, shuffle=True)
    run = {"epochs": 2, "lr": 1e-2, "held_out": [(images[0] + 1, images[1])]}
    whole, broken, again = normed(), normed(), normed()
    history = finetune(whole, loader(), **run)
    left = [steps]

    def breaking(module, inputs):
        left[0] -= module.training
        if left[0] < 0:
            raise KeyboardInterrupt

    hook = broken.register_forward_pre_hook(breaking)
    run["checkpointing"] = Checkpointing(tmp_path / "run", every=1)
    with pytest.raises(KeyboardInterrupt):
        finetune(broken, loader(), **run)
    hook.remove()
    assert finetune(again, loader(), **run) == history and same(whole, again)


def test_a_non_finite_batch_leaves_the_statistics_of_the_last_good_step(images):
    model, expected = normed(), normed()
    bad = (images[0] * float("nan"), images[1])
    with pytest.raises(NonFiniteError, match="epoch 1 after 8 images"):
        finetune(model, [images, bad], epochs=1)
    with pytest.raises(NonFiniteError):
        finetune(expected, [images, (images[0][:1] * float("nan"), images[1][:1])], epochs=1)
    named = [name for name in model.state_dict() if "num_batches" not in name]
    for name in named:
        tensor = model.state_dict()[name]
        assert tensor.isfinite().all() and torch.equal(tensor, expected.state_dict()[name]), name
    assert not torch.equal(model[1].running_mean, normed()[1].running_mean)


def test_held_out_images_bring_back_the_statistics_of_the_best_epoch(images):
    """Labels that mislead: the model before the training is best, with the statistics it had."""
    model = normed()
    with torch.no_grad():
        right = model(images[0]).argmax(1)
    history = finetune(
        model, [(images[0], (right + 1) % 10)], held_out=[(images[0] * 1.0, right)], lr=0.1
    )
    assert history.best_epoch == 0 and same(model, normed())


def test_frozen_blocks_keep_norms_that_have_no_parameters(monkeypatch):
    """A norm without weights is no part of any frozen parameter, but its statistics would move."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 2, 3))
    prefix = nn.Sequential(*model[:2])
    monkeypatch.setattr("agflow.training.freezing.split", lambda model, blocks: (prefix, None))
    with training_mode(model, None, frozen_blocks=1):
        assert not model[1].training and not model[0].weight.requires_grad
        assert model[2].training and model[2].weight.requires_grad
    assert model[0].weight.requires_grad


def test_positions_of_maps_are_tokens():
    map_BCHW = torch.arange(2.0 * 3 * 4 * 4).view(2, 3, 4, 4)
    tokens_BTD = tokens_of(map_BCHW)
    assert tokens_BTD.shape == (2, 16, 3)
    assert torch.equal(tokens_BTD[1, 5], map_BCHW[1, :, 1, 1])
    assert torch.equal(tokens_of(map_BCHW.permute(0, 2, 3, 1)), tokens_BTD)
    assert torch.equal(tokens_of(tokens_BTD), tokens_BTD)
    assert tokens_of((map_BCHW, None)).shape == tokens_BTD.shape
    assert tokens_of(torch.zeros(2, 5, 3, 4)).shape == (2, 12, 5)  # no square: channels first


def test_narrower_features_are_compared_by_their_similarities():
    """Rotations and scales of the features change nothing; fewer channels of them change little."""
    generator = torch.Generator().manual_seed(0)
    teacher_BTE = torch.randn(4, 9, 16, generator=generator, dtype=torch.float64)
    error = lambda features: feature_error(features, teacher_BTE).item()
    other_BTD = torch.randn(4, 9, 8, generator=generator, dtype=torch.float64)
    assert 0 < error(teacher_BTE[..., :12]) < error(teacher_BTE[..., :8]) < error(other_BTD) < 1
    assert error(teacher_BTE) == 0 and error(2 * teacher_BTE) == pytest.approx(0, abs=1e-8)
    assert error(torch.zeros(4, 9, 8, dtype=torch.float64)) == 1
    with pytest.raises(ShapeError, match=r"\[4, 8, 16\].*\[4, 9, 16\], expected as many tokens"):
        error(teacher_BTE[:, 1:])


def test_the_error_of_narrower_features_has_finite_gradients():
    features_BTD = torch.randn(2, 4, 3, requires_grad=True)
    feature_error(features_BTD, torch.randn(2, 4, 5)).backward()
    assert features_BTD.grad.isfinite().all() and features_BTD.grad.any()


def torchvision_resnet():
    from torchvision.models import resnet18

    return resnet18(num_classes=10), "layer4"


def torchvision_vgg():
    from torchvision.models import vgg11

    return vgg11(num_classes=10), "avgpool"


def timm_efficientnet():
    import timm

    return timm.create_model("test_efficientnet", num_classes=10), "bn2"


@pytest.mark.parametrize(
    "make, pixels", [(torchvision_resnet, 32), (torchvision_vgg, 9), (timm_efficientnet, 32)]
)
def test_the_last_map_stands_before_the_pooling(make, pixels):
    model, name = make()
    model.train()
    found = last_map(model, (3, 64, 64))
    assert found is model.get_submodule(name)
    assert pixels_a_position(model, (3, 64, 64)) == pixels
    assert model.training and not found._forward_hooks
    with pytest.raises(UnsupportedModelError, match="leave features out"):
        last_map(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), (3, 2, 2))
    with evaluating(model):
        assert not model.training


def test_accumulated_batches_move_the_statistics_batch_by_batch(images):
    model = normed()
    pieces = [(images[0][:5], images[1][:5]), (images[0][5:], images[1][5:])]
    finetune(model, pieces, epochs=1, options=TrainingOptions(accumulate=2))
    assert model[1].num_batches_tracked == 2
