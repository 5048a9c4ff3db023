"""Capture and calibration: the right numbers, without copies, and the model is restored."""

import copy
import gc
import json
import subprocess
import sys
import weakref

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest
import torch
from torch.nn import functional as F

from agflow._core.loader import core
from agflow.calibration.calibration import calibrate
from agflow.calibration.hooks import capture
from agflow.calibration.loss import per_image_loss
from agflow.calibration.options import CalibrationOptions
from agflow.errors import (
    DeviceError,
    EmptyError,
    FileError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
)
from agflow.models import adapter_for, count_macs, count_params


def layers_of(model):
    """The layers of the two groups calibrated by default; test_groups.py has the others."""
    return [layer for layer in adapter_for(model).layers(model) if layer.kind in ("mlp", "heads")]


def collected(model, images, labels, split):
    """{layer: (Y [R, C], G [R, C])} copies of what capture hands out, batches in order."""
    layers = layers_of(model)
    found = {layer.name: [] for layer in layers}
    with capture(
        model,
        layers,
        lambda index, count, y, g: found[layers[index].name].append((y.clone(), g.clone())),
    ):
        for x, y in zip(images.split(split), labels.split(split), strict=True):
            per_image_loss(model(x), y).backward()
    return {
        name: tuple(torch.cat(part) for part in zip(*pairs, strict=True))
        for name, pairs in found.items()
    }


def test_captured_gradients_equal_plain_autograd(vit, images):
    """The reference keeps every weight trainable and asks autograd for ∂L/∂Y itself."""
    captured = collected(vit, *images, split=8)
    kept = {}
    layers = layers_of(vit)
    handles = [
        vit.get_submodule(layer.reader).register_forward_pre_hook(
            lambda _, y, name=layer.name: kept.__setitem__(name, y[0])
        )
        for layer in layers
    ]
    loss = F.cross_entropy(vit(images[0]), images[1], reduction="sum")
    gradients = torch.autograd.grad(loss, [kept[layer.name] for layer in layers])
    for handle in handles:
        handle.remove()
    for layer, gradient in zip(layers, gradients, strict=True):
        y_RC, g_RC = captured[layer.name]
        torch.testing.assert_close(y_RC, kept[layer.name].flatten(0, 1))
        torch.testing.assert_close(g_RC, gradient.flatten(0, 1))


