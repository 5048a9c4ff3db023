"""Models at another image size: their weights, images of any size, and the whole pipeline."""

import copy
import io
import json
import math
import pickle

import pytest
import timm
import torch
import torchvision
import transformers
from hypothesis import given, settings, strategies as st
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import agflow
from agflow.errors import InvalidValueError, ShapeError, UnsupportedModelError
from agflow.models import Adapter, adapter_for, count_macs, describe, logits_of, register, registry
from agflow.models.resizing import Resize, resize_of
from agflow.models.resolution import at_image_size, image_size
from agflow.pruning import Allocation
from agflow.training.options import Distillation

PATCH = 8


def of_timm(kind=VisionTransformer, size=32, **overrides):
    return kind(
        **{
            "img_size": size,
            "patch_size": PATCH,
            "num_classes": 10,
            "embed_dim": 32,
            "depth": 2,
            "num_heads": 4,
            "mlp_ratio": 2.0,
            **overrides,
        }
    )


def of_torchvision(size=32):
    return torchvision.models.VisionTransformer(
        image_size=size,
        patch_size=PATCH,
        num_layers=2,
        num_heads=4,
        hidden_dim=32,
        mlp_dim=64,
        num_classes=10,
    )


def of_transformers(kind="ViT", suffix="", size=32):
    config = getattr(transformers, f"{kind}Config")(
        image_size=size,
        patch_size=PATCH,
        num_hidden_layers=2,
        num_attention_heads=4,
        hidden_size=32,
        intermediate_size=64,
        num_labels=10,
    )
    return getattr(transformers, f"{kind}ForImageClassification{suffix}")(config)


MAKERS = {  # by image size
    "timm": of_timm,
    "timm_distilled": lambda size: of_timm(VisionTransformerDistilled, size),
    "timm_registers": lambda size: of_timm(size=size, reg_tokens=3, no_embed_class=True),
    "timm_registers_placed": lambda size: of_timm(size=size, reg_tokens=2),
    "timm_pool": lambda size: of_timm(
        size=size, class_token=False, global_pool="avg", pre_norm=True
    ),
    "timm_no_positions": lambda size: of_timm(size=size, pos_embed="none"),
    "torchvision": of_torchvision,
    "transformers_vit": lambda size: of_transformers(size=size),
    "transformers_deit": lambda size: of_transformers("DeiT", "WithTeacher", size),
}
POSITIONS = (
    "pos_embed",
    "encoder.pos_embedding",
    "vit.embeddings.position_embeddings",
    "deit.embeddings.position_embeddings",
)


