"""Models without a classifier and images without labels, through every entry point."""

import json

import pytest
import timm
import torch
import torchvision
import transformers
from small_vits import made, of_timm, of_torchvision
from torch import nn

import agflow
from agflow import commands
from agflow.calibration import CalibrationOptions
from agflow.calibration.image_draws import directions
from agflow.calibration.loss import hidden_loss
from agflow.data.preprocessing import Preprocessing
from agflow.errors import InvalidValueError, UnsupportedModelError
from agflow.evaluation import evaluate_agreement
from agflow.evaluation.intervals import Estimate
from agflow.evaluation.neighbours import neighbours_correct
from agflow.models import (
    adapter_for,
    class_count,
    features_of,
    final_hidden,
    head_of,
    known_classes,
)
from agflow.recipes import DesignOptions, ShrinkOptions
from agflow.training import Distillation

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}


def timm_vit():
    return of_timm(num_classes=0)


def timm_tokens():
    return of_timm(num_classes=0, global_pool="", class_token=True)


def torchvision_vit():
    model = of_torchvision()
    model.heads = nn.Identity()
    return model


def huggingface_vit():
    return transformers.ViTModel(transformers.ViTConfig(**SMALL))


def huggingface_tokens():
    return transformers.ViTModel(transformers.ViTConfig(**SMALL), add_pooling_layer=False)


