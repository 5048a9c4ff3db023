"""Int8 exports: what is chosen and why, what the file says, and whose promise it keeps."""

import dataclasses

import onnx
import pytest
import torch
from small_vits import made, of_timm
from torch import nn

import agflow
from agflow import errors
from agflow._utils.instruction_set import instruction_set
from agflow.evaluation import Estimate
from agflow.exporting import HeldOutImages, Quantization, export_cascade
from agflow.exporting.quantizing import _chosen, batches_of, quantize_file
from agflow.models import at_image_size
from agflow.models.exported import ExportedExpert

IMAGES = 300


def labelled(model, count=IMAGES, size=32, seed=1):
    """Batches of noise, labelled by the model itself, whose accuracy is then 1."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, size, size, generator=generator)
    with torch.no_grad():
        return list(zip(x.split(50), model(x).argmax(1).split(50), strict=True))


def convolutions():
    torch.manual_seed(0)
    maps = nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()
    model = nn.Sequential(*maps, nn.Flatten(), nn.Linear(288, 4)).eval()
    model.input_size = (3, 32, 32)
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Models by name, each with its float file."""
    folder = tmp_path_factory.mktemp("float")
    models = {"vit": made(of_timm), "cnn": convolutions()}
    for name, model in models.items():
        agflow.export(model, folder / f"{name}.onnx")
    return {name: (model, folder / f"{name}.onnx") for name, model in models.items()}


def quantized(plain, method, images, folder):
    """What a quantised file is, and where it lies."""
    path = folder / "int8.onnx"
    read = None if images is None else lambda: batches_of(images)
    found, sketch = quantize_file(plain, path, method, read, threads=1)
    assert bool(sketch) == (images is not None)
    return found, path


def operators(path):
    return {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize(
    ("method", "operator", "calibrating"),
    [
        ("int8-dynamic", "DynamicQuantizeLinear", 0),
        ("int8-static", "QuantizeLinear", 128),
        ("int8-weights", "MatMulNBits", 0),
    ],
)
def test_each_method_makes_a_file_and_says_what_it_is(
    exported, method, operator, calibrating, tmp_path
):
    model, plain = exported["vit"]
    found, path = quantized(plain, method, labelled(model), tmp_path)
    assert operator in operators(path) and operator not in operators(plain)
    assert found.method == method and found.measure == "accuracy"
    assert found.calibration_images == calibrating
    assert found.images + calibrating == IMAGES, "what calibrates must not judge"
    assert found.agreement == pytest.approx(1 - found.loss.value) and found.agreement > 0.8
    assert found.loss.low <= found.loss.value <= found.loss.high
    assert found.batch == 32 and found.speedup > 0 and found.threads == 1
    assert found.instruction_set == instruction_set()
    assert f"{found.speedup:.2f}x" in str(found) and "points" in str(found)
    other = labelled(model, 64, seed=2)
    assert agflow.evaluate(ExportedExpert(path), other).top1 > 0.8


def test_an_int8_export_keeps_the_tolerance_and_says_it_in_the_file(tmp_path):
    model, path = convolutions(), tmp_path / "int8.onnx"
    difference = agflow.export(model, path, quantize="int8", images=labelled(model))
    metadata = agflow.load(path).session.metadata
    found = Quantization.of(metadata["quantization"])
    assert 0 < difference < 0.3 and found.loss.value <= 0.005 and found.measure == "accuracy"
    assert metadata["macs"] == agflow.count_macs(model) and len(metadata["tuning"].split()) == 256
    assert [p.name for p in tmp_path.iterdir()] == ["int8.onnx"]


def test_the_fastest_within_the_tolerance_is_chosen():
    def candidate(method, speedup, loss, measure="accuracy"):
        estimate = Estimate(loss, loss - 0.01, loss + 0.01)
        rest = (32, 1, "avx512_vnni", "onnxruntime 1")
        return Quantization(method, 128, 1000, measure, estimate, 0.97, speedup, *rest)

    slow, fast = candidate("int8-static", 1.2, 0.001), candidate("int8-dynamic", 2.0, 0.005)
    lossy = candidate("int8-weights", 3.0, 0.0051)
    assert _chosen({c.method: c for c in (slow, fast, lossy)}) is fast
    assert _chosen({c.method: c for c in (slow, lossy)}) is slow
    with pytest.raises(errors.InvalidValueError) as caught:
        _chosen({lossy.method: lossy})
    assert _chosen({lossy.method: lossy}, strict=False) is lossy
    assert "loses 0.51 points (-0.49 to 1.51) on 1000 images" in str(caught.value)
    assert "quantize='int8-weights'" in str(caught.value)
    with pytest.raises(errors.InvalidValueError, match="give labelled images"):
        _chosen({"int8-weights": dataclasses.replace(lossy, measure="agreement")})


def test_without_labels_changed_answers_count(exported, tmp_path):
    model, plain = exported["cnn"]
    x = torch.cat([images for images, _ in labelled(model)])
    found, _ = quantized(plain, "int8-static", x, tmp_path)
    assert (found.measure, found.images, found.calibration_images) == ("agreement", 172, 128)
    assert found.loss.value == pytest.approx(1 - found.agreement)
    assert "without labels" in str(found)
    found, _ = quantized(plain, "int8-static", [(x[:20],), (x[20:30],)], tmp_path)
    assert (found.images, found.calibration_images) == (15, 15), "at most half of them calibrate"
    with pytest.raises(errors.EmptyError, match="read more than once"):
        quantized(plain, "int8-static", iter([(x,)]), tmp_path)
    with pytest.raises(errors.EmptyError, match="there are 1 images"):
        quantized(plain, "int8-static", x[:1], tmp_path)


def test_convolutions_are_quantised_by_static_ranges_alone(exported, tmp_path):
    model, plain = exported["cnn"]
    _, path = quantized(plain, "int8-static", labelled(model), tmp_path)
    tensors = onnx.load(path).graph.initializer
    eight_bits = [t for t in tensors if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4]
    assert len(eight_bits) == 2, "the weights of both convolutions"
    _, path = quantized(plain, "int8-dynamic", labelled(model), tmp_path)
    assert "Conv" in operators(path) and "ConvInteger" not in operators(path)
    with pytest.raises(errors.UnsupportedModelError, match="int8-weights finds nothing to quant"):
        quantized(plain, "int8-weights", None, tmp_path)


def test_dynamic_and_weights_need_no_images(exported, tmp_path):
    for method in ("int8-dynamic", "int8-weights"):
        found, _ = quantized(exported["vit"][1], method, None, tmp_path)
        assert found.loss is None and found.images == 0 and "was not measured" in str(found)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"quantize": "int4"}, "quantize is 'int4', expected one of int8, int8-dynamic"),
        ({"quantize": "int8"}, "needs images"),
        ({"quantize": "int8-static"}, "needs images"),
        ({"quantize": "int8-dynamic", "format": "torch"}, "int8 files are ONNX files"),
    ],
)
def test_what_cannot_be_quantised_is_refused_before_the_work(arguments, text, tmp_path):
    with pytest.raises(errors.InvalidValueError, match=text):
        agflow.export(convolutions(), tmp_path / "x.onnx", **arguments)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def cascade():
    heavy = made(of_timm)
    light = at_image_size(heavy, 16)
    predictions = agflow.predict(light, heavy, labelled(heavy, 600, seed=3))
    return agflow.Cascade(light, heavy, agflow.calibrate_router(predictions, tolerance=0.2))


