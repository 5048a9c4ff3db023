"""Models that no family declares: sizes, classes, halves and folders, as any other model has."""

import gc
import inspect
import json
import sys
import weakref

import pytest
import timm
import torch
import torchvision
import transformers
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

import agflow
from agflow._utils.modes import without_inference_tensors
from agflow.errors import CorruptFileError, InvalidValueError, UnsupportedModelError
from agflow.models import (
    adapter_for,
    at_image_size,
    class_count,
    class_names,
    count_macs,
    image_size,
    load_expert,
    logits_of,
    model_name,
    only_classes,
    prefix_macs,
    preprocessing_of,
    save_expert,
    split,
)
from agflow.models.account import examined
from agflow.models.copying import copy_of
from agflow.models.families import origins
from agflow.models.image_sizes import known_size, note_size
from agflow.models.noting import sized_by
from agflow.models.slicing import cut_groups


class Net(nn.Module):
    """A small network of the user's own, with an addition and a function instead of a module."""

    def __init__(self, width=8, act=F.relu):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width))
        self.first = Block(width)
        self.second = Block(width)
        self.head, self.act = nn.Linear(width, 5), act

    def forward(self, images):
        x = self.second(self.first(self.act(self.stem(images))))
        return self.head(x.mean((2, 3)))


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up, self.norm = nn.Conv2d(width, 2 * width, 3, 1, 1), nn.BatchNorm2d(2 * width)
        self.down = nn.Conv2d(2 * width, width, 1)

    def forward(self, x):
        return F.relu(x + self.down(F.relu(self.norm(self.up(x)))))


def sized(model, size=(3, 32, 32)):
    model.input_size = size
    return model


def sequential():
    layers = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 6, 1, bias=False)
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))


def cifar_stem():
    """A published network as users change it for small images."""
    model = torchvision.models.resnet18(num_classes=5)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    model.fc = nn.Sequential(nn.Dropout(0.2), nn.Linear(512, 5))
    return model


def small_resnet():
    return torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], 5)


def hugging_face():
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=5
    )
    return transformers.ResNetForImageClassification(config)


SMALL = {
    "own": Net,
    "torch": sequential,
    "torchvision": small_resnet,
    "timm": lambda: timm.create_model("test_resnet", num_classes=5, in_chans=3),
    "transformers": hugging_face,
}


