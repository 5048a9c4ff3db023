"""A cascade of any two models: what is called, what it costs, what torch does to modules."""

import copy
import functools
import pickle
import warnings

import numpy as np
import onnxruntime
import pytest
import timm
import torch
import torchvision
import transformers
from torch import nn

import agflow
from agflow.cascade import CascadeCosts
from agflow.errors import InvalidValueError, ShapeError, UnsupportedModelError
from agflow.models import as_module, count_macs, model_macs

IMAGES, CLASSES = 8, 5


def resnet():
    torch.manual_seed(0)
    return torchvision.models.ResNet(
        torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=CLASSES
    )


def timm_vit():
    torch.manual_seed(1)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1, num_classes=CLASSES
    )


def torchvision_vit():
    torch.manual_seed(2)
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=CLASSES)


def hugging_face(kind="ViT"):
    torch.manual_seed(3)
    if kind == "ResNet":
        config = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=CLASSES
        )
        return transformers.ResNetForImageClassification(config)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}
    config = transformers.ViTConfig(
        image_size=32, patch_size=8, intermediate_size=64, num_labels=CLASSES, **sizes
    )
    return transformers.ViTForImageClassification(config)


def exported():
    dynamic, images = ({0: torch.export.Dim("images")},), torch.zeros(2, 3, 32, 32)
    return torch.export.export(resnet().eval(), (images,), dynamic_shapes=dynamic)


def scripted(after=lambda script: script):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch would rather have us export
        return after(torch.jit.script(resnet().eval()))


class Returning(nn.Module):
    """A ResNet that gives its logits in another form."""

    def __init__(self, form):
        super().__init__()
        self.model, self.form = resnet(), form

    def forward(self, images):
        return self.form(self.model(images))


MODELS = {
    "a ResNet": resnet,
    "a ViT of timm": timm_vit,
    "a ViT of torchvision": torchvision_vit,
    "a ViT of transformers": hugging_face,
    "a ResNet of transformers": lambda: hugging_face("ResNet"),
    "a normalisation before": lambda: nn.Sequential(nn.BatchNorm2d(3, affine=False), resnet()),
    "a function": lambda: lambda images, model=resnet().eval(): model(images),
    "a partial": lambda: functools.partial(lambda model, images: model(images), resnet().eval()),
    "a program": exported,
    "its module": lambda: exported().module(),
    "its module inside": lambda: nn.Sequential(nn.Identity(), exported().module()),
    "a script": scripted,
    "a frozen script": lambda: scripted(torch.jit.freeze),
    "a compiled one": lambda: torch.compile(timm_vit(), backend="eager"),
    "in half precision": lambda: resnet().half(),
    "in double precision": lambda: resnet().double(),
    "behind DataParallel": lambda: nn.DataParallel(resnet()),
    "a tuple of one": lambda: Returning(lambda logits: (logits,)),
    "a dictionary": lambda: Returning(lambda logits: {"logits": logits, "hidden": None}),
    "an array": lambda: Returning(lambda logits: logits.numpy()),
}