def own_backbone():
    """A plain module whose forward ends before any classifier."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, 2, 1, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def huggingface_dinov2():
    """Traced: no family declares it."""
    sizes = {name: SMALL[name] for name in SMALL if name != "intermediate_size"}
    return transformers.Dinov2Model(transformers.Dinov2Config(**sizes))


class ForwardFeatures(nn.Module):
    """A module of one's own around a library's backbone."""

    def __init__(self):
        super().__init__()
        self.backbone = of_timm(num_classes=0)

    def forward(self, x):
        return self.backbone.forward_features(x)


class Pyramid(nn.Module):
    """The backbone of a detector: maps of several sizes by name."""

    def __init__(self):
        super().__init__()
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(32 if i else 3, 32, 3, 2, 1), nn.ReLU()) for i in range(3)
        )
        self.inner = nn.ModuleList(nn.Conv2d(32, 32, 1) for _ in range(3))
        self.outer = nn.ModuleList(nn.Conv2d(32, 8, 3, padding=1) for _ in range(3))

    def forward(self, x):
        maps = [x := layer(x) for layer in self.body]
        merged, found = None, {}
        for i in (2, 1, 0):
            own = self.inner[i](maps[i])
            above = 0 if merged is None else nn.functional.interpolate(merged, own.shape[2:])
            merged = own + above
            found[str(i)] = self.outer[i](merged)
        return dict(reversed(found.items()))


HEADLESS = [
    timm_vit,
    timm_tokens,
    torchvision_vit,
    huggingface_vit,
    huggingface_tokens,
    huggingface_dinov2,
    own_backbone,
    ForwardFeatures,
    Pyramid,
]


@pytest.fixture(scope="module")
def images():
    return torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("build", HEADLESS)
def test_a_model_without_a_classifier_through_everything(build, images, tmp_path):
    model, labels = made(build), torch.arange(24) % 3
    with pytest.raises(UnsupportedModelError, match="no classifier.* calibrate with loss='feat"):
        agflow.calibrate(model, [(images, labels)])
    with pytest.raises(UnsupportedModelError, match="loss='self' needs logits"):
        agflow.calibrate(model, [images], loss="self")
    statistics = agflow.calibrate(model, [images[:12], images[12:]], loss="features")
    assert statistics.metadata["agflow.loss"].startswith("a random direction of the normalised")
    assert (statistics["sum_abs_yg"] > 0).any() and not class_count(model)
    assert known_classes(model) is None
    light = agflow.prune(model, agflow.plan(statistics, macs=0.8), [images])
    assert agflow.count_macs(light) < agflow.count_macs(model)

    with pytest.raises(UnsupportedModelError, match="no classifier.*evaluate_agreement"):
        agflow.evaluate(light, [(images, labels)])
    before = evaluate_agreement(light, model, [(images, labels)])
    assert before.answers is None and before.neighbours.neighbours == 10
    assert before.cosine.low <= before.cosine.value <= before.cosine.high <= 1.01

    with pytest.raises(InvalidValueError, match="no classifier.*distillation=Distillation"):
        agflow.finetune(light, [(images, labels)], epochs=1)
    history = agflow.finetune(
        light, [images], epochs=2, distillation=Distillation(model), held_out=[images[:6]]
    )
    assert history.best_cosine >= history.start > 0.5 and history.best_accuracy is None
    assert {"cosine", "held_out_cosine"} < history[0].keys() and "accuracy" not in history[0]

    agflow.save(light, tmp_path / "light")
    given = {"model": made(build)} if build in (ForwardFeatures, Pyramid) else {}
    loaded = agflow.load(tmp_path / "light", **given)
    with torch.no_grad():
        found, expected = (features_of(each.eval()(images)) for each in (loaded, light))
    assert torch.equal(found, expected)


def test_the_sequential_repair_of_features_is_better_than_at_once(images):
    model = made(lambda: of_timm(num_classes=0, depth=3))
    plan = agflow.plan(agflow.calibrate(model, [images], loss="features"), macs=0.6)
    cosines = [
        evaluate_agreement(
            agflow.prune(model, plan, [images], compensate=compensate), model, [images]
        ).cosine.value
        for compensate in ("none", "ridge_at_once", "ridge")
    ]
    assert cosines[0] < cosines[1] < cosines[2]


def test_the_stream_that_is_put_out_is_no_group(images):
    for build in (timm_vit, torchvision_vit, huggingface_vit):
        kinds = {group.kind for group in adapter_for(made(build)).layers(made(build))}
        assert {"mlp", "heads"} <= kinds and "embed" not in kinds


def test_the_loss_is_the_projection_of_the_features(images):
    """The statistics are those of a function that computes the same formula."""
    model = made(timm_vit)

    def projection(model, batch):
        features = model(batch.images)
        unit = features / features.norm(dim=1, keepdim=True)
        return (unit * directions(batch.images, 32, seed=7)).sum(1)

    options = CalibrationOptions(seed=7)
    labels = torch.zeros(24, dtype=torch.int64)
    own = agflow.calibrate(model, [(images, labels)], loss=projection, options=options)
    found = agflow.calibrate(model, [images], loss="features", options=options)
    torch.testing.assert_close(
        torch.as_tensor(found["sum_abs_yg"]), torch.as_tensor(own["sum_abs_yg"])
    )
    other = agflow.calibrate(model, [images], loss="features")
    assert (other["sum_abs_yg"] != found["sum_abs_yg"]).any()


def test_directions_go_by_seed_and_pixels_alone(images):
    drawn = directions(images, 16, seed=0)
    assert torch.equal(directions(images.flip(0), 16, seed=0), drawn.flip(0))
    assert not torch.equal(directions(images, 16, seed=1), drawn)
    hidden = torch.randn(24, 4, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(hidden_loss(hidden, images, 0), hidden)
    assert (gradient * hidden).sum((1, 2)).abs().max() < 1e-5  # the length does not count
    assert gradient.abs().mean() > 0.01


def test_features_of_a_classifier_are_what_it_reads(images):
    model = made(of_timm)
    head = head_of(model, images)
    assert head.layers == ("head",) and head.classes == 10
    expected = model.forward_head(model.forward_features(images), pre_logits=True)
    assert torch.equal(final_hidden(model, images, head), expected)
    statistics = agflow.calibrate(model, [images], loss="features")
    assert (statistics["sum_abs_yg"] > 0).any()


class TwoOutputs(nn.Module):
    """A backbone that returns what ``form`` makes of its map and its pooled features."""

    def __init__(self, form):
        super().__init__()
        self.stem, self.form = nn.Sequential(nn.Conv2d(3, 8, 2), nn.ReLU()), form

    def forward(self, x):
        x = self.stem(x)
        return self.form(x, x.mean((2, 3)))


@pytest.mark.parametrize(
    "form, shape",
    [
        (lambda x, pooled: {"last_hidden_state": x, "pooler_output": pooled}, (8,)),
        (lambda x, pooled: {"x_norm_clstoken": pooled, "x_norm_patchtokens": x}, (8,)),
        (lambda x, pooled: (x, pooled), (8, 31, 31)),
        (lambda x, pooled: [x, x[:, :, ::2]], (8, 16, 31)),
        (lambda x, pooled: {"maps": x}, (8, 31, 31)),
        (lambda x, pooled: {"p3": x, "p4": x[:, :, ::2]}, (8 * 31 * 31 + 8 * 16 * 31,)),
    ],
)
def test_features_in_what_backbones_return(images, form, shape):
    model = TwoOutputs(form)
    head = head_of(model, images)
    assert not head.classes and final_hidden(model, images, head).shape == (24, *shape)


def test_what_is_a_classifier_and_what_is_not(images):
    def vgg():
        model = torchvision.models.vgg11(num_classes=5)
        model.avgpool, model.classifier = nn.AdaptiveAvgPool2d(1), nn.Identity()
        return model

    def without_fc():
        model = torchvision.models.resnet18()
        model.fc = nn.Identity()
        return model

    tiny = lambda *last: nn.Sequential(nn.Conv2d(3, 8, 4, 4), *last)
    flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    for model, classes in (
        (without_fc(), 0),
        (timm.create_model("convnext_atto", num_classes=0), 0),
        (tiny(nn.BatchNorm2d(8), *flat), 0),
        (tiny(*flat, nn.Linear(8, 6), nn.ReLU()), 0),
        (tiny(*flat, nn.Linear(8, 6)), 6),
        (tiny(*flat, nn.Linear(8, 6), nn.BatchNorm1d(6)), 6),
        (tiny(*flat, nn.Linear(8, 6), nn.LogSoftmax(1)), 6),
        (tiny(nn.Conv2d(8, 6, 1), nn.ReLU(), *flat), 6),
        (torchvision.models.squeezenet1_1(num_classes=7), 7),
        (transformers.ViTForImageClassification(transformers.ViTConfig(**SMALL)), 2),
    ):
        model.eval()
        assert head_of(model, images[:2]).classes == classes, model
    assert head_of(vgg().eval(), images[:2]).output == "Tensor [2, 512]"


def test_agreement_of_classifiers(images):
    model = made(of_timm)
    same = evaluate_agreement(model, model, [images])
    assert same.answers.value == 1 and same.answers.low < 0.9 and same.neighbours is None
    assert same.cosine.value == pytest.approx(1)
    other = evaluate_agreement(of_timm(), model, [images])
    assert other.answers.value < 1 and other.cosine.value < 0.9
    gallery = [(images[:12], torch.arange(12) % 2)]
    found = evaluate_agreement(model, model, [(images[:12], torch.arange(12) % 2)], gallery=gallery)
    assert found.neighbours.difference.value == 0
    assert "answers: 100.0 %" in str(same) and "nearest neighbours" in str(found)


def test_neighbours_vote_by_their_cosines():
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(4)[torch.arange(80) % 4]
    features = centres + 0.1 * torch.randn(80, 4, generator=generator)
    labels = 3 * (torch.arange(80) % 4)
    assert neighbours_correct(features, labels).all()
    shuffled = labels[torch.randperm(80, generator=generator)]
    assert neighbours_correct(features, shuffled).float().mean() < 0.5
    assert neighbours_correct(features[:8], labels[:8], (features[8:], labels[8:])).all()


def test_intervals_cover_what_they_estimate():
    """Of 400 draws of 60 images about 95 % hold the share that they are drawn from."""
    hits = torch.rand(400, 60, generator=torch.Generator().manual_seed(0)).numpy() < 0.8
    for of in (Estimate.of_share, Estimate.of_mean):
        held = [found.low <= 0.8 <= found.high for found in map(of, hits)]
        assert 0.9 <= sum(held) / len(held) <= 0.99
    others = torch.rand(400, 60, generator=torch.Generator().manual_seed(1)).numpy() < 0.8
    pairs = [Estimate.of_difference(*pair) for pair in zip(hits, others, strict=True)]
    assert 0.9 <= sum(pair.low <= 0 <= pair.high for pair in pairs) / 400 <= 0.99


@pytest.mark.parametrize(
    "build, labelled, loss, said",
    [
        (of_timm, True, "labels", "by the loss labels\n"),
        (of_timm, False, "self", "by the loss self (the images have no labels)"),
        (timm_vit, False, "features", "by the loss features (the model has no classifier)"),
        (timm_vit, True, "features", "nearest neighbours"),
    ],
)
def test_shrink_chooses_the_loss_by_what_is_there(images, build, labelled, loss, said):
    reports, labels = [], torch.arange(24) % 3
    agflow.shrink(
        made(build), (images, labels) if labelled else images, macs=0.7, report=reports.append
    )
    (report,) = reports
    assert report.loss == loss and said in str(report)
    assert (report.features is None) == (build is of_timm)
    assert report.as_dict()["loss"] == loss


def test_a_loss_that_was_asked_for_is_taken(images):
    options, reports = ShrinkOptions(loss="features"), []
    agflow.shrink(made(of_timm), images, macs=0.7, options=options, report=reports.append)
    assert reports[0].loss == "features"
    with pytest.raises(InvalidValueError, match="images without labels"):
        agflow.shrink(made(of_timm), images, macs=0.7, options=ShrinkOptions(loss="labels"))


def called(name, **options):
    every = {"device": "cpu", "dtype": "float32", "workers": 0, "batch_size": 16, "seed": 0}
    return json.loads(getattr(commands, name)(json.dumps({**every, **options})))


def test_commands_take_a_model_without_a_classifier(tmp_path, monkeypatch):
    """Its labels need not be its classes: they say which neighbours are right."""
    (tmp_path / "backbone_of_commands.py").write_text(
        "import timm, torch\n\n\ndef backbone():\n    torch.manual_seed(0)\n"
        "    return timm.create_model('vit_tiny_patch16_224', img_size=28, patch_size=7,\n"
        "        embed_dim=32, depth=2, num_heads=4, num_classes=0, in_chans=1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    dense, light = "backbone_of_commands:backbone", str(tmp_path / "light")
    data = {"data": "example:test", "limit": 32, "mean": ["0.3"], "std": ["0.3"]}
    shrunk = called("shrink", model=dense, **data, macs="0.7", output=light)
    assert shrunk["loss"] == "features" and shrunk["accuracy"] is None
    found = called("evaluate", model=light, dense=dense, data="example:test", limit=32)
    assert "features: cosine" in found["summary"] and "top1" not in found
    assert 0.5 < found["agreement"]["cosine"]["value"] <= 1
    assert found["agreement"]["neighbours"]["difference"]["low"] < 0.2
    with pytest.raises(UnsupportedModelError, match="agflow evaluate --dense"):
        called("evaluate", model=light, data="example:test", limit=32)
    training = {"epochs": 1, "lr": 1e-3, "distill": 0.9, "features": 0.0, "accumulate": 1}
    tuned = called(
        "finetune",
        **training,
        **data,
        light=light,
        heavy=dense,
        held_out="0.25",
        output=str(tmp_path / "tuned"),
    )
    assert "to the teacher's features" in tuned["summary"]


def test_evaluate_compares_a_classifier_with_its_dense_model():
    few = {"data": "example:test", "limit": 32}
    found = called("evaluate", model="example", dense="example", **few)
    assert found["agreement"]["answers"]["value"] == 1 and "answers: 100.0 %" in found["summary"]
    assert found["top1"] > 0.5


def test_a_cascade_is_designed_for_a_classifier_only(tmp_path):
    preprocessing = Preprocessing((32, 32), (0.5,) * 3, (0.5,) * 3)
    agflow.save(timm_vit().eval(), tmp_path / "model", preprocessing=preprocessing)
    options = DesignOptions(str(tmp_path / "out"), model=str(tmp_path / "model"))
    with pytest.raises(UnsupportedModelError, match="has no classifier"):
        agflow.recipes.design(options, say=lambda line: None)