def drawn(model):
    """Draw weights and statistics that hide nothing."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(
                    torch.rand_like(tensor) + 0.5
                    if "var" in name
                    else 0.2 * torch.randn_like(tensor)
                )
    return model.eval()


@pytest.fixture(params=SMALL)
def model(request):
    return sized(drawn(SMALL[request.param]()))


def images_of(model, count=2):
    return torch.randn(count, *known_size(model), generator=torch.Generator().manual_seed(1))


def halved(model, kinds=("conv", "mlp", "stage")):
    """The model with half of the units of its groups."""
    adapter, light = examined(model), copy_of(model)
    cuts = [
        (group, torch.arange(0, group.units, 2))
        for group in adapter.layers(model)
        if group.kind in kinds and group.units > 1
    ]
    assert cuts
    cut_groups(light, cuts)
    return light


def refusal(call, kind=UnsupportedModelError):
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


# Folders


def test_dense_and_cut_models_are_saved_and_loaded_bit_for_bit(model, tmp_path):
    light, images = halved(model), images_of(model)
    for each in (model, light):
        agflow.save(each, tmp_path / "expert")
        again = agflow.load(tmp_path / "expert")
        assert torch.equal(logits_of(again(images)), logits_of(each(images)))
        assert count_macs(again) == count_macs(each) and type(again) is type(model)
        assert image_size(again) == (32, 32) and model_name(again) == model_name(each)
    assert count_macs(light) < 0.6 * count_macs(model)


def test_a_loaded_expert_is_cut_and_saved_again(model, tmp_path):
    save_expert(halved(model), tmp_path / "expert")
    lighter = halved(load_expert(tmp_path / "expert"))
    save_expert(lighter, tmp_path / "lighter")
    again, images = load_expert(tmp_path / "lighter"), images_of(model)
    assert torch.equal(logits_of(again(images)), logits_of(lighter(images)))


CHANGES = {
    "another stem and head": cifar_stem,
    "one channel": lambda: timm.create_model("test_resnet", in_chans=1, num_classes=3),
    "no classifier of its own": lambda: timm.create_model("test_resnet", num_classes=0),
    "another pooling": lambda: timm.create_model("test_resnet", global_pool="max"),
    "other activations": lambda: timm.create_model("test_efficientnet", act_layer=nn.Hardswish),
    "a layer without bias": lambda: set_module(sequential(), "7", nn.Linear(6, 5, bias=False)),
    "another dtype": lambda: sequential().bfloat16(),
    "other numbers": lambda: set_attribute(small_resnet(), "bn1", "eps", 0.1),
}


def set_module(model, name, module):
    model.set_submodule(name, module)
    return model


def set_attribute(model, name, key, value):
    setattr(model.get_submodule(name), key, value)
    return model


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_user_changed_is_in_the_folder(change, tmp_path):
    model = CHANGES[change]().eval()
    channels = next(model.parameters()).shape[1]
    note_size(model, (channels, 32, 32))
    save_expert(model, tmp_path / "expert")
    again = load_expert(tmp_path / "expert")
    images = images_of(model).to(next(model.parameters()).dtype)
    assert torch.equal(again(images), model(images))
    assert not hasattr(again, "_agflow_dense"), "its library makes it"


def test_classes_of_ones_own_come_from_the_user(tmp_path):
    model = sized(drawn(Net()))
    light, images = halved(model), images_of(model)
    save_expert(light, tmp_path / "expert")
    assert torch.equal(load_expert(tmp_path / "expert")(images), light(images)), "known here"
    origins._remembered.clear()
    text = refusal(lambda: agflow.load(tmp_path / "expert"))
    assert (
        "test_traced.Net, a class of your own" in text
        and "agflow.load(folder, model=Net(...))" in text
    )
    for given in (Net(), Net):
        again = agflow.load(tmp_path / "expert", model=given)
        assert torch.equal(again(images), light(images)) and known_size(again) == (3, 32, 32)
    save_expert(again, tmp_path / "again")
    for wrong, words in {
        sequential(): "the model given is a torch.nn",
        Net(act=torch.tanh): "gives other logits",
        "math:nobody": "has no nobody",
        7: "expected the dense torch.nn.Module",
    }.items():
        found = refusal(lambda w=wrong: agflow.load(tmp_path / "expert", w), InvalidValueError)
        assert words in found
    assert "leave model out" in refusal(
        lambda: agflow.load(agflow.data.datasets.EXAMPLE / "heavy", model=Net()), InvalidValueError
    )


def test_models_of_a_function_say_which(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    source = "".join(map(inspect.getsource, (Net, Block, sized)))
    imports = "from torch import nn\nfrom torch.nn import functional as F\n"
    made = "def make():\n    return sized(Net())\n"
    (tmp_path / "nets_of_mine.py").write_text(imports + source + made)
    model, _, name = agflow.load_model("nets_of_mine:make")
    assert name == "Net"
    light = halved(drawn(model))
    save_expert(light, tmp_path / "expert", preprocessing=preprocessing_of(model))
    origins._remembered.clear()
    assert 'model="nets_of_mine:make"' in refusal(lambda: agflow.load(tmp_path / "expert"))
    assert 'model="nets_of_mine:make"' in (tmp_path / "expert" / "README.md").read_text()
    found, _, name = agflow.load_model("nets_of_mine:make", weights=tmp_path / "expert")
    again = agflow.load(tmp_path / "expert", model="nets_of_mine:make")
    for each in (found, again):
        assert torch.equal(each(images_of(model)), light(images_of(model)))
    assert name == "expert"
    for library in ("torchvision:resnet18", "example"):
        call = lambda spec=library: agflow.load_model(spec, weights=tmp_path / "expert")
        assert "expert" in refusal(call, InvalidValueError)
    origins._remembered.clear()
    agflow.load_model("nets_of_mine:make")
    agflow.load(tmp_path / "expert")  # of a function that this process has called


def test_cascades_of_classes_of_ones_own(tmp_path):
    heavy = sized(drawn(Net()))
    light, images = halved(heavy), images_of(heavy, 8)
    labels = heavy(images).argmax(1)
    router = agflow.calibrate_router(
        agflow.predict(light, heavy, [(images, labels)] * 13), escalation=0.9
    )
    agflow.save(agflow.Cascade(light, heavy, router), tmp_path / "cascade")
    origins._remembered.clear()
    assert "class of your own" in refusal(lambda: agflow.load(tmp_path / "cascade"))
    for given in (Net, {"light": Net(), "heavy": Net}):
        loaded = agflow.load(tmp_path / "cascade", model=given)
        assert torch.equal(loaded.light(images), light(images))


PUBLISHED = [
    *("resnet18", "resnet50", "resnext50_32x4d", "vgg11_bn", "densenet121", "mobilenet_v2"),
    *("mobilenet_v3_small", "efficientnet_b0", "inception_v3", "googlenet", "mnasnet0_5"),
    *("shufflenet_v2_x0_5", "squeezenet1_1", "regnet_y_400mf", "regnet_x_400mf"),
    *("timm:resnet18", "timm:mobilenetv3_small_050", "timm:efficientnet_b0", "timm:regnety_002"),
    *("timm:densenet121", "timm:convnext_atto", "timm:tf_efficientnet_lite0"),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_keep_their_bits_in_a_folder(name, tmp_path):
    options = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    library, _, own = name.rpartition(":")
    make = timm.create_model if library else torchvision.models.get_model
    model = sized(drawn(make(own, **options)), (3, 96, 96))
    light, images = halved(model), images_of(model)
    save_expert(light, tmp_path / "expert")
    again = load_expert(tmp_path / "expert")
    with torch.no_grad():
        assert torch.equal(again(images), light(images))
    assert model_name(again) == own and count_macs(again) == counted(light) < count_macs(model)


def damaged(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config["architecture"])
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    "change",
    [
        lambda shape: shape["origin"].update(library="os"),
        lambda shape: shape["origin"].update(name="no_such_model"),
        lambda shape: shape.pop("changes"),
        lambda shape: shape["changes"]["shapes"].update({"fc.weight": [3, 3]}),
        lambda shape: shape["changes"]["attributes"].update({"fc": {"forward": 1}}),
        lambda shape: shape["changes"]["modules"].update({"fc": {"class": "os.system"}}),
        lambda shape: shape["changes"]["modules"].update(
            {"fc": {"class": "torch.nn.modules.module.OrderedDict", "attributes": {}}}
        ),
        lambda shape: shape["changes"]["gone"].append("nowhere"),
    ],
)
def test_damaged_descriptions_run_nothing(change, tmp_path):
    save_expert(sized(small_resnet().eval()), tmp_path / "expert")
    damaged(tmp_path / "expert", change)
    assert "config.json" in refusal(lambda: load_expert(tmp_path / "expert"), CorruptFileError)


# What is refused


def hooked(model):
    model.first.register_forward_hook(lambda _, inputs, output: 2 * output)


def overridden(model):
    inner = model.first.forward
    model.first.forward = lambda x: 2 * inner(x)


def shared(model):
    model.second.down.weight = nn.Parameter(model.first.down.weight.data)


@pytest.mark.parametrize(
    "change, words",
    [
        (hooked, "first has a forward hook"),
        (overridden, "first has a forward of its own"),
        (shared, "first.down.weight and second.down.weight share their memory"),
        (lambda m: nn.utils.spectral_norm(m.first.up), "spectral_norm"),
        (lambda m: nn.utils.parametrizations.weight_norm(m.head), "parametrization"),
        (lambda m: m.first.half(), "call model.float"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_would_be_lost_is_refused_by_name(change, words):
    model = sized(Net())
    change(model)
    assert words in refusal(lambda: examined(model))


def test_hooks_that_only_look_stay():
    model, seen = sized(drawn(Net())), []
    model.first.register_forward_hook(lambda *_: seen.append(1))
    assert examined(model).family == "traced" and seen


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: nn.DataParallel(sequential()), "around a Sequential: pass model.module"),
        (
            lambda: torch.optim.swa_utils.AveragedModel(Net()),
            "around a Net: pass model.module",
        ),
        (lambda: torch.compile(Net()), r"around a Net: pass model._orig_mod"),
        (
            lambda: torch.export.export(sequential(), (torch.zeros(2, 3, 8, 8),)).module(),
            "exported or scripted",
        ),
        (lambda: torch.jit.script(nn.ReLU()), "exported or scripted"),
        (lambda: nn.ReLU(), "no parameters"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_adapter_is_of_the_model_and_not_of_its_wrapper(make, words):
    assert words in refusal(lambda: adapter_for(make()))


def test_a_tensor_that_no_state_dict_has_is_found_when_saving(tmp_path):
    """The mean that a class computes when it is made is there again; one that is set is not."""

    class Normalised(Net):
        def __init__(self):
            super().__init__()
            self.mean = torch.tensor([0.1, 0.2, 0.3])[:, None, None]

        def forward(self, images):
            return super().forward(images - self.mean)

    model = sized(drawn(Normalised()))
    save_expert(halved(model), tmp_path / "expert")
    origins._remembered.clear()
    again = agflow.load(tmp_path / "expert", model=Normalised)
    assert torch.equal(again.mean, model.mean)
    model = sized(drawn(Normalised()))
    model.mean = 2 * model.mean
    save_expert(model, tmp_path / "expert")
    origins._remembered.clear()
    assert "other logits" in refusal(
        lambda: agflow.load(tmp_path / "expert", model=Normalised), InvalidValueError
    )


def test_a_cut_buffer_that_no_state_dict_has_is_in_the_folder(tmp_path):
    class Shifted(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer("shift", torch.arange(8.0)[:, None, None], persistent=False)

        def forward(self, images):
            x = self.first(self.act(self.stem(images)) + self.shift)
            return self.head(self.second(x).mean((2, 3)))

    light, images = halved(sized(drawn(Shifted()))), torch.randn(2, 3, 32, 32)
    assert len(light.shift) < 8
    save_expert(light, tmp_path / "expert")
    origins._remembered.clear()
    again = agflow.load(tmp_path / "expert", model=Shifted)
    assert torch.equal(again.shift, light.shift)
    assert torch.equal(again(images), light(images))


def test_of_maps_a_few_numbers_are_noted(tmp_path):
    class Maps(Net):
        def forward(self, images):
            return self.second(self.first(self.act(self.stem(images))))

    model = sized(drawn(Maps()))
    save_expert(model, tmp_path / "expert")
    config = json.loads((tmp_path / "expert" / "config.json").read_text())
    first = model.eval()(torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    answers = config["architecture"]["answers"]
    assert answers == pytest.approx(first.flatten()[:16].tolist())


# Sizes


def test_sizes_come_from_the_library_the_user_or_the_images():
    assert known_size(torchvision.models.inception_v3(init_weights=False)) == (3, 299, 299)
    assert known_size(torchvision.models.resnet18()) == (3, 224, 224)
    assert known_size(timm.create_model("test_resnet", in_chans=1))[0] == 1
    model = Net()
    text = refusal(lambda: agflow.count_macs(model))
    assert "size of the images of Net is not known" in text and "model.input_size" in text
    images = torch.randn(4, 3, 20, 28)
    sized_by(model, [(images, torch.arange(4))])
    assert known_size(model) == known_size(copy_of(model)) == (3, 20, 28)
    assert count_macs(model) == counted(model)


class Unshuffled(nn.Module):
    """Moves blocks of pixels into channels before its first convolution."""

    def __init__(self, channels):
        super().__init__()
        self.head, self.body = nn.Linear(8, 5), nn.Conv2d(4 * channels, 8, 3)

    def forward(self, images):
        return self.head(self.body(F.pixel_unshuffle(images, 2)).mean((2, 3)))


class Unfolded(nn.Module):
    """Flattens patches for a linear layer: no convolution at all."""

    def __init__(self, channels):
        super().__init__()
        self.embed, self.head = nn.Linear(16 * channels, 8), nn.Linear(8, 5)

    def forward(self, images):
        return self.head(self.embed(F.unfold(images, 4, stride=4).mT).mean(1))


@pytest.mark.parametrize("kind", [Unshuffled, Unfolded])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_are_those_of_the_images_whatever_the_stem_makes_of_them(kind, channels):
    model = kind(channels)
    model.pretrained_cfg = {"input_size": (3, 16, 24)}
    model.train()
    assert known_size(model) == (channels, 16, 24) and model.training
    model.eval()(torch.zeros(1, *known_size(model)))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_model_that_takes_no_such_images_has_the_published_channels():
    model = nn.Sequential(nn.Flatten(), nn.Linear(7, 5))
    model.pretrained_cfg = {"input_size": (3, 16, 16)}
    assert known_size(model) == (3, 16, 16)


def test_published_sizes_of_stems_that_are_no_convolution_of_the_images():
    kinds = {"embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 5}
    for channels in (1, 3):
        model = timm.create_model("naflexvit_base_patch16_gap", in_chans=channels, **kinds)
        assert known_size(model) == (channels, *model.pretrained_cfg["input_size"][1:])
    size = {"img_size": 64, "depths": (1, 1, 1, 1), "embed_dim": 16, "num_heads": (1, 1, 1, 1)}
    assert known_size(timm.create_model("swin_tiny_patch4_window7_224", **size)) == (3, 64, 64)


def test_a_configs_channels_and_size_are_those_of_its_images():
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    sizes = {"num_attention_heads": 2, "image_size": 24, "patch_size": 8, "num_channels": 1}
    config = transformers.CLIPConfig(vision_config={**vision, **sizes}, text_config=vision)
    assert known_size(transformers.CLIPForImageClassification(config)) == (1, 24, 24)


def counted(model):
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.eval()(torch.zeros(1, *known_size(model)))
    return counter.get_total_flops() // 2


def test_macs_are_those_of_torchs_counter_and_of_the_costs(model):
    for each in (model, halved(model)):
        assert count_macs(each) == counted(each) == adapter_for(each)._traced(each).costs.macs()


def test_looking_at_a_loader_first_changes_nothing_that_it_gives():
    data = TensorDataset(torch.randn(16, 3, 20, 20), torch.arange(16) % 5)
    orders, model = [], Net()
    for look in (False, True):
        torch.manual_seed(0)
        loader = DataLoader(data, batch_size=4, shuffle=True)
        orders.append([y.tolist() for _, y in (sized_by(model, loader) if look else loader)])
    assert orders[0] == orders[1]
    once = sized_by(Net(), iter([(torch.zeros(2, 3, 20, 20), torch.arange(2))] * 3))
    assert len(list(once)) == 3, "what was read first is given, too"


def test_another_image_size_is_traced_again(model):
    small = at_image_size(model, (20, 28))
    assert image_size(small) == (20, 28) and count_macs(small) < count_macs(model)
    images = torch.randn(2, 3, 50, 40)
    assert logits_of(small(images)).isfinite().all() and image_size(model) == (32, 32)
    fixed = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.Flatten(), nn.Linear(4 * 64, 3))
    text = refusal(lambda: at_image_size(sized(fixed, (3, 8, 8)), 12))
    assert "does not run on images of 12x12" in text
    for size in (0, (1, 1)):
        refusal(lambda s=size: at_image_size(sized(timm.create_model("test_vit")), s), Exception)


# Classes


def test_only_some_classes(model, tmp_path):
    fewer, images = only_classes(model, [3, 1]), images_of(model)
    logits = logits_of(model(images))
    torch.testing.assert_close(logits_of(fewer(images)), logits[:, [3, 1]], atol=1e-5, rtol=1e-4)
    assert class_count(fewer) == 2 and class_count(model) == 5
    save_expert(fewer, tmp_path / "expert")
    assert class_count(load_expert(tmp_path / "expert")) == 2


def test_logits_of_several_layers_cannot_be_cut():
    class Two(Net):
        def forward(self, images):
            return super().forward(images) + self.other(images.mean((2, 3)))

    model = sized(drawn(Two()))
    model.other = nn.Linear(3, 5)
    assert "one last torch.nn.Linear or Conv2d" in refusal(lambda: only_classes(model, [0, 1]))


def test_names_of_classes():
    assert class_names(timm.create_model("resnet18"))[0] == "n01440764"
    assert class_names(timm.create_model("resnet18", num_classes=5)) is None
    assert class_names(torchvision.models.resnet18()) is None
    assert preprocessing_of(timm.create_model("resnet18")).input_size == (224, 224)
    found = preprocessing_of(torchvision.models.resnet18())
    assert found.interpolation == "bilinear" and found.crop_pct == 224 / 256


# Halves


def test_halves_share_parameters_and_give_the_same_bits(model):
    images, found = images_of(model, 3), []
    with torch.no_grad():
        expected = logits_of(model(images))
        for blocks in range(100):
            try:
                prefix, rest = split(model, blocks)
            except InvalidValueError as error:
                assert f"expected 0 to {blocks - 1}" in str(error)
                break
            features = prefix(images)
            kept = features.clone()
            assert torch.equal(rest(features), expected) and torch.equal(features, kept)
            found.append(prefix_macs(model, blocks))
    assert len(found) > 2 and found == sorted(found) and found[-1] <= count_macs(model)
    mine = {id(parameter) for parameter in model.parameters()}
    assert {id(each) for half in (prefix, rest) for each in half.parameters()} == mine


def test_the_prefix_of_a_resized_model_resizes():
    model = at_image_size(sized(drawn(Net())), 16)
    prefix, rest = split(model, 1)
    images = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        assert torch.equal(rest(prefix(images)), model(images))


def test_experts_share_their_first_blocks():
    heavy = sized(drawn(Net()))
    light, groups = copy_of(heavy), examined(heavy).layers(heavy)
    last = [group for group in groups if group.name.startswith("second") and group.units > 1]
    cut_groups(light, [(group, torch.arange(group.units // 2)) for group in last])
    cascade = agflow.Cascade(light, heavy, 0.5, shared_blocks=1)
    images = images_of(heavy, 4)
    torch.testing.assert_close(cascade.heavy(images), heavy(images), rtol=0, atol=0)
    assert cascade(images).shape == (4, 5)
    with pytest.raises(InvalidValueError, match="do not share"):
        agflow.Cascade(light, heavy, 0.5, shared_blocks=2)


def test_nothing_keeps_a_model_alive():
    model = sized(drawn(Net()))
    halved(model), split(model, 1), count_macs(model)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_what_a_constructor_fills_later_has_values():
    origin = {"library": "timm", "name": "vit_tiny_patch16_dinov3_qkvb"}
    random = torch.get_rng_state()
    dense = origins.give_constants(origins.dense_of(origin), origin)
    assert torch.equal(torch.get_rng_state(), random)
    periods = timm.create_model(origin["name"]).rope.periods
    assert torch.equal(dense.rope.periods, periods) and dense.patch_embed.proj.weight.is_meta


def test_what_cannot_be_pruned_is_named_with_the_reason():
    linear = sized(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), (3, 4, 4))
    assert "1: 5 channels kept, the classes" in refusal(lambda: adapter_for(linear).layers(linear))

    class Branching(Net):
        def forward(self, images):
            return super().forward(-images if images.mean() > 0 else images)

    model = sized(drawn(Branching()))
    assert "branches on values" in refusal(lambda: adapter_for(model).layers(model))
    assert count_macs(model) == counted(model), "what needs no graph works"


def test_images_that_do_not_fit_are_said():
    text = refusal(lambda: agflow.calibrate(Net(), [(torch.zeros(2, 1, 8, 8), torch.arange(2))]))
    assert "does not run on images of [1, 8, 8]" in text and "channels and the size" in text


@pytest.mark.parametrize(
    "error, cure",
    [
        (RuntimeError("Sizes of tensors must match"), "its layers fit one size, or need larger"),
        (AssertionError(), "(AssertionError): its layers fit one size"),
        (RuntimeError("Expected gradient function"), "model.eval()(torch.zeros(1, 3, 40, 40)) sh"),
    ],
)
def test_a_size_is_blamed_for_what_sizes_do(error, cure):
    class Failing(Net):
        def forward(self, images):
            if images.shape[-1] > 32:
                raise error
            return super().forward(images)

    assert cure in refusal(lambda: at_image_size(sized(Failing()), 40))


def test_models_of_inference_mode_are_measured():
    with torch.inference_mode():
        model = Net()
    copied = without_inference_tensors(model)
    assert not any(tensor.is_inference() for tensor in copied.state_dict().values())
    assert adapter_for(copied).layers(sized(copied))


def test_hooks_that_collect_hidden_states_are_in_copies_and_loaded_models(tmp_path):
    """Backbones of transformers put out what hooks collect, which they register when they run."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.Dinov2Config(**sizes, image_size=32, patch_size=8, out_indices=[1, 2])
    model = transformers.Dinov2Backbone(config).eval()
    images = torch.randn(2, 3, 32, 32)
    note_size(model, (3, 32, 32))
    with torch.no_grad():
        expected = model(images).feature_maps
        assert examined(model).family == "traced"
        agflow.save(model, tmp_path / "expert")
        found = agflow.load(tmp_path / "expert")(images).feature_maps
    assert len(found) == 2 and all(map(torch.equal, found, expected))
