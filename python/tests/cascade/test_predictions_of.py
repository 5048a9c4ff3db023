"""Predictions of any two systems: logits, classes and priors of every array library."""

import array
import decimal
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

import agflow
from agflow.cascade import CascadeCosts, join_predictions
from agflow.errors import AgflowError, DtypeError, InvalidValueError, NonFiniteError, ShapeError

N, K = 240, 3
CHOSEN = np.random.default_rng(0)
LABELS = CHOSEN.integers(0, K, N)
HEAVY = (6 * np.eye(K)[LABELS] + CHOSEN.normal(size=(N, K))).astype(np.float32)
LIGHT = (2 * np.eye(K)[LABELS] + CHOSEN.normal(size=(N, K))).astype(np.float32)
NAMES = ["cat", "dog", "eel"]
COSTS = (0.25, 1.0)
EXPECTED = join_predictions(
    *map(torch.from_numpy, (LIGHT, HEAVY, LABELS)), CascadeCosts(0.25, 1.0, unit="x")
)


def lists(kind):
    return pa.array(LIGHT.tolist(), kind)


def without_names(table):
    return {str(number): column for number, column in enumerate(table.T)}


class ByDlpack:
    """An array of a library that numpy does not know."""

    def __dlpack__(self, **options):
        return LIGHT.__dlpack__(**options)

    def __dlpack_device__(self):
        return LIGHT.__dlpack_device__()


class ByStream:
    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


def read_only(values):
    values = values.copy()
    values.flags.writeable = False
    return values


LOGITS = {
    "numpy": LIGHT,
    "Fortran order": np.asfortranarray(LIGHT),
    "every second": np.repeat(LIGHT, 2, axis=0)[::2],
    "backwards": LIGHT[::-1][::-1],
    "read-only": read_only(LIGHT),
    "big-endian": LIGHT.astype(">f4"),
    "masked, none masked": np.ma.masked_array(LIGHT),
    "objects": LIGHT.astype(object),
    "structured": np.rec.fromarrays(LIGHT.T, names="c0,c1,c2"),
    "memoryview": memoryview(LIGHT),
    "torch": torch.from_numpy(LIGHT),
    "torch with a graph": torch.from_numpy(LIGHT).clone().requires_grad_() * 1,
    "torch, transposed": torch.from_numpy(LIGHT.T.copy()).T,
    "torch, sparse": torch.from_numpy(LIGHT).to_sparse(),
    "lists": LIGHT.astype(object).tolist(),
    "tuples": tuple(map(tuple, LIGHT.tolist())),
    "batches of tensors": list(torch.from_numpy(LIGHT).split(100)),
    "batches of arrays": np.array_split(LIGHT, 3),
    "rows as arrays": list(LIGHT),
    "rows as tensors": list(torch.from_numpy(LIGHT)),
    "dictionary of columns": without_names(LIGHT),
    "pandas": pd.DataFrame(LIGHT),
    "pandas, nullable": pd.DataFrame(LIGHT).astype("Float32"),
    "pandas, own index": pd.DataFrame(LIGHT, index=np.arange(N)[::-1]),
    "pandas column of lists": pd.Series(list(LIGHT)),
    "polars": pl.DataFrame(LIGHT),
    "polars column of arrays": pl.Series(LIGHT),
    "polars column of lists": pl.Series(LIGHT.tolist(), dtype=pl.List(pl.Float32)),
    "polars, chunked": pl.concat([pl.DataFrame(LIGHT[:7]), pl.DataFrame(LIGHT[7:])], rechunk=False),
    "Arrow table": pa.table(without_names(LIGHT)),
    "Arrow batch": pa.record_batch(without_names(LIGHT)),
    "Arrow structs": pa.table(without_names(LIGHT)).to_struct_array(),
    "Arrow reader": pa.table(without_names(LIGHT)).to_reader(),
    "Arrow stream": ByStream(pa.table(without_names(LIGHT))),
    "fixed-size lists": lists(pa.list_(pa.float32(), K)),
    "lists of any size": lists(pa.list_(pa.float32())),
    "large lists": lists(pa.large_list(pa.float32())),
    "list views": lists(pa.list_view(pa.float32())),
    "sliced lists": pa.array(np.r_[LIGHT, LIGHT].tolist(), pa.list_(pa.float32(), K))[N:],
    "chunked lists": pa.chunked_array([lists(pa.list_(pa.float32()))[:7], LIGHT[7:].tolist()]),
    "tensor column": pa.FixedShapeTensorArray.from_numpy_ndarray(LIGHT),
    "agflow's own": agflow.cascade.Logits.of(LIGHT),
    "__dlpack__": ByDlpack(),
}


