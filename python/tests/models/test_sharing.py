"""Models that hold a module or a tensor in several places: cuts go through all, folders keep it."""

import copy

import pytest
import timm
import torch
from small_vits import made, of_timm
from torch import nn
from torch.nn import functional as F

import agflow
from agflow.models import adapter_for, count_macs, count_params, load_expert, save_expert
from agflow.models.image_sizes import note_size
from agflow.models.sharing import modules_by_first_name, shared_names
from agflow.models.weights_file import fitting_weights, saved_tensors
from agflow.pruning.masks import masked
from agflow.pruning.pruner import prune

SIZE = (3, 16, 16)


class Places(nn.Module):
    """One encoding of positions before each of two blocks, as CoaT has it, under three names."""

    def __init__(self):
        super().__init__()
        self.stem, self.places = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.blocks = nn.ModuleList(Block(8, 12, self.places) for _ in range(2))
        self.head = nn.Linear(8, 5)

    def forward(self, images):
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Block(nn.Module):
    def __init__(self, width, hidden, places):
        super().__init__()
        self.places, self.up, self.down = places, nn.Conv2d(width, hidden, 1), None
        self.down = nn.Conv2d(hidden, width, 1)

    def forward(self, x):
        x = x + self.places(x)
        return x + self.down(F.relu(self.up(x)))


class Same(nn.Module):
    """One block under two names; the middle channels are the same ones at both."""

    def __init__(self):
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 8, 4, 4), Block(8, 12, nn.Identity())
        self.second, self.third = self.first, Block(8, 12, nn.Identity())
        self.head = nn.Linear(8, 5)

    def forward(self, images):
        x = self.third(self.second(self.first(self.stem(images))))
        return self.head(x.mean((2, 3)))


class Tied(nn.Module):
    """Two layers that are not one module read one matrix, beside branches of their own."""

    def __init__(self):
        super().__init__()
        self.stem, self.up, self.also = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 12), nn.Linear(8, 12)
        self.also.weight = self.up.weight
        self.down, self.back = nn.Linear(12, 8), nn.Linear(12, 8)
        self.back.weight = self.down.weight
        self.wide, self.narrow = nn.Linear(8, 24), nn.Linear(24, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, images):
        x = self.stem(images).flatten(2).mT
        x = x + self.down(F.relu(self.up(x)))
        x = x + self.narrow(F.relu(self.wide(x)))
        x = x + self.back(F.relu(self.also(x)))
        return self.head(x.mean(1))


class Spread(nn.Module):
    """A matrix that is a layer's, and that a function multiplies with again elsewhere."""

    def __init__(self):
        super().__init__()
        self.stem, self.up, self.down = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 12), nn.Linear(12, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, images):
        x = self.stem(images).flatten(2).mT
        x = x + self.down(F.relu(self.up(x)))
        x = x + F.linear(torch.tanh(self.up(x)), self.down.weight)
        return self.head(x.mean(1))


KINDS = {"places": Places, "same": Same, "tied": Tied, "spread": Spread}


@pytest.fixture(params=KINDS)
def model(request):
    torch.manual_seed(0)
    model = KINDS[request.param]().eval()
    note_size(model, SIZE)
    return model


def images_of(seed=0):
    return torch.randn(8, *SIZE, generator=torch.Generator().manual_seed(seed))


def halves(model):
    """Every second unit of every group of channels."""
    layers = [layer for layer in adapter_for(model).layers(model) if layer.kind != "block"]
    return [(layer, torch.arange(0, layer.units, 2)) for layer in layers]


def pruned(model, plan_of, **options):
    cuts = halves(model)
    plan = plan_of(model, {layer.name: keep_U.tolist() for layer, keep_U in cuts})
    return prune(model, plan, [(images_of(), None)], **options), cuts


def test_cuts_equal_masks_and_what_was_shared_is(model, plan_of):
    light, cuts = pruned(model, plan_of, compensate="none")
    with torch.no_grad(), masked(adapter_for(model), model, cuts):
        expected = model(images_of(1))
    with torch.no_grad():
        torch.testing.assert_close(light(images_of(1)), expected, rtol=1e-4, atol=1e-5)
    assert cuts and count_macs(light) < count_macs(model)
    assert shared_names(light) == shared_names(model)


