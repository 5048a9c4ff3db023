"""Every kind of file that Python reads: the one list that all hostile files are tried on.

A new parser joins by a line in ``KINDS``: a function that writes a sound file (or folder) below a
folder and returns the file to damage, and one that reads it and uses what was read.
"""

import copy
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from pyarrow import csv, feather, parquet
from timm.models.vision_transformer import VisionTransformer

import agflow
from agflow.cascade.answer_files import read_content
from agflow.cascade.any_arrays import plain_array
from agflow.data.preprocessing import Preprocessing

TESTS = pathlib.Path(__file__).parent
STORED = TESTS.parents[1] / "bridge" / "tables" / "testdata"
TABLES = {
    cls.kind: cls
    for cls in (
        agflow.Statistics,
        agflow.Scores,
        agflow.Plan,
        agflow.Predictions,
        agflow.cascade.Curve,
        agflow.pruning.LatencyTable,
        agflow.search.Frontier,
        agflow.cascade.Logits,
        agflow.cascade.Decisions,
    )
}


class Kind(NamedTuple):
    """A kind of file: how a sound one is made, and how it is read."""

    make: Callable[[pathlib.Path], pathlib.Path]
    read: Callable[[pathlib.Path], Any]


def use(table: Any) -> None:
    """Look at everything a table has: every property and all that is shown of it."""
    for name in dir(type(table)):
        if not name.startswith("__"):
            getattr(table, name)
    for shown in (repr, str, len, type(table)._repr_html_):
        shown(table)
    if isinstance(table, agflow.Plan):
        table.diff(table)
    if isinstance(table, agflow.search.Frontier):
        table.markdown()


def _table_kind(name: str) -> Kind:
    def make(folder: pathlib.Path) -> pathlib.Path:
        path = folder / f"{name}.arrow"
        path.write_bytes((STORED / "format4" / path.name).read_bytes())
        return path

    return Kind(make, lambda path: use(TABLES[name].load(path)))


def _router(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "router.json"
    agflow.Router.load(TESTS.parents[1] / "core/routing/testdata/router_format3.json").save(path)
    return path


def _expert() -> torch.nn.Module:
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=16, patch_size=8, num_classes=4, embed_dim=8, depth=1, num_heads=1
    ).eval()


_PREPROCESSING = Preprocessing((16, 16), (0.5,) * 3, (0.2,) * 3)


def _expert_folder(folder: pathlib.Path) -> pathlib.Path:
    agflow.save(_expert(), folder / "expert", preprocessing=_PREPROCESSING)
    return folder / "expert" / "config.json"


def _cascade_folder(folder: pathlib.Path) -> pathlib.Path:
    heavy = _expert()
    cascade = agflow.Cascade(copy.deepcopy(heavy), heavy, agflow.Router.load(_router(folder)))
    agflow.save(cascade, folder / "cascade", preprocessing=_PREPROCESSING)
    return folder / "cascade" / "cascade.json"


_ANSWERS = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
_COLUMNS = {"label": np.arange(40) % 3, **{f"light_{k}": _ANSWERS[:, k] for k in range(3)}}


def _answers_of(name: str, write: Callable[[pathlib.Path], Any]) -> Kind:
    """A file of answers that another program wrote. Some damages leave another sound file."""

    def make(folder: pathlib.Path) -> pathlib.Path:
        write(folder / name)
        return folder / name

    def read(path: pathlib.Path) -> None:
        content = read_content(path)
        plain_array(content, "answers") if not isinstance(content, dict) else None

    return Kind(make, read)


def _stream(path: pathlib.Path) -> None:
    table = pa.table(_COLUMNS)
    with pa.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table)


_TABLE = pa.table(_COLUMNS)
FOREIGN = {
    "npy": _answers_of("x.npy", lambda path: np.save(path, _ANSWERS)),
    "npz": _answers_of("x.npz", lambda path: np.savez_compressed(path, **_COLUMNS)),
    "parquet": _answers_of("x.parquet", lambda path: parquet.write_table(_TABLE, path)),
    "feather": _answers_of("x.feather", lambda path: feather.write_feather(_TABLE, path)),
    "Arrow stream": _answers_of("x.stream", _stream),
    "csv": _answers_of("x.csv", lambda path: csv.write_csv(_TABLE, path)),
}
"""Files of other programs, which have no checksum: a damage may make another sound file."""

KINDS = {
    **{name: _table_kind(name) for name in TABLES},
    "router": Kind(_router, lambda path: (repr(agflow.Router.load(path)), path)),
    "expert": Kind(_expert_folder, lambda path: agflow.load(path.parent)),
    "cascade": Kind(_cascade_folder, lambda path: agflow.load(path.parent)),
}

TELLING_TEXTS = [
    *("", "x", "-1", "0", "1e999", "nan", "NaN", "99999999999999999999", "null", "{}", "[]"),
    *("[1]", '{"macs":1}', "1x", "x1", "1x2x3", "-5x3", "0x0", "0x1p-2", "1_0", "\u0661", "inf"),
    *("\x1b[31m", "[" * 2000, "5", "both", "mlp"),
]
TELLING_NUMBERS = {
    "int": [0, 1, -1, 2**31 - 1, -(2**31)],
    "float": [0.0, -1.0, np.nan, np.inf, 1e308, -1e308, 0.5],
}
