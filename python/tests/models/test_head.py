"""Models of some of their classes: the same logits in every family, saved and loaded."""

import pytest
import timm
import torch
import transformers
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionVit

from agflow import errors
from agflow.data.datasets import load_dataset
from agflow.data.preprocessing import Preprocessing
from agflow.models import adapter_for, count_macs, logits_of
from agflow.models.expert import load_expert, save_expert
from agflow.models.head import class_count, class_names, only_classes

KEPT = (7, 0, 3)


def of_transformers(kind):
    config = getattr(transformers, f"{kind}Config")(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        id2label={i: f"class {i}" for i in range(10)},
        label2id={f"class {i}": i for i in range(10)},
    )
    return getattr(
        transformers, f"{kind}ForImageClassification{'WithTeacher' if kind == 'DeiT' else ''}"
    )(config)


TIMM = {
    "img_size": 32,
    "patch_size": 8,
    "num_classes": 10,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 4,
}
TORCHVISION = {
    "image_size": 32,
    "patch_size": 8,
    "num_layers": 2,
    "num_heads": 4,
    "hidden_dim": 32,
    "mlp_dim": 48,
    "num_classes": 10,
}
FAMILIES = {
    "timm": lambda: VisionTransformer(**TIMM),
    "timm, distilled": lambda: VisionTransformerDistilled(**TIMM),
    "torchvision": lambda: TorchvisionVit(**TORCHVISION),
    "torchvision, two linear layers": lambda: TorchvisionVit(**TORCHVISION, representation_size=24),
    "transformers": lambda: of_transformers("ViT"),
    "transformers, distilled": lambda: of_transformers("DeiT"),
}


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_logits_are_those_of_the_model(family, images, tmp_path):
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    for parameter in model.parameters():  # torchvision's heads begin at zero
        parameter.normal_(0, 0.2)
    whole, macs = logits_of(model(images[0])), count_macs(model)
    fewer = only_classes(model, KEPT)
    assert torch.allclose(
        logits_of(fewer(images[0])), whole[:, KEPT], atol=1e-5 * whole.abs().max()
    )
    assert torch.equal(logits_of(model(images[0])), whole) and count_macs(
        model
    ) == macs > count_macs(fewer)
    save_expert(fewer, tmp_path / "fewer")
    back = load_expert(tmp_path / "fewer")
    assert torch.equal(logits_of(back(images[0])), logits_of(fewer(images[0])))
    if family.startswith("transformers"):
        assert (
            back.config.id2label == {0: "class 7", 1: "class 0", 2: "class 3"}
            and back.config.num_labels == 3
        )


@pytest.mark.parametrize("classes", [(), (1,), (1, 1), (0, 10), (-1, 2)])
def test_classes_that_are_not_there_are_refused(classes, make_vit):
    with pytest.raises(errors.InvalidValueError, match="each from 0 to 9"):
        only_classes(make_vit(), classes)


def test_a_family_that_does_not_know_how_says_so(make_vit, monkeypatch):
    from agflow.models import Adapter
    from agflow.models.families.timm_vit import TimmVisionTransformer

    monkeypatch.setattr(TimmVisionTransformer, "keep_classes", Adapter.keep_classes)
    with pytest.raises(errors.UnsupportedModelError, match="its adapter has no keep_classes"):
        only_classes(make_vit(), KEPT)


def test_an_adapter_that_counts_no_classes_asks_the_model(make_vit, monkeypatch):
    from agflow.models import Adapter
    from agflow.models.families.timm_vit import TimmVisionTransformer

    monkeypatch.setattr(TimmVisionTransformer, "class_count", Adapter.class_count)
    model = make_vit(drop_rate=0.5).train()
    assert class_count(model) == 10 and model.training
    assert class_count(make_vit().to("meta")) == 10


