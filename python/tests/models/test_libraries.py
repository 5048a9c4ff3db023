"""Light experts stay citizens of timm and transformers: preprocessing, configs, save_pretrained."""

import copy
import os
import pickle

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from small_vits import images_for, made, of_transformers
from timm.data import resolve_model_data_config

import agflow
from agflow.data import Preprocessing
from agflow.errors import UnsupportedModelError
from agflow.models import adapter_for, at_image_size, count_macs, load_expert, only_classes
from agflow.models.families.transformers_uneven import Uneven
from agflow.pruning import Allocation
from agflow.pruning.pruner import prune

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}
OVERLAY = {"mean": [0.1, 0.2, 0.3], "std": (0.4, 0.5, 0.6), "crop_pct": 1, "crop_mode": "squash"}


def again(model, folder):
    agflow.save(model, folder)
    return agflow.load(folder)


def half(model, plan_of, groups=("mlp",), uneven=False):
    """A copy that lost half of these units, or of half of the layers."""
    layers = [layer for layer in adapter_for(model).layers(model) if layer.kind in groups]
    kept = {layer.name: range(1, layer.units, 2) for layer in layers[:: 2 if uneven else 1]}
    return prune(model, plan_of(model, kept), [images_for(model)])


@pytest.mark.parametrize(
    "name, options",
    [
        ("deit_tiny_patch16_224", {}),
        ("vit_base_patch16_clip_224.openai", {}),
        ("vit_tiny_patch16_224", {"num_classes": 7, "pretrained_cfg_overlay": OVERLAY}),
    ],
)
def test_timm_says_the_same_of_a_light_expert(name, options, plan_of, tmp_path):
    model = timm.create_model(name, **SMALL, **options).eval()
    expected = resolve_model_data_config(model)
    light = half(model, plan_of)
    agflow.finetune(light, [(images_for(model), torch.arange(4))], epochs=1)
    loaded = again(light, tmp_path / "light")
    for each in (light, loaded, copy.deepcopy(loaded), again(loaded, tmp_path / "again")):
        assert resolve_model_data_config(each) == expected
        assert each.default_cfg == each.pretrained_cfg
    assert loaded.pretrained_cfg == {**model.pretrained_cfg, "num_classes": model.num_classes}
    assert resolve_model_data_config(model) == expected


def test_timm_knows_a_new_image_size_and_fewer_classes(plan_of, tmp_path):
    model = timm.create_model("deit_tiny_patch16_224", **SMALL).eval()
    for change, key, value in (
        (lambda m: at_image_size(m, 16), "input_size", (3, 16, 16)),
        (lambda m: only_classes(m, [1, 5]), "num_classes", 2),
    ):
        changed = change(model)
        for each in (changed, again(changed, tmp_path / key)):
            assert each.pretrained_cfg[key] == value != model.pretrained_cfg[key]
    small = load_expert(tmp_path / "input_size")
    for use_test_size in (False, True):
        found = resolve_model_data_config(small, use_test_size=use_test_size)
        assert found["input_size"] == (3, 16, 16)


def test_a_timm_config_is_saved_without_paths_and_tensors(tmp_path):
    overlay = {"file": "/home/me/weights.pt", "state_dict": {"x": torch.zeros(1)}, "mean": None}
    model = timm.create_model("vit_tiny_patch16_224", **SMALL, pretrained_cfg_overlay=overlay)
    loaded = again(model.eval(), tmp_path / "expert")
    assert not {"file", "state_dict"} & loaded.pretrained_cfg.keys()
    assert "home" not in (tmp_path / "expert" / "config.json").read_text()


@pytest.mark.parametrize("kind, suffix", [("ViT", ""), ("DeiT", "WithTeacher")])
@pytest.mark.parametrize("groups", [("mlp",), ("heads",), ("mlp", "heads", "embed")])
def test_even_widths_are_saved_and_loaded_by_transformers(kind, suffix, groups, plan_of, tmp_path):
    labels = {i: f"class {i}" for i in range(10)}
    model = made(lambda: of_transformers(kind, suffix, id2label=labels))
    model.config.problem_type = "single_label_classification"
    light, images = half(model, plan_of, groups), images_for(model)
    for number, expert in enumerate((light, again(light, tmp_path / "expert"))):
        assert type(expert) is type(model)
        expert.save_pretrained(tmp_path / str(number))
        loaded = type(model).from_pretrained(tmp_path / str(number)).eval()
        with torch.no_grad():
            assert torch.equal(loaded(images).logits, light(images).logits)
        assert loaded.config.id2label == labels and count_macs(loaded) == count_macs(light)
        assert loaded.config.problem_type == "single_label_classification"
    whole = model.config
    assert (whole.hidden_size, whole.num_attention_heads, whole.intermediate_size) == (32, 4, 64)


