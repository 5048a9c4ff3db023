"""Choices of units in the core: top k, diagnoses, stability, the test against random ones."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from agflow._core import arrow
from agflow._core.loader import core
from agflow.errors import AgflowError, DtypeError, InvalidValueError, NonFiniteError, ShapeError


def top_k(scores, k, workers=1):
    return arrow.call_for_array(core().top_k, k, workers, arrow.matrix(scores[:, None], "scores"))


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(-3, 3), max_size=300),
    share=st.floats(0, 1),
    workers=st.integers(1, 4),
)
def test_top_k_is_numpys_stable_sort(values, share, workers):
    """Of equal scores the lower indices."""
    scores, k = np.array(values, np.float64), int(share * len(values))
    expected = np.zeros(len(values), bool)
    expected[np.argsort(-scores, kind="stable")[:k]] = True
    kept = top_k(scores, k, workers)
    assert kept.type == pa.bool_() and kept.to_pylist() == expected.tolist()


@pytest.mark.parametrize(
    ("scores", "k", "error"),
    [
        (np.ones(3), 4, InvalidValueError),
        (np.ones(3), -1, InvalidValueError),
        (np.array([1.0, np.nan]), 1, NonFiniteError),
        (np.ones(6)[::2], 1, ShapeError),
        (np.ones(3, np.float32), 1, (DtypeError, ShapeError)),
    ],
)
def test_top_k_refuses(scores, k, error):
    with pytest.raises(error):
        top_k(scores, k)


def test_workers_have_bounds():
    ones = arrow.matrix(np.ones((2, 3)))
    for workers in (0, -1, 2**62, 2**63 - 1):
        for call in (
            lambda workers=workers: top_k(np.ones(3), 1, workers),
            lambda workers=workers: arrow.call_for_array(core().abs_yg, workers, ones, ones),
            lambda workers=workers: arrow.call(core().read_limit, workers, ones),
        ):
            with pytest.raises(InvalidValueError, match="workers"):
                call()


def test_diagnose(statistics):
    report = json.loads(
        arrow.call(
            core().diagnose,
            json.dumps({"criteria": ["agf", "magnitude"], "pruning_ratio": 0.5}),
            statistics,
        )
    )
    assert [entry["criterion"] for entry in report["ranges"]] == ["agf", "magnitude"] and len(
        report["agreements"]
    ) == 1


def test_stability(statistics):
    """Three equal batches: whatever is drawn, the same units are kept."""
    tables = pa.Table.from_batches([statistics] * 3).combine_chunks().to_batches()[0]
    request = {
        "tables": 3,
        "criterion": "agf",
        "pruning_ratio": 0.5,
        "sizes": [1, 2],
        "draws": 5,
        "seed": 1,
    }
    report = json.loads(arrow.call(core().stability, json.dumps(request), tables))
    assert report["batches"] == 3 and [size["overall"]["mean"] for size in report["sizes"]] == [
        1,
        1,
    ]


@pytest.mark.parametrize("tables", [0, -1, 2, 7, 24, 2**62])
def test_stability_refuses_tables_that_do_not_divide(statistics, tables):
    request = {"tables": tables, "criterion": "agf", "pruning_ratio": 0.5, "sizes": [1], "draws": 1}
    stacked = pa.Table.from_batches([statistics] * 3).combine_chunks().to_batches()[0]
    with pytest.raises(AgflowError):
        arrow.call(core().stability, json.dumps(request), stacked)


def test_against_random():
    trial = {"images": 100, "correct": 90, "random_correct": [80] * 39, "confidence": 0.95}
    verdict = json.loads(core().against_random(json.dumps(trial)))
    assert verdict["verdict"] == "better than random here" and verdict["p_value"] == 1 / 40
    for change in ({"images": 0}, {"random_correct": []}, {"confidence": 2}):
        with pytest.raises(AgflowError):
            core().against_random(json.dumps({**trial, **change}))


def test_kernel():
    assert core().kernel() in ("avx2", "portable")