@pytest.mark.parametrize("family", FAMILIES)
def test_a_classifier_replaced_by_hand_counts_as_it_is(family, images, tmp_path):
    model = FAMILIES[family]().eval()
    for name in adapter_for(model)._last_linears(model):
        old = model.get_submodule(name)
        model.set_submodule(name, torch.nn.Linear(old.in_features, 3))
    assert class_count(model) == 3 and class_names(model) is None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    save_expert(model, tmp_path / "expert")
    back = load_expert(tmp_path / "expert")
    assert class_count(back) == 3
    assert torch.equal(logits_of(back(images[0])), logits_of(model(images[0])))
    assert class_count(only_classes(back, [2, 0])) == 2


def test_class_names_keep_their_number_whatever_the_type_of_their_keys(tmp_path):
    """Labels that were read from JSON have texts for numbers, and "10" sorts before "2"."""
    names = [f"class {i}" for i in range(12)]
    model = of_transformers("ViT")
    model.classifier = torch.nn.Linear(32, 12)
    model.config.id2label = {str(i): name for i, name in reversed(list(enumerate(names)))}
    model.eval()
    assert class_names(model) == names
    fewer = only_classes(model, [2, 10])
    assert class_names(fewer) == ["class 2", "class 10"]
    assert fewer.config.id2label == {0: "class 2", 1: "class 10"}
    for folder, saved in (("all", model), ("fewer", fewer)):
        save_expert(saved, tmp_path / folder)
        assert class_names(load_expert(tmp_path / folder)) == class_names(saved)
    assert load_expert(tmp_path / "all").config.id2label == dict(enumerate(names))


@pytest.mark.parametrize(
    "labels", [{"cat": 0, "dog": 1}, {0: "cat", 5: "dog"}, ["cat", "dog"], {"1": "a", 1: "b"}]
)
def test_labels_that_do_not_number_the_classes_are_refused(labels):
    model = of_transformers("ViT")
    model.config.id2label = labels
    with pytest.raises(errors.UnsupportedModelError, match=r"config\.id2label has .* expected"):
        class_names(model)


@pytest.mark.parametrize("family", [f for f in FAMILIES if not f.startswith("transformers")])
def test_names_that_were_given_stay_with_their_class(family, tmp_path):
    model = FAMILIES[family]().eval()
    assert class_names(model) is None
    adapter_for(model).name_classes(model, list("abcdefghij"))
    fewer = only_classes(model, KEPT)
    assert class_names(fewer) == ["h", "a", "d"]
    save_expert(fewer, tmp_path / "fewer")
    assert class_names(load_expert(tmp_path / "fewer")) == ["h", "a", "d"]


def test_timms_classifiers_of_imagenet_have_wordnet_ids(tmp_path):
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 1, "num_heads": 4}
    model = timm.create_model("vit_tiny_patch16_224", **small).eval()
    assert class_names(model)[:2] == ["n01440764", "n01443537"] and len(class_names(model)) == 1000
    assert class_names(timm.create_model("vit_tiny_patch16_224", num_classes=10, **small)) is None
    fewer = only_classes(model, [217, 0])
    save_expert(fewer, tmp_path / "fewer")
    assert class_names(load_expert(tmp_path / "fewer")) == ["n02102040", "n01440764"]
    model.head = torch.nn.Linear(48, 3)
    assert class_names(model) is None


def test_images_of_these_classes_alone_are_read_with_labels_to_match():
    preprocessing = Preprocessing((28, 28), (0.286,), (0.353,))
    whole = load_dataset("example:test", preprocessing=preprocessing, classes=10)
    some = load_dataset(
        "example:test", preprocessing=preprocessing, classes=10, only=KEPT, limit=40
    )
    rows = [i for i, label in enumerate(whole.labels.tolist()) if label in KEPT][:40]
    assert some.labels.tolist() == [KEPT.index(int(whole.labels[i])) for i in rows]
    assert all(torch.equal(some[n][0], whole[i][0]) for n, i in enumerate(rows))
    in_turn = load_dataset(
        "example:test", preprocessing=preprocessing, classes=10, only=KEPT, limit=30, seed=1
    )
    assert in_turn.labels.bincount().tolist() == [10, 10, 10]