@pytest.mark.parametrize(
    "groups, uneven, reason",
    [
        (("mlp",), True, "its blocks have 32 to 64 hidden channels"),
        (("heads",), True, "its blocks have 2 to 4 heads"),
        (("block",), False, "4 residual branches are gone"),
        (("head_dim",), False, "queries, keys or values have lost channels inside their heads"),
    ],
)
def test_other_widths_are_refused_with_the_way_that_works(
    groups, uneven, reason, plan_of, tmp_path
):
    model = made(of_transformers)
    light, images = half(model, plan_of, groups, uneven), images_for(model)
    loaded = again(light, tmp_path / "expert")
    message = rf"cannot save this ViTForImageClassification: .* after the cut {reason}: save it "
    message += r"with agflow.save\(model, folder\)"
    for expert in (light, loaded, copy.deepcopy(light), pickle.loads(pickle.dumps(light))):
        assert isinstance(expert, Uneven) and isinstance(expert, type(model))
        assert torch.equal(expert(images).logits, light(images).logits)
        for save in (expert.save_pretrained, expert.push_to_hub):
            with pytest.raises(UnsupportedModelError, match=message):
                save(tmp_path / "refused")
    assert os.listdir(tmp_path) == ["expert"]
    assert light(images, output_hidden_states=True).hidden_states is not None


def test_the_plan_that_the_refusal_names_gives_even_widths():
    model = made(of_transformers)
    data = [(images_for(model, 8), torch.arange(8))]
    statistics = agflow.calibrate(model, data, groups=("mlp", "heads", "embed"))
    even = agflow.plan(statistics, pruning_ratio=0.5, allocation=Allocation(widths="uniform"))
    assert type(agflow.prune(model, even, data)) is transformers.ViTForImageClassification


def test_a_cut_that_makes_widths_even_again_makes_the_model_transformers_own(plan_of, tmp_path):
    model = made(of_transformers)
    uneven = half(model, plan_of, ("mlp",), uneven=True)
    wide = next(layer for layer in adapter_for(uneven).layers(uneven) if layer.units == 64)
    even = prune(uneven, plan_of(uneven, {wide.name: range(32)}), compensate="none")
    assert isinstance(uneven, Uneven) and not isinstance(even, Uneven)
    even.save_pretrained(tmp_path)
    assert even.config.intermediate_size == 32


def test_a_model_elsewhere_is_compared_on_the_cpu(plan_of, tmp_path, monkeypatch):
    """Where the model runs on another device, which rounds otherwise, a copy runs here."""
    model = made(of_transformers)
    monkeypatch.setattr("agflow.models.expert.device_of", lambda model: torch.device("cuda"))
    copies = []
    monkeypatch.setattr(
        "agflow.models.expert.copy_of", lambda model: copies.append(model) or copy.deepcopy(model)
    )
    assert count_macs(again(model, tmp_path / "expert")) == count_macs(model)
    assert copies == [model]


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing((32, 32), (0.5,) * 3, (0.5,) * 3, "bilinear", crop_mode="squash"),
        Preprocessing((32, 32), (0.1, 0.2, 0.3), (0.3,) * 3, "bicubic", 0.875),
        Preprocessing((32, 32), (0.1, 0.2, 0.3), (0.3,) * 3, "bicubic", 0.8, "squash"),
    ],
)
def test_an_image_processor_of_transformers_reads_the_folder(preprocessing, tmp_path):
    agflow.save(made(of_transformers), tmp_path / "light", preprocessing=preprocessing)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "light")
    slope = np.linspace(0, 255, 60 * 80 * 3).astype("uint8").reshape(60, 80, 3)
    picture = Image.fromarray(slope)
    expected = preprocessing.normalise(preprocessing.pixels(picture)[None])
    found = processor(picture, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


def test_preprocessing_that_no_processor_has_leaves_no_file(tmp_path):
    bordered = Preprocessing((32, 32), (0.5,) * 3, (0.5,) * 3, crop_mode="border")
    agflow.save(made(of_transformers), tmp_path / "light", preprocessing=bordered)
    assert "preprocessor_config.json" not in os.listdir(tmp_path / "light")