@pytest.mark.parametrize("split", [1, 3, 5])
def test_gradients_do_not_depend_on_the_batch_size(vit, images, split):
    whole, parts = collected(vit, *images, split=8), collected(vit, *images, split=split)
    for name, (y_RC, g_RC) in whole.items():
        torch.testing.assert_close(parts[name][0], y_RC, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(parts[name][1], g_RC, rtol=1e-4, atol=1e-6)


def test_views_lie_where_autograd_keeps_the_tensors(make_vit, images):
    model = make_vit()
    layers = layers_of(model)
    seen, autograd = {}, {}

    def remember(module, inputs):
        inputs[0].register_hook(lambda g: autograd.setdefault((module, "g"), g.data_ptr()) and None)
        autograd[module, "y"] = inputs[0].data_ptr()

    def sink(index, count, y, g):
        assert count == 8 and y.shape == g.shape == (
            8 * 17,
            layers[index].units * layers[index].unit_width,
        )
        assert (
            y.is_contiguous() and g.is_contiguous() and not y.requires_grad and not g.requires_grad
        )
        seen[index] = y.data_ptr(), g.data_ptr()

    with capture(model, layers, sink):
        for (
            layer
        ) in layers:  # after capture's own hooks, so that the first y already requires its gradient
            model.get_submodule(layer.reader).register_forward_pre_hook(remember)
        per_image_loss(model(images[0]), images[1]).backward()
    for index, layer in enumerate(layers):
        reader = model.get_submodule(layer.reader)
        assert seen[index] == (autograd[reader, "y"], autograd[reader, "g"])


def test_a_gradient_that_is_not_contiguous_is_straightened(make_vit, images):
    model = make_vit(global_pool="avg")
    layers = [layer for layer in layers_of(model) if layer.name == "blocks.2.mlp"]
    model.blocks[2].mlp.fc2.forward = lambda y: y.sum(-1, keepdim=True).expand(
        *y.shape[:-1], 48
    )  # expanded gradient
    pairs = []
    with capture(model, layers, lambda *pair: pairs.append(pair)):
        per_image_loss(model(images[0]), images[1]).backward()
    assert pairs[0][3].is_contiguous() and pairs[0][3].shape == (8 * 17, 96)


def test_activations_are_let_go_one_by_one(make_vit, images):
    """At a layer's backward, the activations after it are free, although the loss is alive."""
    model = make_vit()
    layers = layers_of(model)
    seen = []

    def sink(index, count, y, g):
        assert all(earlier() is None for earlier in seen)
        seen.append(weakref.ref(y.untyped_storage()))

    with capture(model, layers, sink):
        loss = per_image_loss(model(images[0]), images[1])
        loss.backward()
    assert len(seen) == len(layers) and all(
        storage() is None for storage in seen[:-1]
    )  # the gradients end in the last one


def test_activations_are_freed_with_the_graph(make_vit, images):
    model = make_vit()
    layers = layers_of(model)
    alive = []
    gc.disable()
    try:
        with capture(model, layers, lambda *_: None):
            model.blocks[0].mlp.fc2.register_forward_pre_hook(
                lambda _, y: alive.append(weakref.ref(y[0]))
            )
            per_image_loss(model(images[0]), images[1]).backward()
            assert alive[0]() is None, (
                "an activation outlives its graph until the garbage collector runs"
            )
    finally:
        gc.enable()


def test_importing_the_torch_side_loads_no_native_part():
    modules = (
        "calibration.calibration, agflow.calibration.gather, agflow.data.datasets, "
        "agflow.diagnostics.units, agflow.models.expert, agflow.models.load, "
        "agflow.pruning.least_squares, agflow.pruning.pruner, agflow.training.finetuning"
    )
    check = f"import sys, agflow.{modules}\nassert 'agflow._core._native' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)


class Stop(Exception):
    pass


def test_model_is_given_back_even_after_an_error(make_vit, images):
    model = make_vit()
    model.blocks[1].train()
    model.pos_embed.requires_grad_(False)
    model.register_forward_hook(lambda *_: None)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    before = (
        [(p.requires_grad, p.grad) for p in model.parameters()],
        [m.training for m in model.modules()],
        [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()],
    )

    def sink(*_):
        assert not any(p.requires_grad for p in model.parameters()) and not any(
            m.training for m in model.modules()
        )
        raise Stop

    layers = layers_of(model)
    with pytest.raises(Stop), capture(model, layers, sink):
        per_image_loss(model(images[0]), images[1]).backward()
    after = (
        [(p.requires_grad, p.grad) for p in model.parameters()],
        [m.training for m in model.modules()],
        [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()],
    )
    assert after == before
    assert model.blocks[1].mlp.fc1.weight.grad is None


def test_loss_refusals():
    with pytest.raises(
        InvalidValueError, match="labels run from 3 to 12, the model has 10 classes"
    ):
        per_image_loss(torch.zeros(2, 10), torch.tensor([3, 12]))
    with pytest.raises(ShapeError, match="expected \\[images, classes\\]"):
        per_image_loss(torch.zeros(2, 10), torch.tensor([3]))


def check_against_numpy(model, images, split):
    """Every sum, from batches of ``split`` images, equals numpy's float64 chain over rows."""
    x, labels = images
    statistics = calibrate(model, list(zip(x.split(split), labels.split(split), strict=True)))
    captured = collected(model, x, labels, split=split)
    columns = statistics.columns
    for layer in layers_of(model):
        y, g = (part.double().numpy() for part in captured[layer.name])
        rows = statistics.rows_of(layer.name)
        per_channel = {
            "sum_abs_yg": np.abs(y * g),
            "sum_yg": y * g,
            "sum_yg2": (y * g) ** 2,
            "sum_abs_y": np.abs(y),
            "sum_y": y,
            "sum_y2": y * y,
            "sum_g2": g * g,
        }
        for name, values_RC in per_channel.items():
            sums = np.add.accumulate(values_RC, axis=0)[-1].reshape(layer.units, layer.unit_width)
            assert np.array_equal(np.add.accumulate(sums, axis=1)[:, -1], columns[name][rows]), name
        largest = np.abs(y * g).max(0).reshape(layer.units, layer.unit_width).max(1)
        assert np.array_equal(largest, columns["max_abs_yg"][rows])
        assert set(columns["rows"][rows]) == {len(y)} and set(columns["samples"][rows]) == {len(x)}
        assert set(columns["batches"][rows]) == {-(-len(x) // split)}
    return statistics


def columns_equal(one, other):
    return all(np.array_equal(one.columns[name], other.columns[name]) for name in one.columns)


def test_statistics_equal_numpy_float64_bit_for_bit(vit, images):
    check_against_numpy(vit, images, split=5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_models_of_every_type_are_measured_in_it(make_vit, images, dtype):
    """The core widens what torch computed in the model's type: numpy's float64 sums."""
    model = make_vit().to(dtype)
    x, labels = images
    statistics = check_against_numpy(model, (x.to(dtype), labels), split=5)
    batches = list(zip(x.split(5), labels.split(5), strict=True))
    from_float32 = calibrate(model, batches)
    assert columns_equal(statistics, from_float32), "images are cast to the model's type"


def test_autocast_is_measured_in_its_own_type(make_vit, images):
    with torch.autocast("cpu", torch.bfloat16):
        assert {y.dtype for y, _ in collected(make_vit(), *images, split=5).values()} == {
            torch.bfloat16
        }
        check_against_numpy(make_vit(), images, split=5)


def test_statistics_of_deit_tiny_equal_numpy_float64_bit_for_bit(deit, photographs):
    images = tuple(torch.cat(part) for part in zip(*photographs, strict=True))
    check_against_numpy(deit[0], images, split=8)


def test_weight_sums_cover_the_units_parameters(vit, images):
    statistics = calibrate(vit, [images])
    adapter = adapter_for(vit)
    for layer in layers_of(vit):
        rows = statistics.rows_of(layer.name)
        square_U = sum(
            (weight.detach().double() ** 2).sum(1 - axis).reshape(layer.units, -1).sum(1)
            for weight, axis in adapter.weights(vit, layer)
        )
        np.testing.assert_allclose(statistics.columns["sum_w2"][rows], square_U.numpy(), rtol=1e-12)


def test_weight_gradients_are_those_of_ordinary_training(vit, images):
    """sum_wg over batches of 3 equals Σ w · w.grad of one backward pass in float64."""
    trained = copy.deepcopy(vit)
    F.cross_entropy(trained(images[0]), images[1], reduction="sum").backward()
    gradients = copy.deepcopy(trained)
    for parameter, trained_parameter in zip(
        gradients.parameters(), trained.parameters(), strict=True
    ):
        parameter.data = trained_parameter.grad
    statistics = calibrate(
        vit,
        list(zip(images[0].split(3), images[1].split(3), strict=True)),
        weight_gradients=True,
    )
    assert np.array_equal(statistics.columns["weight_gradients"], statistics.columns["weights"])
    adapter = adapter_for(vit)
    for layer in layers_of(vit):
        pairs = zip(adapter.weights(vit, layer), adapter.weights(gradients, layer), strict=True)
        by_unit = [
            (w.double() * g.double())
            .detach()
            .transpose(0, axis)
            .reshape(layer.units, -1)
            .sum(1)
            .numpy()
            for (w, axis), (g, _) in pairs
        ]
        found = statistics.columns["sum_wg"][statistics.rows_of(layer.name)]
        np.testing.assert_allclose(found, sum(by_unit), rtol=1e-4, atol=1e-5 * np.abs(found).max())


def test_weight_gradients_change_nothing_else(make_vit, images):
    model = make_vit()
    kept = {
        name: torch.full_like(parameter, 3)
        for name, parameter in model.named_parameters()
        if "qkv" in name
    }
    for name, gradient in kept.items():
        model.get_parameter(name).grad = gradient
    model.blocks[0].mlp.fc1.weight.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    plain, with_gradients = (
        calibrate(model, [images], weight_gradients=wanted) for wanted in (False, True)
    )
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is kept.get(name) for name, parameter in model.named_parameters())
    assert all(bool((gradient == 3).all()) for gradient in kept.values())
    of_gradients = ("weight_gradients", "sum_wg")
    assert all(
        np.array_equal(plain.columns[name], column)
        for name, column in with_gradients.columns.items()
        if name not in of_gradients
    )
    assert not plain.columns["weight_gradients"].any() and not plain.columns["sum_wg"].any()


def test_weight_gradients_are_summed_wider_than_sixteen_bits(make_vit, images):
    """Sixteen equal batches have sixteen times the gradient of one.

    Additions in bfloat16 would already be off by 2⁻⁹.
    """
    model = make_vit().bfloat16()
    one, sixteen = (
        calibrate(model, [images] * count, weight_gradients=True).columns["sum_wg"]
        for count in (1, 16)
    )
    np.testing.assert_allclose(sixteen, 16 * one, rtol=1e-5, atol=1e-6 * np.abs(sixteen).max())


def test_an_error_gives_the_gradients_back(make_vit, images):
    model = make_vit()
    kept = model.blocks[1].mlp.fc1.weight.grad = torch.ones_like(model.blocks[1].mlp.fc1.weight)
    with pytest.raises(InvalidValueError, match="labels run"):
        calibrate(model, [images, (images[0], images[1] + 9)], weight_gradients=True)
    assert (
        model.blocks[1].mlp.fc1.weight.grad is kept and model.blocks[0].mlp.fc1.weight.grad is None
    )


def test_batches_that_are_not_finite_are_skipped_and_counted(make_vit, images):
    """As if the batch had not been there, in every sum, gradients of weights included."""
    model = make_vit()
    broken = images[0] * float("nan"), images[1]
    with pytest.warns(UserWarning, match=r"left out of 6 layers.*blocks.0.attn \(2\)") as warned:
        statistics = calibrate(
            model,
            [broken, images, broken],
            weight_gradients=True,
            options=CalibrationOptions(nonfinite="skip"),
        )
    assert len(warned) == 1 and warned[0].filename == __file__
    layers = [layer.name for layer in layers_of(model)]
    assert json.loads(statistics.metadata["agflow.skipped"]) == dict.fromkeys(layers, 2)
    assert columns_equal(statistics, calibrate(model, [images], weight_gradients=True))


def test_only_the_layers_that_are_not_finite_are_skipped(make_vit, images):
    """A gradient that becomes infinite leaves only the layers before it without sums."""
    model = make_vit()
    passes = []

    def spoil(module, inputs):
        passes.append(None)
        if len(passes) == 2:
            inputs[0].register_hook(lambda gradient: gradient * float("inf"))

    model.blocks[1].mlp.fc1.register_forward_pre_hook(spoil)
    batches = list(zip(images[0].split(3), images[1].split(3), strict=True))
    with pytest.warns(UserWarning, match="left out of 3 layers"):
        statistics = calibrate(model, batches, options=CalibrationOptions(nonfinite="skip"))
    spoiled = {"blocks.0.attn": 1, "blocks.0.mlp": 1, "blocks.1.attn": 1}
    assert json.loads(statistics.metadata["agflow.skipped"]) == spoiled
    for layer in statistics.layers:
        rows = statistics.rows_of(layer.name)
        assert set(statistics.columns["batches"][rows]) == {3 - spoiled.get(layer.name, 0)}
        assert set(statistics.columns["samples"][rows]) == {8 - 3 * spoiled.get(layer.name, 0)}


def test_a_layer_without_a_finite_batch_is_an_error(make_vit, images):
    broken = images[0] * float("nan"), images[1]
    with pytest.raises(
        NonFiniteError, match="all 2 batches of blocks.0.attn, .* hold NaN or infinity"
    ):
        calibrate(make_vit(), [broken, broken], options=CalibrationOptions(nonfinite="skip"))
    assert core().sessions() == 0


def test_nothing_skipped_is_not_mentioned(make_vit, images, recwarn):
    assert (
        "agflow.skipped"
        not in calibrate(
            make_vit(), [images], options=CalibrationOptions(nonfinite="skip")
        ).metadata
    )
    assert not recwarn.list


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_model_on_cuda_is_measured_there(make_vit, images, dtype, tmp_path):
    """The sums equal numpy's of what is captured; images are moved, the model is not."""
    model = make_vit().to("cuda", dtype)
    captured = collected(model, images[0].to("cuda", dtype), images[1].cuda(), split=5)
    batches = list(zip(images[0].split(5), images[1].split(5), strict=True))
    statistics = calibrate(
        model, batches, weight_gradients=True, options=CalibrationOptions(dump=tmp_path)
    )
    assert next(model.parameters()).is_cuda and len(list(tmp_path.iterdir())) == 3
    on_cpu = calibrate(make_vit().double(), batches, weight_gradients=True)
    for layer in statistics.layers:
        rows = statistics.rows_of(layer.name)
        y, g = (part.double().cpu() for part in captured[layer.name])
        expected_U = (y * g).abs().sum(0).reshape(layer.units, -1).sum(1).numpy()
        np.testing.assert_allclose(statistics.columns["sum_abs_yg"][rows], expected_U, rtol=1e-4)
        tolerance = 1e-6 if dtype is torch.float64 else 1e-2
        found, expected = statistics.columns["sum_wg"][rows], on_cpu.columns["sum_wg"][rows]
        if dtype is not torch.bfloat16:
            np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())
    assert statistics.metadata["agflow.data"] == on_cpu.metadata["agflow.data"]


def test_metadata_says_where_the_numbers_come_from(make_vit, images):
    model = make_vit()
    whole = calibrate(model, [images], options=CalibrationOptions(seed=7))
    parts = calibrate(
        model,
        list(zip(images[0].split(3), images[1].split(3), strict=True)),
        options=CalibrationOptions(seed=7),
    )
    other = calibrate(model, [(images[0], images[1].flip(0))])
    assert (
        whole.metadata["agflow.data"]
        == parts.metadata["agflow.data"]
        != other.metadata["agflow.data"]
    )
    assert whole.metadata["agflow.seed"] == "7" and "sum" in whole.metadata["agflow.loss"]
    assert (whole.model, whole.model_macs) == ("VisionTransformer", count_macs(model))
    assert int(whole.metadata["agflow.model_params"]) == count_params(model)


def test_only_the_asked_groups_and_batches_are_taken(make_vit, images):
    taken = []

    def stream():
        for number in range(5):
            taken.append(number)
            yield images

    statistics = calibrate(make_vit(), stream(), batches=2, groups=["heads"])
    assert {layer.group for layer in statistics.layers} == {"heads"} and taken == [0, 1]


def test_calibration_works_inside_no_grad(make_vit, images):
    with torch.no_grad():
        statistics = calibrate(make_vit(), [images])
    assert statistics.columns["sum_abs_yg"].min() > 0


def test_calibration_refusals(make_vit, images, tmp_path):
    model = make_vit()
    with pytest.raises(EmptyError, match="no batch"):
        calibrate(model, [])
    with pytest.raises(InvalidValueError, match="batches is 0"):
        calibrate(model, [images], batches=0)
    with pytest.raises(
        InvalidValueError, match="expected some of: block, embed, head_dim, heads, mlp"
    ):
        calibrate(model, [images], groups=["neurons"])
    with pytest.raises(NonFiniteError, match="blocks"):
        calibrate(model, [(images[0] * float("inf"), images[1])])
    with pytest.raises(
        InvalidValueError, match="nonfinite is 'ignore', expected one of: refuse, skip"
    ):
        calibrate(model, [images], options=CalibrationOptions(nonfinite="ignore"))
    with pytest.raises(InvalidValueError, match="dumped batches are whole"):
        calibrate(model, [images], options=CalibrationOptions(nonfinite="skip", dump=tmp_path))
    with pytest.raises(DeviceError, match="call model.cpu"):
        calibrate(make_vit().to("meta"), [images])
    (tmp_path / "old.arrow").touch()
    with pytest.raises(FileError, match="already holds Arrow files"):
        calibrate(model, [images], options=CalibrationOptions(dump=tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot be made"):
        calibrate(model, [images], options=CalibrationOptions(dump=tmp_path / "file" / "dump"))


def test_no_session_is_left_behind(make_vit, images):
    model = make_vit()
    with pytest.raises(NonFiniteError):
        calibrate(model, [(images[0] * float("nan"), images[1])])
    calibrate(model, [images])
    assert core().sessions() == 0


def test_dumped_tensors_are_plain_arrow(make_vit, images, tmp_path):
    model = make_vit()
    statistics = calibrate(
        model,
        list(zip(images[0].split(5), images[1].split(5), strict=True)),
        options=CalibrationOptions(dump=tmp_path),
    )
    captured = collected(model, *images, split=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "batch-0000.arrow",
        "batch-0001.arrow",
        "weights.arrow",
    ]
    tables = {path.stem: pyarrow.ipc.open_file(path).read_all() for path in tmp_path.iterdir()}
    assert [tables[f"batch-000{i}"].num_rows for i in (0, 1)] == [5, 3] and tables[
        "weights"
    ].num_rows == 1
    for layer in layers_of(model):
        for role, expected in zip("yg", captured[layer.name], strict=True):
            column = pa.concat_arrays(
                [
                    tables[f"batch-000{i}"].column(f"{layer.name}.{role}").combine_chunks()
                    for i in (0, 1)
                ]
            )
            storage = column.storage if isinstance(column, pa.ExtensionArray) else column
            assert np.array_equal(
                storage.flatten().to_numpy().reshape(expected.shape), expected.numpy()
            )
    field = tables["batch-0000"].schema.field("blocks.0.mlp.y")
    assert isinstance(field.type, pa.FixedShapeTensorType) and field.type.shape == [17, 96]
    metadata = tables["weights"].schema.metadata
    assert metadata[b"agflow.data"].decode() == statistics.metadata["agflow.data"]


@pytest.mark.parametrize(
    "dtype, kind",
    [(torch.float64, "float64"), (torch.float16, "float16"), (torch.bfloat16, "uint16")],
)
def test_dumps_of_every_type(make_vit, images, tmp_path, dtype, kind):
    """Arrow has no bfloat16: its bits are uint16 and the field's metadata names the type."""
    model = make_vit().to(dtype)
    calibrate(model, [images], options=CalibrationOptions(dump=tmp_path))
    captured = collected(model, images[0].to(dtype), images[1], split=8)
    table, weights = (
        pyarrow.ipc.open_file(tmp_path / name).read_all()
        for name in ("batch-0000.arrow", "weights.arrow")
    )
    for layer in layers_of(model):
        for role, expected in zip("yg", captured[layer.name], strict=True):
            field = table.schema.field(f"{layer.name}.{role}")
            assert (field.metadata or {}).get(b"agflow.dtype") == (
                b"bfloat16" if dtype is torch.bfloat16 else None
            )
            values = table.column(field.name).combine_chunks().storage.flatten()
            assert str(values.type) == (
                "halffloat" if kind == "float16" else "double" if kind == "float64" else kind
            )
            bits = {8: torch.int64, 2: torch.int16}[dtype.itemsize]
            assert np.array_equal(
                values.to_numpy().view(f"i{dtype.itemsize}"),
                expected.view(bits).numpy().reshape(-1),
            )
    assert weights.schema.field("blocks.0.mlp.w0").type.storage_type.value_type == values.type
