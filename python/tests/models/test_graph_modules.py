"""Models that torch.fx traced: pruned, copied, saved and loaded as other modules are."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.models.feature_extraction import create_feature_extractor

from agflow.models import adapter_for, count_macs, load_expert, save_expert
from agflow.models.copying import copy_of
from agflow.models.image_sizes import known_size, note_size
from agflow.models.outputs import whole_output
from agflow.pruning.masks import masked
from agflow.pruning.pruner import prune

SIZE = (3, 32, 32)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16)
        self.up, self.down = nn.Conv2d(16, 24, 1), nn.Conv2d(24, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, images):
        x = F.relu(self.norm(self.stem(images)))
        x = x + self.down(F.gelu(self.up(x)))
        return self.head(x.mean((2, 3)))


class Fixed(Net):
    """Its widths are numbers of the graph, which no attribute holds."""

    def forward(self, images):
        x = F.relu(self.norm(self.stem(images))).reshape(-1, 16, 16, 16)
        x = x + self.down(F.gelu(self.up(x)).reshape(-1, 24, 256).reshape(-1, 24, 16, 16))
        return self.head(x.mean((2, 3)))


def traced():
    return torch.fx.symbolic_trace(Net())


def extractor():
    resnet = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], 5)
    return create_feature_extractor(resnet, {"layer2": "map"})


def inside():
    return nn.Sequential(nn.Identity(), traced())


KINDS = {"traced": traced, "extractor": extractor, "inside": inside}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def made(kind):
    torch.manual_seed(0)
    model = kind().eval()
    note_size(model, SIZE)
    return model


def test_cuts_equal_masks_and_folders_keep_bits(kind, plan_of, random_keep, tmp_path):
    model, images = made(kind), torch.randn(4, *SIZE)
    layers = {layer.name: layer for layer in adapter_for(model).layers(model)}
    kept = random_keep(model, 1, ("conv", "stage"))
    light = prune(model, plan_of(model, kept), [(images, None)])
    plain = prune(model, plan_of(model, kept), compensate="none")
    cuts = [(layers[name], torch.as_tensor(keep_U)) for name, keep_U in kept.items()]
    with torch.no_grad(), masked(adapter_for(model), model, cuts):
        expected = whole_output(model(images))
    with torch.no_grad():
        torch.testing.assert_close(whole_output(plain(images)), expected, rtol=1e-4, atol=1e-5)
    assert count_macs(light) < count_macs(model)
    save_expert(light, tmp_path / "light")
    again = load_expert(tmp_path / "light", model=kind())
    assert torch.equal(whole_output(again(images)), whole_output(light(images)))


def test_copies_keep_the_class_and_what_was_set(kind):
    model = made(kind)
    model.names = ["a", "b"]
    copied = copy_of(model)
    assert type(copied) is type(model) and copied.names == ["a", "b"]
    assert known_size(copied) == SIZE and copied.names is not model.names
    images = torch.randn(2, *SIZE)
    before = whole_output(model(images))
    for parameter in copied.parameters():
        parameter.data.zero_()
    assert torch.equal(whole_output(model(images)), before)


def test_numbers_of_the_graph_keep_their_channels_in_silence(capsys):
    model = made(lambda: torch.fx.symbolic_trace(Fixed()))
    kept = {one.name for one in adapter_for(model).kept(model)}
    assert {"up", "stem"} <= kept
    assert capsys.readouterr().err == "", "torch.fx prints the code in which a proof stopped"
