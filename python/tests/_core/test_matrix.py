"""Matrices of torch, numpy, pyarrow and polars reach Go without a copy; others are refused."""

import ctypes
import gc
import weakref

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch

from agflow._core import arrow
from agflow._core.loader import core
from agflow.errors import DeviceError, DtypeError, InvalidValueError, ShapeError


def test_torch_is_not_copied():
    tensor = torch.randn(5, 6)
    matrix = arrow.matrix(tensor)
    assert (matrix.address, matrix.rows, matrix.channels, matrix.stride) == (
        tensor.data_ptr(),
        5,
        6,
        6,
    )


def test_a_view_into_a_tensor_is_not_copied():
    tensor = torch.randn(8, 6)[3:7]
    assert arrow.matrix(tensor).address == tensor.data_ptr()


def test_numpy_is_not_copied():
    array = np.zeros((5, 6), np.float32)
    assert arrow.matrix(array).address == array.ctypes.data


def test_gradients_are_no_obstacle():
    tensor = torch.nn.Parameter(torch.randn(5, 6))
    assert arrow.matrix(tensor).address == tensor.data_ptr()
    computed = tensor * 2
    assert arrow.matrix(computed).address == computed.data_ptr()


@pytest.mark.parametrize(
    ("value", "stride"),
    [
        (torch.zeros(4, 12)[:, 2:8], 12),  # some channels of each row
        (torch.zeros(8, 6)[::2], 12),  # every other row
        (torch.zeros(3, 5, 6)[:, 0], 30),  # one token of each image
        (torch.zeros(1, 6).expand(1, 6), 6),
        (torch.zeros(6, 1).T, 6),  # one row: how far it is to the next means nothing
        (torch.zeros(6)[None].as_strided((1, 6), (0, 1)), 6),
        (torch.zeros(5, 6)[:, 3:4], 6),  # one channel
        (torch.zeros(0, 12)[:, :6], 6),
        (np.zeros((4, 12))[:, 2:8], 12),
        (np.zeros((8, 6), np.float16)[::2], 12),
        (np.zeros((5, 6), np.float32)[:, 3:4], 6),
    ],
)
def test_rows_may_lie_apart(value, stride):
    matrix = arrow.matrix(value)
    where = value.data_ptr() if isinstance(value, torch.Tensor) else value.ctypes.data
    assert (matrix.address, matrix.stride, matrix.rows, matrix.channels) == (
        where,
        stride,
        *value.shape,
    )