@pytest.mark.slow
def test_a_quantised_cascade_has_a_threshold_of_its_own(cascade, tmp_path):
    quantising, held_out = labelled(cascade.heavy), labelled(cascade.heavy, 600, seed=4)
    router = export_cascade(
        cascade,
        tmp_path / "int8",
        quantize="int8-dynamic",
        images=quantising,
        held_out=HeldOutImages(held_out),
    )
    served = agflow.load(tmp_path / "int8")
    x = held_out[0][0]
    assert (served(x).argmax(1) == cascade(x).argmax(1)).float().mean() > 0.8
    assert served.router == router != cascade.router
    assert (router.target, router.limit) == ("accuracy", 0.2) and router.samples == 600
    expected = agflow.predict(served.light, served.heavy, held_out)
    again = agflow.calibrate_router(expected, tolerance=0.2)
    assert again.threshold == router.threshold, "it is of the files that are served"
    readme = (tmp_path / "int8" / "README.md").read_text()
    for text in ("int8, this export", "float32, torch", instruction_set(), "int8-dynamic, "):
        assert text in readme
    assert readme.count("0.2") >= 2 and f"{router.threshold:.6g}" in readme
    with pytest.raises(errors.InvalidValueError, match="also tuned an expert"):
        export_cascade(
            cascade,
            tmp_path / "x",
            quantize="int8-dynamic",
            images=quantising,
            held_out=HeldOutImages(quantising, tolerance=0.5),
        )
    assert not (tmp_path / "x").exists()


def test_a_quantised_cascade_is_not_routed_by_another_pairs_threshold(cascade, tmp_path):
    images = labelled(cascade.heavy, 100)
    with pytest.raises(errors.InvalidValueError, match="give held_out=HeldOutImages"):
        export_cascade(cascade, tmp_path / "x", quantize="int8", images=images)
    with pytest.raises(errors.InvalidValueError, match="held_out is given without quantize"):
        export_cascade(cascade, tmp_path / "x", held_out=HeldOutImages(images))
    shared = agflow.Cascade(cascade.heavy, cascade.heavy, cascade.router, shared_blocks=1)
    with pytest.raises(errors.InvalidValueError, match="shares 1 blocks .* without a shared pref"):
        export_cascade(
            shared, tmp_path / "x", quantize="int8", images=images, held_out=HeldOutImages(images)
        )
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_experts_with_a_shared_prefix_are_quantised_without_it(cascade, tmp_path):
    """The cure that the refusal names, from a folder to a folder."""
    heavy = cascade.heavy
    router = agflow.calibrate_router(
        agflow.predict(heavy, heavy, labelled(heavy, 600, seed=3), shared_blocks=1), tolerance=0.2
    )
    shared = agflow.Cascade(heavy, heavy, router, shared_blocks=1)
    agflow.save(agflow.Cascade(shared.light, shared.heavy, shared.router), tmp_path / "apart")
    found = export_cascade(
        agflow.load(tmp_path / "apart"),
        tmp_path / "int8",
        quantize="int8-dynamic",
        images=labelled(heavy),
        held_out=HeldOutImages(labelled(heavy, 600, seed=4)),
    )
    served = agflow.load(tmp_path / "int8")
    assert served.shared_blocks == 0 and served.router == found
    assert router.ledger.shared_cost > 0 and found.ledger.shared_cost == 0
    x = labelled(heavy, 50, seed=5)[0][0]
    assert (served(x).argmax(1) == shared(x).argmax(1)).float().mean() > 0.8
