"""The latency of a cut model by the table of ``agflow bench layers``, written out plainly: what the planner computes in Go."""

import math

import numpy as np


def latency_ms(table, costs, kept) -> float:
    """Milliseconds a batch with ``kept`` units of the layers named there (per part where a layer has parts) and all of the others."""
    grids = _grids(table)
    total = lambda sizes: sum(_ms(product, costs["sizes"], sizes, grids) for product in costs["products"] if product["kind"] != "parameters")
    model_ms = float(table.schema.metadata[b"agflow.model_ms"])
    return model_ms * total({**costs["sizes"], **kept}) / total(costs["sizes"])


def _grids(table):
    """{shape: (axes, ms over them)}, monotone along every axis."""
    columns, found = table.to_pydict(), {}
    for shape in dict.fromkeys(columns["shape"]):
        rows = [i for i, name in enumerate(columns["shape"]) if name == shape]
        axes = [sorted({columns[axis][i] for i in rows}) for axis in ("inputs", "outputs", "heads")]
        ms = np.zeros([len(axis) for axis in axes])
        for i in rows:
            ms[tuple(axis.index(columns[name][i]) for axis, name in zip(axes, ("inputs", "outputs", "heads"), strict=True))] = columns["ms"][i]
        assert ms.size == len(rows) and (ms > 0).all()
        for axis in range(3):
            ms = np.maximum.accumulate(ms, axis)
        found[shape] = axes, ms
    return found


def _ms(product, dense, sizes, grids) -> float:
    size = lambda field, of: sum(c * math.prod(of[layer] for layer in layers) for c, *layers in product.get(field, []))
    named = [size(field, dense) for field in ("inputs", "outputs", "heads") if product.get(field)]
    axes, ms = grids[f"{product['kind']} {'x'.join(map(str, [product['rows'], *named]))}"]
    for axis, field in zip(axes, ("inputs", "outputs", "heads"), strict=True):  # the first axis goes at each step
        ms = _at(size(field, sizes), axis, ms)
    return float(ms) * math.prod(sizes[branch] for branch in product.get("times", []))


def _at(size, axis, ms):
    flat = ms.reshape(len(axis), -1)
    return np.array([np.interp(size, axis, column) for column in flat.T]).reshape(ms.shape[1:])
