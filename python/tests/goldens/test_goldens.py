"""What the Go core makes of stored inputs has the bits that it had when they were frozen."""

import importlib.util
import json
import pathlib

HERE = pathlib.Path(__file__).parent


def load(name):
    spec = importlib.util.spec_from_file_location(f"goldens_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_scores_plans_routers_and_curves_have_the_frozen_bits():
    frozen = json.loads((HERE / "portable.json").read_text())
    found = load("freeze").portable(load("interface"))
    assert found.keys() == frozen.keys()
    assert [name for name in frozen if found[name] != frozen[name]] == []