def test_folders_keep_bits_and_sharing(model, plan_of, tmp_path):
    light, _ = pruned(model, plan_of, compensate="none")
    save_expert(light, tmp_path / "light")
    again = load_expert(tmp_path / "light", model=model)
    assert torch.equal(again(images_of()), light(images_of()))
    assert shared_names(again) == shared_names(light)
    assert count_params(again) == count_params(light)


def test_what_others_read_too_is_not_fitted(model, plan_of):
    """The repair changes no weight that something else reads; and it makes nothing worse."""
    plain, _ = pruned(model, plan_of, compensate="none")
    fitted, _ = pruned(model, plan_of)
    for names in shared_names(model):
        assert torch.equal(plain.get_parameter(names[0]), fitted.get_parameter(names[0]))
    if isinstance(model, Spread):
        assert torch.equal(plain.down.weight, fitted.down.weight)
    with torch.no_grad():
        errors = [(each(images_of()) - model(images_of())).norm() for each in (plain, fitted)]
    assert errors[1] <= errors[0] * 1.0001


def test_layers_of_their_own_are_fitted_beside_shared_ones(plan_of):
    torch.manual_seed(0)
    model = Tied().eval()
    note_size(model, SIZE)
    plain, _ = pruned(model, plan_of, compensate="none")
    fitted, _ = pruned(model, plan_of)
    assert not torch.equal(plain.narrow.weight, fitted.narrow.weight)


def test_the_groups_of_one_module_in_two_places():
    torch.manual_seed(0)
    model = Same().eval()
    note_size(model, SIZE)
    groups = {group.name: group for group in adapter_for(model).layers(model)}
    assert groups["third.up"].reader == "third.down"
    assert not any(name.startswith("second") for name in groups)
    assert "first" not in groups, "a branch that runs twice is no branch that can go"


def test_a_layer_that_is_shared_is_seen_once_under_its_first_name():
    model = Places()
    assert modules_by_first_name(model)["blocks.1.places"] == "places"
    assert shared_names(model)[0] == (
        "places.weight",
        "blocks.0.places.weight",
        "blocks.1.places.weight",
    )


def test_a_family_does_not_know_what_shares_tensors():
    model = made(lambda: of_timm(depth=3))
    assert adapter_for(model).family == "timm_vit"
    model.blocks[1] = model.blocks[0]
    note_size(model, (3, 32, 32))
    assert adapter_for(model).family == "traced"
    groups = {group.name: group for group in adapter_for(model).layers(model)}
    shared = {"blocks.0.attn.qkv", "blocks.0.mlp.fc1"}
    alone = {f"blocks.2.{name}" for name in ("attn.qkv", "attn.head_dim", "mlp.fc1")}
    assert groups.keys() == {"blocks", *shared, *alone}
    unfitted = {name for name, group in groups.items() if not group.reader}
    assert unfitted == {*shared, "blocks.2.attn.head_dim"}  # channels inside of heads never are


def test_sharing_by_hand_is_no_difference_that_a_folder_could_hold(tmp_path):
    """The library's own model has two layers there: only the user's code makes this one."""
    model = timm.create_model("test_resnet", num_classes=5).eval()
    model.layer1[0].conv2.weight = model.layer1[0].conv1.weight
    description = agflow.models.describe(model)
    assert description["origin"]["library"] == "own"
    plain = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3, 2))
    twice = nn.Sequential(plain[0], plain[1], plain[0], nn.AdaptiveAvgPool2d(1), *plain[2:])
    note_size(twice, SIZE)
    assert agflow.models.describe(twice)["origin"]["library"] == "own"


def test_files_that_hold_a_tied_weight_once_fit():
    import safetensors.torch

    model = Tied()
    whole = saved_tensors(model, {})
    assert whole.keys() == model.state_dict().keys()
    once = {name: tensor for name, tensor in whole.items() if name != "also.weight"}
    found = fitting_weights(safetensors.torch.save(once), copy.deepcopy(model), "weights")
    assert torch.equal(found["also.weight"], model.up.weight)