def test_go_sees_the_memory_itself(session):
    """A value changed between export and call is what Go adds: there is one memory only."""
    y, g = torch.zeros(3, 6), torch.ones(3, 6)
    exported = arrow.matrix(y), arrow.matrix(g)
    y[1, 4] = 7
    arrow.call(core().statistics_add, session, 0, 1, *exported)
    assert arrow.call_for_batch(core().statistics_table, session)["sum_y"].to_pylist()[:6] == [
        0,
        0,
        0,
        0,
        7,
        0,
    ]


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(session, rows):
    for zeros in (torch.zeros(rows, 6), np.zeros((rows, 6), np.float32)):
        added = arrow.call(
            core().statistics_add, session, 0, rows, arrow.matrix(zeros), arrow.matrix(zeros)
        )
        assert added == rows


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (torch.zeros(3, 6, dtype=torch.int64), DtypeError, r"int64.*\.float\(\)"),
        (torch.zeros(3, 6, dtype=torch.complex64), DtypeError, "complex64"),
        (torch.zeros(3, 6, dtype=torch.float8_e4m3fn), DtypeError, "float8"),
        (torch.zeros(3, 6, device="meta"), DeviceError, r"meta.*\.cpu\(\)"),
        (torch.zeros(6), ShapeError, r"\(6,\)"),
        (torch.zeros(2, 3, 4), ShapeError, r"\(2, 3, 4\)"),
        (torch.zeros(3, 0), ShapeError, r"\(3, 0\)"),
        (torch.zeros(6, 3).T, ShapeError, "contiguous"),
        (torch.zeros(3, 12)[:, ::2], ShapeError, "contiguous"),
        (torch.zeros(1, 6).expand(3, 6), ShapeError, "overlap.*contiguous"),
        (torch.zeros(12).unfold(0, 6, 2), ShapeError, "overlap"),
        (torch.zeros(3, 6).to_sparse(), ShapeError, "to_dense"),
        (np.zeros((3, 6), np.int32), DtypeError, "int32.*astype"),
        (np.zeros((3, 6), np.longdouble), DtypeError, "longdouble|float128"),
        (np.zeros((3, 6), ">f4"), DtypeError, "f4"),
        (np.zeros((6, 6), np.float32)[::-1], ShapeError, "overlap.*ascontiguousarray"),
        (
            np.zeros((3, 26), np.uint8)[:, :24].view(np.float32),
            ShapeError,
            "ascontiguousarray",
        ),  # rows 6.5 values apart
        (np.zeros(6, np.float32), ShapeError, r"\(6,\)"),
        (np.zeros((6, 3), np.float32).T, ShapeError, "ascontiguousarray"),
        (pa.array([1.0, 2.0]), DtypeError, "double"),
        (pa.array([[1.0], [2.0]], pa.list_(pa.float32())), DtypeError, "list"),
        (pa.array([[1], [2]], pa.list_(pa.uint16(), 1)), DtypeError, "uint16"),
        (pa.array([[], []], pa.list_(pa.float32(), 0)), ShapeError, r"\(2, 0\)"),
        (
            pa.array([[1.0], None], pa.list_(pa.float32(), 1)),
            InvalidValueError,
            "1 of 2 values are null",
        ),
        (
            pa.array([[1.0, None], [2.0, None]], pa.list_(pa.float32(), 2)),
            InvalidValueError,
            "2 of 4 values are null",
        ),
        ([[1.0, 2.0]], DtypeError, "list"),
        (None, DtypeError, "NoneType"),
    ],
)
def test_refused_by_name(value, error, words):
    with pytest.raises(error, match=f"(?s)gradient.*{words}"):
        arrow.matrix(value, "gradient")


FLOATS = np.arange(24, dtype=np.float32).reshape(4, 6)


def fixed_size_lists():
    return pa.FixedSizeListArray.from_arrays(pa.array(FLOATS.reshape(-1)), 6)


class OnlyTheProtocol:
    """Any object with the Arrow protocol, and nothing else."""

    def __init__(self, array):
        self._array = array

    def __arrow_c_array__(self, requested_schema=None):
        return self._array.__arrow_c_array__(requested_schema)


@pytest.mark.parametrize(
    "value",
    [
        fixed_size_lists(),
        pa.concat_arrays([fixed_size_lists(), fixed_size_lists()])[2:6].take(
            pa.array([2, 3, 0, 1])
        ),
        pa.chunked_array([fixed_size_lists()[:1], fixed_size_lists()[1:]]),
        pa.FixedShapeTensorArray.from_numpy_ndarray(FLOATS),
        OnlyTheProtocol(fixed_size_lists()),
        pl.Series(FLOATS.tolist(), dtype=pl.Array(pl.Float32, 6)),
    ],
    ids=["array", "taken", "chunked", "tensor", "protocol", "polars"],
)
def test_arrow_inputs(session, value):
    matrix = arrow.matrix(value)
    arrow.call(core().statistics_add, session, 0, 1, matrix, matrix)
    table = arrow.call_for_batch(core().statistics_table, session)
    assert (table["sum_y"].to_numpy()[:6] == FLOATS.astype(np.float64).sum(0)).all()


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (1, 4), (0, 2), (1, 3), (3, 4)])
def test_slices_are_not_copied(session, start, stop):
    whole = fixed_size_lists()
    part = whole[start:stop]
    assert arrow.matrix(part).address == arrow.matrix(whole).address + start * 6 * 4
    arrow.call(core().statistics_add, session, 0, 1, arrow.matrix(part), arrow.matrix(part))
    table = arrow.call_for_batch(core().statistics_table, session)
    assert (table["sum_y"].to_numpy()[:6] == FLOATS[start:stop].astype(np.float64).sum(0)).all()


