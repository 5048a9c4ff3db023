"""The exact curve over every threshold beside numpy's argsort and cumulative sum, in one run."""

import sys
import time

import numpy as np
import pyarrow as pa

import agflow

METADATA = {
    "agflow.kind": "predictions",
    "agflow.prior": "max_probability",
    "agflow.light_cost": "30",
    "agflow.heavy_cost": "100",
    "agflow.shared_cost": "0",
    "agflow.cost_unit": "MACs",
}


def samples(n):
    random = np.random.default_rng(0)
    prior = random.integers(1, 1 << 24, n).astype(np.float32) / (1 << 24)
    label = random.integers(0, 10, n)
    light, heavy = (
        np.where(random.random(n) < prior, label, 10),
        np.where(random.random(n) < 0.9, label, 10),
    )
    columns = {
        "label": label,
        "light_prediction": light,
        "light_prior": prior,
        "heavy_prediction": heavy,
    }
    return agflow.Predictions(pa.record_batch(columns).replace_schema_metadata(METADATA))


def by_numpy(columns):
    """Accuracy when the samples up to each one, by ascending prior, escalate."""
    light, heavy = (
        columns[name] == columns["label"] for name in ("light_prediction", "heavy_prediction")
    )
    order = np.argsort(columns["light_prior"])
    gain = (heavy.astype(np.int8) - light.astype(np.int8))[order]
    return (light.sum() + np.cumsum(gain, dtype=np.int64)) / len(order)


def race(n, rounds):
    """Wall and processor seconds of the fastest round of numpy and of agflow, which must agree."""
    predictions = samples(n)
    columns = predictions.columns
    best = {}
    for _ in range(rounds):
        for name, work in (
            ("numpy", lambda: by_numpy(columns)),
            ("agflow", lambda: agflow.cascade.curve(predictions)),
        ):
            wall, processor = time.perf_counter(), time.process_time()
            found = work()
            took = time.perf_counter() - wall, time.process_time() - processor
            best[name] = tuple(map(min, zip(best.get(name, took), took, strict=True)))
            if name == "numpy":
                accuracy = found
    curve = found.columns
    inner = curve["escalated"] > 0
    np.testing.assert_allclose(
        curve["accuracy"][inner], accuracy[curve["escalated"][inner] - 1], rtol=1e-12
    )
    return best


def test_curve_beats_numpy():
    best = race(1_000_000, 5)
    assert best["agflow"][0] < best["numpy"][0], best


if __name__ == "__main__":
    for name, (wall, processor) in race(int(float(sys.argv[1])), int(sys.argv[2])).items():
        print(f"{name:<7} {wall:.3f} s, {processor:.3f} s of processor time")
