"""Tables: columns by name, pandas, and what they say of themselves."""

import re
import sys

import numpy as np
import pyarrow as pa
import pytest

from agflow.errors import InvalidValueError, UnknownLayerError
from agflow.table import Table


@pytest.fixture
def table():
    return Table(pa.RecordBatch.from_pydict({"name": ["a", "<b>"], "number": [1.5, 2.5]}))


def test_a_column_is_a_numpy_array(table, statistics):
    assert isinstance(table["number"], np.ndarray) and table["number"].tolist() == [1.5, 2.5]
    assert table["name"].tolist() == ["a", "<b>"]
    assert statistics["rows"].dtype == np.int64


def test_an_unknown_column_is_refused_with_the_known_ones(table):
    with pytest.raises(
        InvalidValueError, match="column 'size' is not in this Table, expected one of: name, number"
    ):
        table["size"]
    with pytest.raises(InvalidValueError, match="column 0 is not in this Table"):
        list(table)


def test_pandas_gets_the_same_columns(statistics):
    pandas = pytest.importorskip("pandas")
    frame = statistics.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == statistics.batch.schema.names
    assert np.array_equal(frame["sum_abs_yg"], statistics["sum_abs_yg"])


def test_without_pandas_the_error_names_the_cure(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="to_pandas needs it: pip install pandas, or .*columns"):
        table.to_pandas()


def test_a_table_says_what_it_holds(table):
    assert repr(table) == "<agflow.Table: 2 rows>"
    html = table._repr_html_()
    assert html.startswith("<b>Table</b>: 2 rows<table><tr><th>name</th><th>number</th></tr>")
    assert "<td>&lt;b&gt;</td><td>2.5</td>" in html


def test_statistics_say_layers_units_images_and_batches(statistics):
    text = repr(statistics)
    assert text == (
        "<agflow.Statistics: vit_tiny_patch16_224, 12 layers, 3096 units, 256 images, 4 batches>"
    )
    html = statistics._repr_html_()
    assert "256 images" in html and "<td>blocks.0.mlp</td><td>mlp</td><td>512</td>" in html
    assert len(re.findall("<tr>", html)) == 1 + len(statistics.layers)


def test_rows_of_a_layer(statistics):
    rows = statistics.rows_of("blocks.0.mlp")
    assert set(statistics["layer"][rows]) == {"blocks.0.mlp"}
    with pytest.raises(UnknownLayerError, match="layer 'head' is not in this table; it has"):
        statistics.rows_of("head")
