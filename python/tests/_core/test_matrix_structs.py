"""The C structs that Python fills are valid Arrow, released once, and keep their memory."""

import gc
import weakref

import numpy as np
import pyarrow as pa
import pytest
import torch

from agflow._core import arrow
from agflow._core.loader import core
from agflow._core.matrix import Matrix

NUMBERS = torch.arange(-12, 12, dtype=torch.float64).reshape(4, 6)
ARROW_TYPES = {
    torch.float32: pa.float32(),
    torch.float64: pa.float64(),
    torch.float16: pa.float16(),
    torch.bfloat16: pa.uint16(),
}
RELEASE = {"array": 8, "schema": 7}  # words


def exported(value):
    array, schema, memory = arrow.matrix(value).export()
    return array, schema, memory


@pytest.mark.parametrize("dtype", ARROW_TYPES)
@pytest.mark.parametrize("columns", [6, 4])
def test_pyarrow_reads_them(dtype, columns):
    """pyarrow finds type, metadata and values.

    It knows nothing of row strides: where rows lie apart, it sees the values in between.
    """
    tensor = NUMBERS.to(dtype)[:, :columns]
    array, schema, memory = exported(tensor)
    field = pa.Field._import_from_c(schema)
    metadata = {}
    if dtype is torch.bfloat16:
        metadata[b"agflow.dtype"] = b"bfloat16"
    if columns < 6:
        metadata[b"agflow.row_stride"] = b"6"
    assert (
        field.type == pa.list_(pa.field("item", ARROW_TYPES[dtype], nullable=False), columns)
        and (field.metadata or {}) == metadata
    )
    lists = pa.Array._import_from_c(array, field.type)
    lists.validate(full=True)
    values = torch.from_numpy(lists.values.to_numpy().copy()).view(dtype)
    assert len(lists) == 4 and torch.equal(values, NUMBERS.to(dtype).reshape(-1)[: 18 + columns])
    del lists
    assert memory is not None


def test_no_rows():
    array, schema, memory = exported(torch.zeros(0, 6))
    assert (
        len(pa.Array._import_from_c(array, pa.Field._import_from_c(schema).type)) == 0
        and memory is not None
    )


def test_each_export_is_its_own(session):
    """The same matrix may be both arguments of a call, and used again after it."""
    matrix = arrow.matrix(torch.ones(3, 6))
    for _ in range(2):
        assert arrow.call(core().statistics_add, session, 0, 1, matrix, matrix) == 3


@pytest.mark.parametrize("layer", [0, 7], ids=["taken", "refused"])
def test_go_releases_both_structs(session, layer):
    exports = [exported(torch.ones(3, 6)) for _ in range(2)]
    addresses = [address for array, schema, _ in exports for address in (array, schema)]
    try:
        core().statistics_add(session, layer, 1, *addresses)
    except KeyError:
        assert layer == 7
    for array, schema, (words, *_) in exports:
        assert (
            words[RELEASE["array"]] == 0 and words[(schema - array) // 8 + RELEASE["schema"]] == 0
        )
    with pytest.raises(ValueError, match="released before"):
        core().statistics_add(session, layer, 1, *addresses)


class Owner(np.ndarray):
    """An array that takes weak references."""


def test_memory_lives_until_the_call_returns(session):
    alive = []

    def add(*arguments):
        gc.collect()
        assert alive[0]() is not None  # nothing but the call holds it
        return core().statistics_add(*arguments)

    def temporary():
        array = np.ones((3, 6), np.float32).view(Owner)
        alive.append(weakref.ref(array))
        return arrow.matrix(array)

    arrow.call(add, session, 0, 1, temporary(), arrow.matrix(torch.ones(3, 6)))
    gc.collect()
    assert alive[0]() is None


def test_more_layouts_than_are_cached():
    """Structs stay sound while the templates of their layout come and go."""
    for channels in range(1, 600):
        value = torch.full((2, channels), 2.0)
        sums = arrow.call_for_array(core().abs_yg, 1, arrow.matrix(value), arrow.matrix(value))
        assert sums.to_numpy()[-1] == 8 and len(sums) == channels


def test_a_matrix_of_ones_own(session):
    """Nothing but address and shape counts, so other owners of memory can make one too."""
    values = np.ones((3, 6), np.float32)
    template = arrow.matrix(values)
    matrix = Matrix(3, 6, 6, template.dtype, values.ctypes.data, values)
    assert arrow.call(core().statistics_add, session, 0, 1, matrix, matrix) == 3
