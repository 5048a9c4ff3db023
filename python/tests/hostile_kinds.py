"""Every kind of file that Python reads: the one list that all hostile files are tried on.

A new parser joins by a line in ``KINDS``: a function that writes a sound file (or folder) below a
folder and returns the file to damage, and one that reads it and uses what was read.
"""

import copy
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer

import agflow
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
    size = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 1}
    return VisionTransformer(num_classes=4, **size).eval()


_PREPROCESSING = Preprocessing((16, 16), (0.5,) * 3, (0.2,) * 3)


def _expert_folder(folder: pathlib.Path) -> pathlib.Path:
    agflow.save(_expert(), folder / "expert", preprocessing=_PREPROCESSING)
    return folder / "expert" / "config.json"


def _cascade_folder(folder: pathlib.Path) -> pathlib.Path:
    heavy = _expert()
    cascade = agflow.Cascade(copy.deepcopy(heavy), heavy, agflow.Router.load(_router(folder)))
    agflow.save(cascade, folder / "cascade", preprocessing=_PREPROCESSING)
    return folder / "cascade" / "cascade.json"


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