@pytest.mark.parametrize("form", LOGITS)
def test_logits_of_every_form_are_the_same_predictions(form):
    found = agflow.Predictions.of(LOGITS[form], HEAVY, LABELS, COSTS)
    assert found == EXPECTED, form


@pytest.mark.parametrize("dtype", ["f2", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
def test_logits_of_every_width(dtype):
    values = np.round(LIGHT * 3 + 20).astype(dtype)
    expected = agflow.Predictions.of(values.astype("f4"), HEAVY, LABELS, COSTS)
    wide = pa.array(values.tolist(), pa.list_(pa.from_numpy_dtype(dtype)))
    for form in (values, values.astype(f">{dtype}"), pl.DataFrame(values), wide):
        found = agflow.Predictions.of(form, HEAVY, LABELS, COSTS)
        assert np.array_equal(found["light_prediction"], expected["light_prediction"])
        np.testing.assert_allclose(found["light_prior"], expected["light_prior"], rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float16])
def test_short_floats_of_torch(dtype):
    short = torch.from_numpy(LIGHT).to(dtype)
    found = agflow.Predictions.of(short, HEAVY, LABELS, COSTS)
    assert found == agflow.Predictions.of(short.float(), HEAVY, LABELS, COSTS)
    assert found != EXPECTED


def test_bfloat16_of_numpy_and_decimals():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    short = LIGHT.astype(ml_dtypes.bfloat16)
    whole = LIGHT.round(3).astype("f8")
    texts = [[f"{value:.3f}" for value in row] for row in whole]
    columns = {str(k): [decimal.Decimal(row[k]) for row in texts] for k in range(K)}
    for form, expected in (
        (short, short.astype("f4")),
        (pa.table(columns), whole),
        (columns, whole),
        (pl.DataFrame(columns), whole),
    ):
        found, expected = (
            agflow.Predictions.of(logits, HEAVY, LABELS, COSTS) for logits in (form, expected)
        )
        np.testing.assert_allclose(found["light_prior"], expected["light_prior"], rtol=1e-6)
        assert np.array_equal(found["light_prediction"], expected["light_prediction"])


LABEL_FORMS = {
    "list": LABELS.tolist(),
    "column": LABELS[:, None],
    "floats": LABELS.astype("f4"),
    "uint8": LABELS.astype("u1"),
    "big-endian": LABELS.astype(">i2"),
    "torch": torch.from_numpy(LABELS),
    "torch of int8": torch.from_numpy(LABELS).to(torch.int8),
    "batches": list(torch.from_numpy(LABELS).split(50)),
    "array.array": array.array("i", LABELS.tolist()),
    "pandas": pd.Series(LABELS),
    "pandas, nullable": pd.Series(LABELS, dtype="Int16"),
    "pandas frame": pd.DataFrame({"label": LABELS}),
    "pandas, split": pd.Series(LABELS, index=CHOSEN.permutation(N)),
    "polars": pl.Series(LABELS),
    "polars frame": pl.DataFrame({"label": LABELS}),
    "Arrow": pa.array(LABELS, pa.uint16()),
    "chunked": pa.chunked_array([LABELS[:9], LABELS[9:]]),
    "dictionary": pa.array(LABELS).dictionary_encode(),
}


@pytest.mark.parametrize("form", LABEL_FORMS)
def test_labels_of_every_form(form):
    assert agflow.Predictions.of(LIGHT, HEAVY, LABEL_FORMS[form], COSTS) == EXPECTED


WORDS = [NAMES[label] for label in LABELS]


@pytest.mark.parametrize(
    "labels",
    [
        WORDS,
        np.array(WORDS),
        np.array(WORDS, "S"),
        pd.Series(WORDS, dtype="category"),
        pl.Series(WORDS),
        pl.Series(WORDS, dtype=pl.Categorical),
        pa.array(WORDS, pa.large_string()),
        pa.array(WORDS, pa.string_view()),
        pa.array(WORDS).dictionary_encode(),
    ],
    ids=lambda labels: type(labels).__name__ + str(getattr(labels, "dtype", "")),
)
def test_names_are_the_columns(labels):
    order = [2, 0, 1]
    named = pd.DataFrame(LIGHT, columns=NAMES)
    turned = pl.DataFrame(HEAVY[:, order], schema=[f"heavy_{NAMES[k]}" for k in order])
    assert agflow.Predictions.of(named, HEAVY, labels, COSTS) == EXPECTED
    assert agflow.Predictions.of(LIGHT, HEAVY, labels, COSTS, classes=NAMES) == EXPECTED
    turned = turned.rename(lambda name: name.removeprefix("heavy_"))
    assert agflow.Predictions.of(named, turned, labels, COSTS) == EXPECTED


def test_columns_with_prefixes_are_put_in_one_order():
    order = [2, 0, 1]
    light = pd.DataFrame(LIGHT, columns=[f"light_{name}" for name in NAMES])
    heavy = pd.DataFrame(HEAVY[:, order], columns=[f"heavy_{NAMES[k]}" for k in order])
    assert agflow.Predictions.of(light, heavy, LABELS, COSTS) == EXPECTED
    assert agflow.Predictions.of(light, heavy, WORDS, COSTS) == EXPECTED


@pytest.mark.parametrize("classes", [[3, 5, 8], np.array([3.0, 5.0, 8.0]), [-1, 0, 1]])
def test_classes_may_be_numbers(classes):
    labels = np.array(classes)[LABELS]
    assert agflow.Predictions.of(LIGHT, HEAVY, labels, COSTS, classes=classes) == EXPECTED
    light = pd.DataFrame(LIGHT, columns=[int(one) for one in classes])
    assert agflow.Predictions.of(light, HEAVY, labels, COSTS) == EXPECTED


def test_classes_alone_are_routed_by_a_prior_of_their_own():
    confidence = LIGHT.max(1)
    light, heavy = LIGHT.argmax(1), HEAVY.argmax(1)
    for answers in (
        (light, heavy, LABELS),
        ([NAMES[k] for k in light], pl.Series([NAMES[k] for k in heavy]), WORDS),
        (light, HEAVY, LABELS),
        (light.astype("f4")[:, None], heavy.astype(bool) * 0 + heavy, LABELS),
    ):
        priors = pl.DataFrame({"confidence": confidence, "other": -confidence})
        found = agflow.Predictions.of(*answers, COSTS, priors=priors)
        assert found.priors == ["confidence", "other"]
        assert found.light_accuracy == EXPECTED.light_accuracy
        assert found.heavy_accuracy == EXPECTED.heavy_accuracy
        assert agflow.calibrate_router(found, tolerance=0.05).prior == "confidence"


def test_own_priors_stand_beside_those_of_the_logits():
    mine = LIGHT.max(1).astype("f8")
    for priors in ({"mine": mine}, {"mine": mine.tolist()}, pd.DataFrame({"mine": mine})):
        found = agflow.Predictions.of(LIGHT, HEAVY, LABELS, COSTS, priors=priors)
        assert found.priors == [*EXPECTED.priors, "mine"]
        assert np.array_equal(found.prior("mine"), LIGHT.max(1))
        router = agflow.calibrate_router(found, prior="mine", tolerance=0.05)
        assert agflow.evaluate_router(found, router).images == N


def softmax(logits):
    exp = np.exp(logits - logits.max(1, keepdims=True))
    return exp / exp.sum(1, keepdims=True)


def test_probabilities_keep_their_values_as_priors():
    probabilities = softmax(LIGHT.astype("f8"))
    found = agflow.Predictions.of(probabilities, softmax(HEAVY), LABELS, COSTS)
    np.testing.assert_allclose(found["light_prior"], EXPECTED["light_prior"], rtol=1e-5)
    sure = np.eye(K)[LABELS]
    assert (agflow.Predictions.of(sure, HEAVY, LABELS, COSTS)["light_prior"] > 0.999).all()


def test_costs_have_any_unit_and_test_images_the_routers_temperature():
    costs = CascadeCosts(4.2, 17, unit="ms")
    found = agflow.Predictions.of(LIGHT, HEAVY, LABELS, costs)
    assert found.costs == costs and "4.2 ms" in found._repr_html_()
    assert "0.25x" in EXPECTED._repr_html_()
    router = agflow.calibrate_router(found, prior="margin_scaled", tolerance=0.05)
    tested = agflow.Predictions.of(LIGHT[::-1], HEAVY[::-1], LABELS[::-1], costs, router=router)
    assert tested.temperature == router.temperature
    assert agflow.evaluate_router(tested, router).images == N


def test_experts_of_other_numbers_of_classes_have_no_ensemble():
    found = agflow.Predictions.of(LIGHT[:, :2], HEAVY, LABELS, COSTS)
    assert "ensemble_prediction" not in found.columns


def holed(values, row, value):
    values = np.array(values, dtype="f8")
    values[row] = value
    return values


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"light": LIGHT[:-1]}, ShapeError, "light_logits 239, heavy_logits 240, labels 240"),
        ({"labels": LABELS[:5]}, ShapeError, "labels 5, .*same images in the same order"),
        ({"light": LIGHT[None]}, ShapeError, r"light_logits: the shape is \(1, 240, 3\)"),
        ({"heavy": np.float32(3)}, ShapeError, "heavy_logits: got one value"),
        ({"light": LIGHT[:, 0]}, DtypeError, "light_logits: row 0 is .*expected logits"),
        ({"light": LIGHT.argmax(1)}, InvalidValueError, 'priors={"confidence": values}'),
        ({"light": holed(LIGHT, (7, 2), np.nan)}, NonFiniteError, "light expert .*row 7, column 2"),
        ({"heavy": holed(HEAVY, (7, 2), np.inf)}, NonFiniteError, "heavy expert .*row 7, column 2"),
        ({"labels": holed(LABELS, 3, np.nan)}, InvalidValueError, "labels: 1 of 240 .*row 3"),
        ({"labels": [*LABELS[:-1].tolist(), None]}, InvalidValueError, "labels: 1 .*row 239"),
        ({"labels": pl.Series([*LABELS[:-1].tolist(), None])}, InvalidValueError, "row 239"),
        ({"labels": LABELS + 1}, InvalidValueError, "labels run from 1 to 3, .*3 classes"),
        ({"labels": LABELS - 1}, InvalidValueError, "labels: row .* is -1, expected .*from 0"),
        ({"labels": LABELS + 0.5}, DtypeError, "labels: row 0 is .*whole numbers"),
        ({"labels": np.eye(K)[LABELS]}, ShapeError, r"one-hot .*\.argmax\(1\)"),
        ({"labels": WORDS}, InvalidValueError, "columns of light_logits have none: pass classes="),
        ({"labels": pd.date_range("2020", periods=N)}, DtypeError, "labels: the column is time"),
        ({"labels": "labels.npy"}, DtypeError, "labels: got str, .*read a file first"),
        ({"labels": None}, DtypeError, "labels: got NoneType"),
        ({"labels": 1j * LABELS}, DtypeError, "labels: the values are complex128"),
        ({"labels": [*LABELS[:-1].tolist(), object()]}, DtypeError, "labels: .*several types"),
        ({"labels": [[1], [1, 2]]}, ShapeError, "labels: its rows are of different lengths"),
        ({"light": LIGHT.astype(complex)}, DtypeError, "light_logits: the values are complex128"),
        ({"light": LIGHT > 0}, DtypeError, "light_logits: the values are bool"),
        ({"light": np.array([WORDS, WORDS]).T}, DtypeError, "light_logits: the values are texts"),
        ({"light": pl.LazyFrame(LIGHT)}, DtypeError, "light_logits: got LazyFrame.*lazy frame"),
        (
            {"light": pd.DataFrame({"a": LIGHT[:, 0], "id": WORDS})},
            DtypeError,
            "light_logits: the column 'id' holds no numbers",
        ),
        (
            {"light": pd.DataFrame(LIGHT, columns=NAMES), "heavy": pl.DataFrame(HEAVY)},
            InvalidValueError,
            "columns of light_logits are cat, dog, eel and those of heavy_logits column_0",
        ),
        (
            {"light": pd.DataFrame(LIGHT, columns=NAMES), "labels": ["owl"] * N},
            InvalidValueError,
            "labels: 'owl' is none of the classes cat, dog, eel",
        ),
        (
            {
                "light": pd.DataFrame(LIGHT, index=np.arange(N) + 5),
                "labels": pd.Series(LABELS, index=np.arange(N)[::-1]),
            },
            InvalidValueError,
            "index of labels differs from that of light_logits",
        ),
        ({"classes": ["a", "b"]}, ShapeError, r"light_logits: there are 3 columns and 2 classes"),
        ({"classes": "abc"}, InvalidValueError, "classes: got 'abc', expected a list"),
        ({"classes": ["a", "a", "b"]}, InvalidValueError, "classes: .*all different"),
        ({"priors": {"margin": LIGHT[:, 0]}}, InvalidValueError, "priors: margin follows from"),
        ({"priors": {"mine": LIGHT[:5, 0]}}, ShapeError, "labels 240, mine 5"),
        ({"priors": {"mine": LIGHT}}, ShapeError, r"priors\['mine'\]: the shape is"),
        ({"priors": LIGHT[:, 0]}, DtypeError, "priors: got ndarray, expected columns by name"),
        ({"priors": {3: LIGHT[:, 0]}}, InvalidValueError, "priors: the name 3"),
        (
            {"priors": {"mine": holed(LIGHT[:, 0], 4, np.nan)}},
            NonFiniteError,
            r"priors\['mine'\]: 1 of 240 values are not finite, the first nan in row 4",
        ),
        ({"priors": {"mine": LIGHT[:, 0].astype("f8") * 1e300}}, NonFiniteError, "row 0"),
        ({"costs": 0.25}, InvalidValueError, "costs: got 0.25"),
        ({"light": np.ma.masked_greater(LIGHT, 3)}, InvalidValueError, "light_logits: .*missing"),
        ({"light": torch.from_numpy(LIGHT).to("meta")}, DtypeError, "light_logits: Tensor cannot"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_answers_are_one_sentence(change, error, words):
    given = {"light": LIGHT, "heavy": HEAVY, "labels": LABELS, "costs": COSTS, **change}
    light, heavy, labels = (given.pop(name) for name in ("light", "heavy", "labels"))
    with pytest.raises(AgflowError, match=words) as caught:
        agflow.Predictions.of(light, heavy, labels, **given)
    assert type(caught.value) is error and "\n" not in str(caught.value)


WITHOUT_TORCH = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "timm", "torchvision", "transformers", "safetensors"):
            raise ImportError(f"{name} cannot be imported here")

sys.meta_path.insert(0, Refused())
import numpy as np
import agflow

labels = np.arange(900) % 3
noise = np.random.default_rng(0).normal(size=(2, 900, 3))
light, heavy = 3 * np.eye(3)[labels] + noise[0], 9 * np.eye(3)[labels] + noise[1]
predictions = agflow.Predictions.of(light, heavy, labels, costs=(0.25, 1.0))
router = agflow.calibrate_router(predictions, tolerance=0.05, ensemble=True, prior="auto")
found = agflow.evaluate_router(
    agflow.Predictions.of(light, heavy, labels, (0.25, 1.0), router=router), router
)
agflow.cascade.curve(predictions), agflow.cascade.oracle(predictions)
agflow.cascade.rank_priors(predictions), agflow.diagnostics.reliability(predictions)
agflow.plotting.plot_cascade(predictions, router)
router._repr_html_(), predictions._repr_html_(), found._repr_html_()
print(router.verdict, found.images)
"""


def test_routing_of_arrays_runs_where_torch_cannot_be_imported():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, timeout=240
    )
    assert (done.stdout, done.stderr) == ("PASS 900\n", ""), done.stderr