def test_a_slice_of_the_values_is_not_copied(session):
    part = pa.FixedSizeListArray.from_arrays(pa.array(FLOATS.reshape(-1))[6:18], 6)
    arrow.call(
        core().statistics_add, session, 0, 1, arrow.matrix(part), part
    )  # by our structs and by pyarrow's
    table = arrow.call_for_batch(core().statistics_table, session)
    assert (table["sum_y"].to_numpy()[:6] == FLOATS[1:3].astype(np.float64).sum(0)).all()
    assert (table["sum_g2"].to_numpy()[:6] == (FLOATS[1:3].astype(np.float64) ** 2).sum(0)).all()


def test_nulls_are_refused_and_unused_nulls_are_not(session):
    lists = pa.array([[1.0] * 6, None, [2.0] * 6], pa.list_(pa.float32(), 6))
    with pytest.raises(InvalidValueError, match="1 of 3 values are null"):
        arrow.call(core().statistics_add, session, 0, 1, lists, lists)
    arrow.call(core().statistics_add, session, 0, 1, lists[2:], lists[2:])
    arrow.call(
        core().statistics_add, session, 0, 1, arrow.matrix(lists[2:]), arrow.matrix(lists[2:])
    )


class Base:
    """What a buffer keeps alive."""


def watched_matrix():
    """A matrix over memory that says when it is let go."""
    values, base = np.ones((3, 6), np.float32), Base()
    base.values = values
    buffer = pa.foreign_buffer(values.ctypes.data, values.nbytes, base)
    flat = pa.Array.from_buffers(pa.float32(), 18, [None, buffer], 0)
    return pa.FixedSizeListArray.from_arrays(flat, 6), weakref.ref(base)


@pytest.mark.parametrize("layer", [0, 7], ids=["taken", "refused"])
def test_inputs_are_given_back_before_the_call_returns(session, layer):
    matrix, alive = watched_matrix()
    try:
        arrow.call(core().statistics_add, session, layer, 1, matrix, matrix)
    except KeyError:
        pass
    assert alive() is not None
    del matrix
    gc.collect()
    assert alive() is None


def test_inputs_of_a_call_that_never_reached_go_are_given_back():
    matrix, alive = watched_matrix()
    with pytest.raises(TypeError):
        arrow.call(core().statistics_add, "not a number", 0, 1, matrix, matrix)
    del matrix
    gc.collect()
    assert alive() is None


def test_release_happens_exactly_once(session):
    """The release callback is counted by a hand-made producer around a real one."""
    counts = {"array": 0, "schema": 0}
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

    def counting(what, structs, word):
        original = kind(structs[word])

        def release(pointer):
            counts[what] += 1
            original(pointer)

        callback = kind(release)
        structs[word] = ctypes.cast(callback, ctypes.c_void_p).value
        return callback

    inputs, kept = [], []
    for _ in range(2):
        structs = arrow.CStructs()
        fixed_size_lists()._export_to_c(*structs.addresses)
        kept += [
            counting("array", structs.array, 8),
            counting("schema", structs.schema, 7),
            structs,
        ]
        inputs += structs.addresses
    core().statistics_add(session, 0, 1, *inputs)
    assert counts == {"array": 2, "schema": 2}
    with pytest.raises(InvalidValueError, match="released before"):
        core().statistics_add(session, 0, 1, *inputs)
    assert counts == {"array": 2, "schema": 2}


@pytest.mark.parametrize("addresses", [(0, 0), (8, 8), (-8, -8), (12345, 12345), (2**62, 2**62)])
def test_bad_addresses_are_an_error(session, addresses):
    with pytest.raises(InvalidValueError, match="y: the addresses"):
        core().statistics_add(session, 0, 1, *addresses, *addresses)
    with pytest.raises(InvalidValueError, match="result: the addresses"):
        core().statistics_table(session, *addresses)