def make(name, size=32):
    torch.manual_seed(0)
    model = MAKERS[name](size=size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.fixture(scope="module", params=MAKERS)
def named(request):
    return request.param, make(request.param)


def photos(*size, count=2):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


def made_at(name, model, size):
    """A model created at ``size``, with ``model``'s weights and interpolated positions."""
    made = make(name, size)
    state = model.state_dict()
    position = next((key for key in POSITIONS if key in state), None)
    if position is not None:
        height, width = (size, size) if isinstance(size, int) else size
        prefix, grid = state[position].split([state[position].shape[1] - 16, 16], 1)
        grid = grid.transpose(1, 2).unflatten(2, (4, 4))
        placed = F.interpolate(
            grid,
            (height // PATCH, width // PATCH),
            mode="bicubic",
            antialias=True,
            align_corners=False,
        )
        state[position] = torch.cat([prefix, placed.flatten(2).transpose(1, 2)], 1)
    made.load_state_dict(state)
    return made


@pytest.mark.parametrize("size", [16, 24, 48, (16, 40)])
def test_it_is_the_model_created_at_that_size_with_interpolated_positions(named, size):
    name, model = named
    if name == "torchvision" and not isinstance(size, int):
        pytest.skip("takes square images only")
    before = copy.deepcopy(model.state_dict())
    small, expected = at_image_size(model, size), made_at(name, model, size)
    height, width = (size, size) if isinstance(size, int) else size
    x = photos(height, width)
    with torch.no_grad():
        assert torch.equal(logits_of(small(x)), logits_of(expected(x)))
        wide = photos(50, 37)
        assert torch.equal(
            logits_of(small(wide)),
            logits_of(
                expected(F.interpolate(wide, (height, width), mode="bilinear", antialias=True))
            ),
        )
    assert image_size(small) == (height, width) and adapter_for(small).input_size(small) == (
        3,
        height,
        width,
    )
    assert describe(small) == describe(expected) and count_macs(small) == count_macs(expected)
    assert image_size(model) == (32, 32) and resize_of(model) is None
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert {id(p) for p in small.parameters()}.isdisjoint(id(p) for p in model.parameters())


def test_timms_own_change_of_size_gives_the_same():
    for overrides in ({}, {"reg_tokens": 3, "no_embed_class": True}, {"reg_tokens": 2}):
        torch.manual_seed(0)
        model = of_timm(**overrides).eval()
        expected, x = copy.deepcopy(model), photos(24, 40)
        expected.set_input_size((24, 40))
        assert torch.equal(at_image_size(model, (24, 40))(x), expected(x))


@given(height=st.integers(1, 6), width=st.integers(1, 6))
@settings(max_examples=12, deadline=None)
def test_macs_are_those_that_torch_counts_at_the_size(named, height, width):
    name, model = named
    size = PATCH * height, PATCH * (height if name == "torchvision" else width)
    small, counter = at_image_size(model, size), FlopCounterMode(display=False)
    with (
        counter
    ):  # gradients on: torchvision's attention has a fused inference path that is not counted
        small(photos(40, 40, count=1))
    assert count_macs(small) == counter.get_total_flops() // 2


def test_copies_of_every_kind_go_on_resizing(named):
    _, model = named
    small, x = at_image_size(model, 16), photos(32, 32)
    buffer = io.BytesIO()
    torch.save(small, buffer)
    buffer.seek(0)
    for again in (
        copy.deepcopy(small),
        pickle.loads(pickle.dumps(small)),
        torch.load(buffer, weights_only=False),
    ):
        assert torch.equal(logits_of(again(x)), logits_of(small(x)))
    back = at_image_size(at_image_size(small, 16), 24)
    assert [hook.size for hook in back._forward_pre_hooks.values()] == [(24, 24)] and resize_of(
        small
    ).size == (16, 16)


def test_flags_types_and_devices_are_kept():
    model = of_timm().bfloat16().requires_grad_(False).train()
    small = at_image_size(model, 16)
    assert (
        small.training
        and not small.pos_embed.requires_grad
        and small.pos_embed.dtype == torch.bfloat16
    )
    assert small(photos(32, 32).bfloat16()).dtype == torch.bfloat16
    assert at_image_size(of_timm().to("meta"), 16).pos_embed.is_meta


def test_gradients_reach_the_images_and_the_positions():
    small, x = at_image_size(of_timm(), 16), photos(32, 32).requires_grad_()
    small(x).sum().backward()
    assert x.grad.abs().sum() > 0 and small.pos_embed.grad.shape == (1, 5, 32)


@pytest.mark.parametrize("size", [0, -16, 20, (16, 20), (20, 16), 7])
def test_sizes_that_are_no_multiple_of_the_patch_are_refused(named, size):
    name, model = named
    before = describe(model)
    with pytest.raises(InvalidValueError, match="expected") as caught:
        adapter_for(model).set_image_size(model, *((size, size) if isinstance(size, int) else size))
    assert "x".join(map(str, (size, size) if isinstance(size, int) else size)) in str(caught.value)
    assert describe(model) == before


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)


class PlainAdapter(Adapter):
    family, models = "plain", "Plain"
    recognises = lambda self, model: isinstance(model, Plain)
    layers = weights = cut = input_size = macs = describe = build = lambda self, *_: None


def test_what_cannot_be_done_is_refused_by_name(monkeypatch):
    with pytest.raises(InvalidValueError, match="16x24.*square"):
        at_image_size(of_torchvision(), (16, 24))
    for dynamic in (
        {"dynamic_img_size": True},
        {"dynamic_img_size": True, "dynamic_img_pad": True},
    ):
        with pytest.raises(UnsupportedModelError, match="dynamic_img_size"):
            at_image_size(of_timm(**dynamic), 16)
    monkeypatch.setattr(registry, "_registered", list(registry._registered))
    register(PlainAdapter())
    with pytest.raises(UnsupportedModelError, match="Plain.*set_image_size"):
        at_image_size(Plain(), 16)


def test_what_is_no_batch_of_images_is_refused():
    small = at_image_size(of_timm(), 16)
    with pytest.raises(ShapeError, match=r"\[3, 32, 32\]"):
        small(photos(32, 32)[0])
    with pytest.raises(InvalidValueError, match="positional"):
        at_image_size(of_transformers(), 16)(pixel_values=photos(32, 32))
    assert repr(resize_of(small)) == "Resize(16, 16)" and resize_of(of_timm()) is None
    same = photos(16, 16)
    assert Resize(16, 16).resized(same) is same


# Files


def test_experts_bring_images_to_their_size_again(named, tmp_path):
    _, model = named
    small, x = at_image_size(model, 16), photos(32, 32)
    agflow.save(small, tmp_path / "small")
    loaded = agflow.load(tmp_path / "small")
    assert torch.equal(logits_of(loaded(x)), logits_of(small(x))) and image_size(loaded) == (16, 16)
    assert json.loads((tmp_path / "small" / "config.json").read_text())["resizes"] is True
    assert "any size, which it brings to 16x16" in (tmp_path / "small" / "README.md").read_text()
    agflow.save(model, tmp_path / "whole")
    assert resize_of(agflow.load(tmp_path / "whole")) is None
    assert "takes images of 32x32" in (tmp_path / "whole" / "README.md").read_text()


def test_experts_that_do_not_say_take_their_own_size(tmp_path):
    agflow.save(of_timm(), tmp_path / "old")
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    first = {name: config[name] for name in ("name", "architecture", "macs", "params")}
    first |= {"format": 1, "preprocessing": None, "tuning": ""}
    first["weights_sha256"] = config["sha256"]["model.safetensors"]
    (tmp_path / "old" / "config.json").write_text(json.dumps(first))
    assert resize_of(agflow.load(tmp_path / "old")) is None


def test_exported_files_take_the_models_own_size(tmp_path):
    small = at_image_size(make("timm"), 16)
    agflow.export(small, tmp_path / "small.onnx", images=photos(32, 32))
    import onnx
    import onnxruntime

    session = onnxruntime.InferenceSession(
        tmp_path / "small.onnx", providers=["CPUExecutionProvider"]
    )
    assert session.get_inputs()[0].shape == ["batch", 3, 16, 16]
    x = photos(32, 32)
    found = session.run(["logits"], {"images": resize_of(small).resized(x).numpy()})[0]
    assert torch.allclose(torch.from_numpy(found), small(x), atol=1e-5)
    about = json.loads(
        {entry.key: entry.value for entry in onnx.load(tmp_path / "small.onnx").metadata_props}[
            "agflow"
        ]
    )
    assert about["image_size"] == [16, 16]


# The pipeline


@pytest.fixture(scope="module")
def batches():
    generator = torch.Generator().manual_seed(2)
    return [
        (
            torch.randn(8, 3, 32, 32, generator=generator),
            torch.randint(10, (8,), generator=generator),
        )
        for _ in range(4)
    ]


def test_statistics_are_those_of_the_model_at_the_size_and_say_so(named, batches):
    name, model = named
    size = 16 if name == "torchvision" else (16, 24)
    height, width = image_size(at_image_size(model, size))
    found = agflow.calibrate(model, batches, image_size=size, weight_gradients=True)
    expected = agflow.calibrate(at_image_size(model, size), batches, weight_gradients=True)
    assert all(
        (found.columns[column] == expected.columns[column]).all() for column in expected.columns
    )
    assert (
        found.image_size == (height, width)
        and found.metadata["agflow.image_size"] == f"{height}x{width}"
    )
    assert (
        found.metadata["agflow.data"] == expected.metadata["agflow.data"]
    )  # of the images as they came
    assert found.model_macs == count_macs(at_image_size(model, size))
    assert expected.image_size is None and resize_of(model) is None


def test_scores_and_plans_carry_the_size_and_budgets_are_of_the_model_at_it(batches, tmp_path):
    model = make("timm")
    statistics = agflow.calibrate(model, batches, image_size=16)
    plan = agflow.plan(statistics, macs=0.6, allocation=Allocation(round_to=1))
    assert agflow.score(statistics).image_size == plan.image_size == (16, 16) and "at 16x16" in str(
        plan
    )
    assert (
        plan.model_macs == count_macs(at_image_size(model, 16))
        and plan.macs <= 0.6 * plan.model_macs
    )
    plan.save(tmp_path / "plan.arrow")
    assert agflow.Plan.load(tmp_path / "plan.arrow").image_size == (16, 16)
    assert agflow.plan(agflow.calibrate(model, batches), macs=0.6).image_size is None


def test_statistics_of_two_sizes_do_not_merge(batches):
    model = make("timm")
    whole, small = (agflow.calibrate(model, batches, image_size=size) for size in (None, 16))
    with pytest.raises(InvalidValueError, match="MACs"):
        whole.merge(small)
    assert small.merge(small).image_size == (16, 16)


@pytest.mark.parametrize(
    ("name", "compensate"),
    [
        ("timm", "ridge"),
        ("timm_distilled", "none"),
        ("torchvision", "mean"),
        ("transformers_deit", "ridge_at_once"),
    ],
)
def test_a_plan_at_a_size_cuts_the_model_at_that_size(name, compensate, batches):
    model = make(name)
    plan = agflow.plan(
        agflow.calibrate(model, batches, image_size=16), macs=0.7, allocation=Allocation(round_to=1)
    )
    light = agflow.prune(model, plan, batches, compensate=compensate)
    expected = agflow.prune(at_image_size(model, 16), plan, batches, compensate=compensate)
    x = batches[0][0]
    assert torch.equal(logits_of(light(x)), logits_of(expected(x)))
    assert (
        image_size(light) == (16, 16)
        and count_macs(light) == plan.macs
        and resize_of(model) is None
    )


@pytest.mark.parametrize("name", ["timm_registers", "torchvision", "transformers_deit"])
def test_the_whole_pipeline_at_a_quarter_of_the_patches(name, batches, tmp_path):
    heavy = make(name)
    plan = agflow.plan(
        agflow.calibrate(heavy, batches, image_size=16, groups=("mlp", "heads", "block")),
        macs=0.8,
        allocation=Allocation(round_to=1),
    )
    light = agflow.prune(heavy, plan, batches, compensate="ridge_at_once")
    history = agflow.finetune(light, batches, epochs=1, distillation=Distillation(heavy))
    assert math.isfinite(history[-1]["loss"])
    assert agflow.evaluate(light, batches).images == 32
    predictions = agflow.predict(light, heavy, batches)
    assert int(predictions.metadata["agflow.light_cost"]) == plan.macs == count_macs(light)
    cascade = agflow.Cascade(light, heavy, 0.5)
    assert cascade(batches[0][0]).shape == (8, 10) and cascade.costs.light == plan.macs
    agflow.save(light, tmp_path / "light", plan=plan)
    assert torch.equal(
        logits_of(agflow.load(tmp_path / "light")(batches[0][0])),
        logits_of(light.eval()(batches[0][0])),
    )


def test_deit_tiny_at_112_is_what_timm_makes_of_its_weights(deit, folder, photographs):
    small = at_image_size(deit[0], 112)
    timms = timm.create_model("deit_tiny_patch16_224", img_size=112)
    timm.models.load_checkpoint(
        timms,
        folder / "deit_tiny_patch16_224.safetensors",
        filter_fn=timm.models.vision_transformer.checkpoint_filter_fn,
    )
    timms.eval()
    images = next(iter(photographs))[0]
    with torch.no_grad():
        assert torch.equal(
            small(images), timms(F.interpolate(images, (112, 112), mode="bilinear", antialias=True))
        )
    assert count_macs(small) / count_macs(deit[0]) == pytest.approx(0.2268, abs=1e-4)
