"""Sessions over ONNX files of agflow and of other programs."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import foreign_onnx
import numpy as np
import pytest
from foreign_onnx import write_classifier

from agflow import errors
from agflow._utils.onnx_session import OnnxSession, thread_count
from agflow.exporting.quantized_files import write_quantized

FAR = {"float32": 1e-5, "float64": 1e-5, "float16": 2e-2}


def images(count: int = 7) -> np.ndarray:
    shape = (count, foreign_onnx.CHANNELS, foreign_onnx.HEIGHT, foreign_onnx.WIDTH)
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("dtype", FAR)
@pytest.mark.parametrize("batch", ["N", 1, 3, 16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_strangers_files_give_their_logits(tmp_path, dtype, batch, channels_last):
    path, x = tmp_path / "m.onnx", images()
    weights_FK = write_classifier(path, dtype=dtype, batch=batch, channels_last=channels_last)
    session = OnnxSession(path, threads=1)
    found = session.run(x)
    assert found.dtype == np.float32 and found.shape == (7, foreign_onnx.CLASSES)
    np.testing.assert_allclose(found, x.reshape(7, -1) @ weights_FK, atol=FAR[dtype] * 20)
    assert session.image_size == (foreign_onnx.HEIGHT, foreign_onnx.WIDTH)
    assert (session.channels, session.classes) == (3, foreign_onnx.CLASSES)
    assert session.batch == (None if batch == "N" else batch)
    assert (session.input, session.output, session.metadata) == ("pixels", "scores", {})


def test_arrays_of_any_layout_and_width_are_taken(tmp_path):
    write_classifier(tmp_path / "m.onnx")
    session, x = OnnxSession(tmp_path / "m.onnx"), images()
    expected = session.run(x)
    other = np.asfortranarray(x.astype(np.float64))
    np.testing.assert_array_equal(session.run(other), expected)


def test_probabilities_become_logarithms(tmp_path):
    weights_FK, x = write_classifier(tmp_path / "m.onnx", softmax=True), images()
    found = OnnxSession(tmp_path / "m.onnx").run(x)
    logits = x.reshape(7, -1) @ weights_FK
    expected = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_of_several_outputs_the_logits_are_taken(tmp_path):
    write_classifier(tmp_path / "m.onnx", outputs=("features", "logits"))
    assert OnnxSession(tmp_path / "m.onnx").output == "logits"


def test_metadata_gives_the_size_that_the_graph_leaves_open(tmp_path):
    path = tmp_path / "m.onnx"
    write_classifier(path, size=("h", "w"), metadata='{"name": "own", "image_size": [4, 6]}')
    session = OnnxSession(path)
    assert session.image_size == (4, 6) and session.metadata["name"] == "own"
    assert session.run(images()).shape == (7, foreign_onnx.CLASSES)
    write_classifier(path, size=("h", "w"))
    session = OnnxSession(path)
    assert session.image_size is None and session.classes is None
    assert session.run(images()).shape == (7, foreign_onnx.CLASSES)


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"dtype": "uint8"}, errors.UnsupportedModelError, "pixels tensor\\(uint8\\)"),
        ({"more_inputs": ("mask",)}, errors.UnsupportedModelError, "mask tensor"),
        ({"outputs": ("a", "b")}, errors.UnsupportedModelError, "its outputs are a .*, b "),
        ({"size": (5, 6)}, errors.UnsupportedModelError, "cannot run it: Node .* Incompatible"),
        ({"metadata": "[1]"}, errors.CorruptFileError, "is no JSON object"),
        ({"metadata": "{"}, errors.CorruptFileError, "is no JSON object"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path, arguments, kind, text):
    write_classifier(tmp_path / "m.onnx", **arguments)
    with pytest.raises(kind, match=text) as caught:
        OnnxSession(tmp_path / "m.onnx")
    assert str(tmp_path / "m.onnx") in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(errors.FileError, match="is no file"):
        OnnxSession(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(errors.CorruptFileError, match="damaged or no ONNX model: Protobuf"):
        OnnxSession(tmp_path / "text.onnx")


@pytest.mark.parametrize(
    ("values", "kind", "text"),
    [
        (np.zeros((0, 3, 4, 6), np.float32), errors.EmptyError, "no image"),
        (np.zeros((2, 3, 4, 6), np.uint8), errors.DtypeError, "of uint8"),
        (np.zeros((2, 3, 6, 4), np.float32), errors.ShapeError, r"expected \[B, 3, 4, 6\]"),
        (np.zeros((3, 4, 6), np.float32), errors.ShapeError, r"given \[3, 4, 6\]"),
    ],
)
def test_batches_that_do_not_fit_are_refused(tmp_path, values, kind, text):
    write_classifier(tmp_path / "m.onnx")
    with pytest.raises(kind, match=text):
        OnnxSession(tmp_path / "m.onnx").run(values)


def test_threads(tmp_path, monkeypatch):
    write_classifier(tmp_path / "m.onnx")
    for named, count in {"3": 3, "2,1": 2}.items():
        monkeypatch.setenv("OMP_NUM_THREADS", named)
        assert thread_count() == count
        session = OnnxSession(tmp_path / "m.onnx")
        assert session.threads == count
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert thread_count() >= 1
    with pytest.raises(errors.InvalidValueError, match="threads is 0"):
        OnnxSession(tmp_path / "m.onnx", threads=0)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_an_image_has_the_same_numbers_in_every_batch(tmp_path, threads):
    """Int8 activations are scaled by what is in a pass: a bright neighbour must not change them."""
    path = tmp_path / "m.onnx"
    write_classifier(tmp_path / "float.onnx")
    write_quantized("int8-dynamic", tmp_path / "float.onnx", path, images())
    session, x = OnnxSession(path, threads), images()
    alone = np.concatenate([session.run(x[i : i + 1]) for i in range(len(x))])
    x[3] *= 100
    others = [i for i in range(len(x)) if i != 3]
    np.testing.assert_array_equal(session.run(x)[others], alone[others])


def test_passes_overlap_and_keep_their_order(tmp_path):
    write_classifier(tmp_path / "m.onnx")
    session, x = OnnxSession(tmp_path / "m.onnx", threads=4), images(64)
    expected = np.concatenate([session.run(x[i : i + 1]) for i in range(len(x))])
    with ThreadPoolExecutor(3) as callers:
        for found in callers.map(session.run, [x] * 12):
            np.testing.assert_array_equal(found, expected)


def test_a_session_needs_no_torch(tmp_path):
    write_classifier(tmp_path / "m.onnx")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from agflow._utils.onnx_session import OnnxSession\n"
        "import numpy as np\n"
        f"print(OnnxSession({str(tmp_path / 'm.onnx')!r}).run(np.zeros((2, 3, 4, 6), 'f')).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "(2, 5)\n" and not done.stderr, done.stderr