@pytest.fixture(scope="module")
def x():
    return torch.randn(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def batches(x):
    return [{"pixel_values": x, "labels": torch.arange(IMAGES) % CLASSES}]


@torch.no_grad()
def plain(model, x):
    """What the model gives in evaluation mode, by itself."""
    model = as_module(model).eval()
    weight = next(model.parameters(), x)
    output = model(x.to(weight.dtype))
    output = getattr(output, "logits", output)
    output = output.get("logits") if isinstance(output, dict) else output
    return torch.as_tensor(output[0] if isinstance(output, tuple) else output)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("role", ["light", pytest.param("heavy", marks=pytest.mark.slow)])
def test_either_expert_may_be(name, role, x, batches):
    model, other = MODELS[name](), timm_vit()
    light, heavy = (model, other) if role == "light" else (other, model)
    all_escalate, none_does = (agflow.Cascade(light, heavy, at) for at in (1.1, 0.0))
    for cascade, expert in ((all_escalate, heavy), (none_does, light)):
        cascade.train()  # which changes no answer
        torch.testing.assert_close(
            cascade(x).float(), plain(expert, x).float(), rtol=1e-3, atol=1e-3
        )
        assert cascade.training and cascade.last_call.charged == cascade.ledger.charged
    macs = {"light": all_escalate.costs.light, "heavy": all_escalate.costs.heavy}
    assert macs[role] == model_macs(as_module(model), x) and set(macs.values()) != {0}
    predictions = agflow.predict(light, heavy, batches)
    assert predictions.costs == all_escalate.costs
    assert agflow.evaluate(model, batches).images == IMAGES
    twin = copy.deepcopy(none_does)
    torch.testing.assert_close(twin(x), none_does(x), rtol=0, atol=0)


@pytest.mark.parametrize("make", [timm_vit, torchvision_vit, hugging_face])
def test_the_counter_of_torch_agrees_with_the_adapters(make, x):
    model = make()
    assert model_macs(nn.Sequential(nn.Identity(), model), x) == count_macs(model)
    assert model_macs(torch.compile(model), x) == count_macs(model)


def test_what_cannot_be_counted_is_refused_and_can_be_given(x, batches):
    class Trilinear(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Bilinear(3, 3, CLASSES)

        def forward(self, images):
            return self.head(images.mean((2, 3)), images.amax((2, 3)))

    cases = [
        (Trilinear(), "trilinear"),
        (lambda images: images.numpy().mean((2, 3)) @ np.eye(3, CLASSES, dtype="f4"), "no product"),
    ]
    for light, why in cases:
        cascade = agflow.Cascade(light, resnet(), 0.5)
        cascade(x)
        assert "not known yet" in repr(cascade) and cascade.last_call.images == IMAGES
        with pytest.raises(UnsupportedModelError, match=f"{why}.*give the costs of both"):
            cascade.ledger  # noqa: B018 (it counts)
        with pytest.raises(UnsupportedModelError, match="cannot be counted"):
            agflow.predict(light, resnet(), batches)
        given = agflow.predict(light, resnet(), batches, costs=(0.25, 1.0))
        assert given.costs == CascadeCosts(0.25, 1.0, unit="x")


def test_costs_are_given_or_measured(x, batches):
    light, heavy = resnet(), timm_vit()
    euros = CascadeCosts(1, 4, unit="EUR")
    for costs, expected in (((0.25, 1), CascadeCosts(0.25, 1.0, unit="x")), (euros, euros)):
        cascade = agflow.Cascade(light, heavy, 0.0, costs=costs)
        cascade(x)
        assert cascade.costs == expected and cascade.ledger.charged == 0.25
    measured = agflow.Cascade(light, heavy, 0.0, costs="measured")
    assert "not known yet" in repr(measured) and str(measured.ledger) == "no image yet"
    with pytest.raises(InvalidValueError, match="not known before the first call"):
        measured.costs  # noqa: B018 (it times)
    measured(x)
    assert measured.costs.unit == "ms" and measured.ledger.light_cost > 0
    predictions = agflow.predict(light, heavy, batches, costs="measured", second_view=True)
    assert predictions.costs.unit == "ms"
    assert predictions.costs.second_view == predictions.costs.light
    for costs in ("measurd", (1, 2, 3), (0, 1), 7):
        with pytest.raises(InvalidValueError, match="costs"):
            agflow.Cascade(light, heavy, 0.5, costs=costs)
    with pytest.raises(InvalidValueError, match="another one gives the second view"):
        agflow.predict(light, heavy, batches, costs=(1, 4), second_view=timm_vit())


def calibrated(light, heavy, x, **how):
    with torch.no_grad():
        labels = heavy.eval()(x).argmax(1)
    predictions = agflow.predict(light, heavy, [(x, labels)] * 13, **how)
    return agflow.calibrate_router(predictions, escalation=0.9)


def test_a_router_of_given_costs_brings_them_and_a_folder_keeps_them(x, tmp_path):
    light, heavy = timm_vit(), timm_vit()
    euros = CascadeCosts(1, 4, unit="EUR")
    router = calibrated(light, heavy, x, costs=euros)
    assert agflow.Cascade(light, heavy, router).costs == euros
    agflow.save(agflow.Cascade(light, heavy, router), tmp_path / "cascade")
    assert agflow.load(tmp_path / "cascade").costs == euros
    agflow.save(agflow.Cascade(light, heavy, router, costs=(0.5, 1)), tmp_path / "cascade")
    assert agflow.load(tmp_path / "cascade").costs == CascadeCosts(0.5, 1.0, unit="x")


def test_what_needs_an_adapter_says_what_works_without(x, tmp_path):
    network, heavy = resnet().eval(), timm_vit()
    light = lambda images: network(images)
    with pytest.raises(UnsupportedModelError, match="any two models: give shared_blocks=0"):
        agflow.Cascade(light, heavy, 0.5, shared_blocks=1)
    cascade = agflow.Cascade(light, heavy, calibrated(light, heavy, x))
    with pytest.raises(
        UnsupportedModelError, match=r"a function.*cascade\.router\.save.*Router\.load"
    ):
        agflow.save(cascade, tmp_path / "cascade")
    assert not (tmp_path / "cascade").exists()
    cascade.router.save(tmp_path / "router.json")
    again = agflow.Cascade(light, heavy, agflow.Router.load(tmp_path / "router.json"))
    torch.testing.assert_close(again(x), cascade(x), rtol=0, atol=0)


def test_what_is_no_classifier_of_images_is_refused_in_a_sentence(x):
    heavy = timm_vit()
    for thing in ("resnet18", resnet().state_dict(), torchvision.models.ResNet, None):
        with pytest.raises(UnsupportedModelError, match="expected a module or a function"):
            agflow.Cascade(thing, heavy, 0.5)
    for form, error, why in (
        (lambda logits: (logits, logits), UnsupportedModelError, "a tuple of 2 items"),
        (lambda logits: {"a": logits, "b": logits}, UnsupportedModelError, "dict of a, b"),
        (lambda logits: None, UnsupportedModelError, "a NoneType"),
        (lambda logits: logits[:, None], ShapeError, r"\[8, 1, 5\] for 8 images"),
    ):
        with pytest.raises(error, match=why):
            agflow.Cascade(Returning(form), heavy, 0.5)(x)
    grey = nn.Sequential(nn.Conv2d(1, 3, 1), resnet())
    with pytest.raises(ShapeError, match=r"Sequential fails on images \[8, 3, 32, 32\].*channels"):
        agflow.Cascade(grey, heavy, 0.5)(x)


@pytest.mark.slow
def test_a_session_of_onnxruntime_is_an_expert(x, batches, tmp_path):
    heavy, path = resnet().eval(), tmp_path / "light.onnx"
    agflow.export(timm_vit().eval(), path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def light(images):
        return session.run(None, {given.name: images.numpy()})

    cascade = agflow.Cascade(light, heavy, 0.0, costs=(0.5, 1))
    torch.testing.assert_close(cascade(x), plain(timm_vit(), x), rtol=1e-4, atol=1e-4)
    assert agflow.evaluate(light, batches).images == IMAGES
    with agflow.Server(cascade) as server:
        answer = server.submit(x[0]).result()
    torch.testing.assert_close(answer, cascade(x[:1])[0], rtol=1e-4, atol=1e-4)


def between(light, x):
    """A threshold below which half of the images are."""
    with torch.no_grad():
        return float(plain(light, x).softmax(1).amax(1).median()) + 1e-6


@pytest.mark.parametrize("how", ["torch.compile", "cascade.compile"])
@pytest.mark.parametrize("pair", [(resnet, timm_vit), (hugging_face, resnet)])
def test_compiled_cascades_answer_and_count_the_same(how, pair, x):
    torch.compiler.reset()
    light, heavy = (make().eval() for make in pair)
    cascade = agflow.Cascade(light, heavy, between(light, x)).eval()
    sizes = (8, 8, 5, 1, 7)
    expected = [cascade(x[:images]) for images in sizes]
    ledger = cascade.ledger
    assert 0 < ledger.escalated < ledger.samples
    cascade.reset_ledger()
    graphs = []

    def backend(graph, example):
        graphs.append(graph)
        return graph.forward

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if how == "torch.compile":
            compiled = torch.compile(cascade, backend=backend)
        else:
            cascade.compile(backend=backend)
            compiled = cascade
        for images, logits in zip(sizes, expected, strict=True):
            torch.testing.assert_close(compiled(x[:images]), logits, rtol=1e-4, atol=1e-5)
    assert cascade.ledger == ledger
    operations = {node.target for graph in graphs for node in graph.graph.nodes}
    assert any(operation is torch.conv2d for operation in operations)  # the experts are in graphs
    assert all(len(list(graph.graph.nodes)) > 10 for graph in graphs)  # and nothing else is


def test_torch_may_do_to_a_cascade_what_it_does_to_modules(x):
    cascade = agflow.Cascade(resnet(), timm_vit(), 0.0).eval()
    logits = cascade(x)
    again = pickle.loads(pickle.dumps(cascade))
    torch.testing.assert_close(again(x), logits, rtol=0, atol=0)
    other = agflow.Cascade(resnet(), timm_vit(), 0.0)
    other.load_state_dict({name: 2 * value for name, value in cascade.state_dict().items()})
    other.load_state_dict(cascade.state_dict())
    torch.testing.assert_close(other(x), logits, rtol=0, atol=0)
    torch.testing.assert_close(cascade.half()(x), logits, rtol=0.05, atol=0.05)
    assert cascade.double()(x).dtype is torch.float64
