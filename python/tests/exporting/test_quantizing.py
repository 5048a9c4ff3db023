"""Int8 exports: what is chosen and why, what the file says, and whose promise it keeps."""

import dataclasses
import json

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
from agflow.exporting.quantizing import METHODS, _chosen
from agflow.models import at_image_size

IMAGES = 300


def labelled(model, count=IMAGES, size=32, seed=1):
    """Batches of noise, labelled by the model itself, whose accuracy is then 1."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, size, size, generator=generator)
    with torch.no_grad():
        return list(zip(x.split(50), model(x).argmax(1).split(50), strict=True))


@pytest.fixture(scope="module")
def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(288, 4),
    ).eval()


def operators(path):
    return [node.op_type for node in onnx.load(path).graph.node]


def noted(path):
    return Quantization.of(agflow.load(path).session.metadata["quantization"])


@pytest.mark.parametrize("method", METHODS)
def test_each_method_makes_a_file_that_says_what_it_is(method, tmp_path):
    model, path = made(of_timm), tmp_path / "int8.onnx"
    difference = agflow.export(model, path, quantize=method, images=labelled(model))
    assert 0 < difference < 0.3
    found, words = noted(path), {"int8-weights": "MatMulNBits"}
    word = words.get(method, "DynamicQuantizeLinear" if "dynamic" in method else "QuantizeLinear")
    assert word in operators(path)
    assert found.method == method and found.measure == "accuracy"
    assert found.calibration_images == (128 if method == "int8-static" else 0)
    assert found.images + found.calibration_images == IMAGES, "what calibrates must not judge"
    assert found.agreement == 1 - found.loss.value > 0.8
    assert found.loss.low <= found.loss.value <= found.loss.high
    assert found.batch == 32 and found.speedup > 0
    assert found.threads == torch.get_num_threads()
    assert found.instruction_set == instruction_set()
    assert f"{found.speedup:.2f}x" in str(found) and "points" in str(found)
    other = labelled(model, 64, seed=2)
    agreement = agflow.evaluate(agflow.load(path), other).top1
    assert agreement > 0.8
    assert [p.name for p in tmp_path.iterdir()] == ["int8.onnx"]


def test_int8_takes_one_that_keeps_the_tolerance(convolutions, tmp_path):
    path, images = tmp_path / "int8.onnx", labelled(convolutions)
    agflow.export(convolutions, path, quantize="int8", images=images)
    found = noted(path)
    assert found.loss.value <= 0.005 and found.measure == "accuracy"


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


def test_without_labels_changed_answers_count(convolutions, tmp_path):
    x = torch.cat([images for images, _ in labelled(convolutions)])
    agflow.export(convolutions, tmp_path / "t.onnx", quantize="int8-static", images=x)
    found = noted(tmp_path / "t.onnx")
    assert (found.measure, found.images, found.calibration_images) == ("agreement", 172, 128)
    assert found.loss.value == pytest.approx(1 - found.agreement)
    assert "without labels" in str(found)
    few = [(x[:20],), (x[20:30],)]
    agflow.export(convolutions, tmp_path / "t.onnx", quantize="int8-static", images=few)
    assert (noted(tmp_path / "t.onnx").images, noted(tmp_path / "t.onnx").calibration_images) == (
        15,
        15,
    )


def test_convolutions_are_quantised_by_static_ranges_alone(convolutions, tmp_path):
    images = labelled(convolutions)
    agflow.export(convolutions, tmp_path / "s.onnx", quantize="int8-static", images=images)
    tensors = onnx.load(tmp_path / "s.onnx").graph.initializer
    eight_bits = [t for t in tensors if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4]
    assert len(eight_bits) == 2, "the weights of both convolutions"
    no_linear = nn.Sequential(nn.Conv2d(3, 4, 32), nn.Flatten()).eval()
    no_linear.num_classes = 4
    with pytest.raises(errors.UnsupportedModelError, match="int8-dynamic finds nothing to quant"):
        agflow.export(no_linear, tmp_path / "n.onnx", quantize="int8-dynamic", images=images)
    assert not (tmp_path / "n.onnx").exists()


def test_dynamic_and_weights_need_no_images(tmp_path):
    model = made(lambda: of_timm(depth=1))
    for method in ("int8-dynamic", "int8-weights"):
        agflow.export(model, tmp_path / "d.onnx", quantize=method)
        found = noted(tmp_path / "d.onnx")
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
def test_what_cannot_be_quantised_is_refused_before_the_work(
    convolutions, arguments, text, tmp_path
):
    with pytest.raises(errors.InvalidValueError, match=text):
        agflow.export(convolutions, tmp_path / "x.onnx", **arguments)
    assert not list(tmp_path.iterdir())


def test_images_of_one_reading_and_too_few_are_refused(convolutions, tmp_path):
    images = labelled(convolutions, 100)
    for given, text in ((iter(images), "read more than once"), ([images[0][0][:1]], "1 images")):
        with pytest.raises(errors.EmptyError, match=text):
            agflow.export(convolutions, tmp_path / "x.onnx", quantize="int8-static", images=given)


@pytest.fixture(scope="module")
def cascade():
    heavy = made(of_timm)
    light = at_image_size(heavy, 16)
    predictions = agflow.predict(light, heavy, labelled(heavy, 600, seed=3))
    return agflow.Cascade(light, heavy, agflow.calibrate_router(predictions, tolerance=0.2))


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
    assert served.router == router != cascade.router
    assert (router.target, router.limit) == ("accuracy", 0.2) and router.samples == 600
    expected = agflow.predict(served.light, served.heavy, held_out)
    again = agflow.calibrate_router(expected, tolerance=0.2)
    assert again.threshold == router.threshold, "it is of the files that are served"
    readme = (tmp_path / "int8" / "README.md").read_text()
    for text in ("int8, this export", "float32, torch", instruction_set(), "int8-dynamic, "):
        assert text in readme
    assert readme.count("0.2") >= 2 and f"{router.threshold:.6g}" in readme
    looser = export_cascade(
        cascade,
        tmp_path / "int8",
        quantize="int8-dynamic",
        images=quantising,
        held_out=HeldOutImages(held_out, tolerance=0.5),
    )
    assert looser.limit == 0.5 and looser.threshold <= router.threshold


def test_a_quantised_cascade_is_not_routed_by_another_pairs_threshold(cascade, tmp_path):
    images = labelled(cascade.heavy, 100)
    with pytest.raises(errors.InvalidValueError, match="give held_out=HeldOutImages"):
        export_cascade(cascade, tmp_path / "x", quantize="int8", images=images)
    with pytest.raises(errors.InvalidValueError, match="held_out is given without quantize"):
        export_cascade(cascade, tmp_path / "x", held_out=HeldOutImages(images))
    shared = agflow.Cascade(cascade.heavy, cascade.heavy, cascade.router, shared_blocks=1)
    with pytest.raises(errors.InvalidValueError, match="shares 1 blocks"):
        export_cascade(
            shared, tmp_path / "x", quantize="int8", images=images, held_out=HeldOutImages(images)
        )
    with pytest.raises(errors.InvalidValueError, match="also tuned an expert"):
        export_cascade(
            cascade,
            tmp_path / "x",
            quantize="int8-dynamic",
            images=images,
            held_out=HeldOutImages(images),
        )
    assert not (tmp_path / "x").exists()


def test_exported_cascades_are_loaded_and_damage_is_named(cascade, tmp_path):
    export_cascade(cascade, tmp_path / "e")
    loaded, x = agflow.load(tmp_path / "e"), labelled(cascade.heavy, 20)[0][0]
    torch.testing.assert_close(loaded(x), cascade(x), atol=1e-3, rtol=0)
    assert loaded.router == cascade.router
    with pytest.raises(errors.InvalidValueError, match="leave model out"):
        agflow.load(tmp_path / "e", cascade.heavy)
    router = json.loads((tmp_path / "e" / "router.json").read_text())
    (tmp_path / "e" / "router.json").write_text(json.dumps({**router, "threshold": 0.1}))
    with pytest.raises(errors.CorruptFileError, match="router.json is damaged"):
        agflow.load(tmp_path / "e")
    shared = agflow.Cascade(cascade.heavy, cascade.heavy, cascade.router, shared_blocks=1)
    export_cascade(shared, tmp_path / "s")
    with pytest.raises(errors.UnsupportedModelError, match="is an export of prefix.onnx"):
        agflow.load(tmp_path / "s")
