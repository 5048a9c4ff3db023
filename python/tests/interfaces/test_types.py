"""Editors and type checkers see the public names: basedpyright over the README's examples."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import agflow

ROOT = pathlib.Path(__file__).parents[3]
CHECKER = shutil.which("basedpyright", path=pathlib.Path(sys.executable).parent)
EXAMPLES = [
    block
    for readme in (ROOT / "README.md", ROOT / "python" / "README.md")
    for block in re.findall(r"```python\n(.*?)```", readme.read_text(), flags=re.DOTALL)
    if "import agflow" in block  # timm has no types
]
TYPES = {
    "light": "Module",
    "history": "History",
    "predictions": "Predictions",
    "router": "Router",
    "cascade": "Cascade",
    "preprocessing": "Preprocessing",
    "evaluation": "RouterEvaluation",
    "agflow.calibrate(heavy, DataLoader(training))": "Statistics",
    "agflow.plan(agflow.calibrate(heavy, DataLoader(training)), macs=0.5)": "Plan",
    "agflow.evaluate(light, DataLoader(test)).top1": "float",
    "agflow.search.SearchSpace().macs": "float | Sequence[float]",
}


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """Type-check a source text; returns the diagnostics as (severity, message)."""
    if CHECKER is None:
        pytest.skip("basedpyright is not installed beside this Python")
    folder = tmp_path_factory.mktemp("types")
    package = str(pathlib.Path(agflow.__file__).parents[1])
    settings = {"include": ["*.py"], "extraPaths": [package], "typeCheckingMode": "standard"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))

    def check(text):
        (folder / "example.py").write_text(text)
        command = [CHECKER, "--outputjson", "-p", folder, "--pythonpath", sys.executable]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
        found = json.loads(done.stdout)["generalDiagnostics"]
        return [(each["severity"], each["message"]) for each in found]

    return check


def test_the_examples_are_free_of_errors_and_their_results_have_types(check):
    text = "\n".join(EXAMPLES[:1] + [f"reveal_type({name})" for name in TYPES])
    found = check(text)
    assert not [message for severity, message in found if severity == "error"]
    revealed = [message for severity, message in found if severity == "information"]
    assert revealed == [f'Type of "{name}" is "{shown}"' for name, shown in TYPES.items()]


def test_examples_of_the_package_are_free_of_errors(check):
    for example in EXAMPLES[1:]:
        assert not [message for severity, message in check(example) if severity == "error"]


def test_a_misspelt_option_is_an_error(check):
    found = check("import agflow\nagflow.plan(agflow.Statistics.load('x'), mac=0.3)\n")
    assert ("error", 'No parameter named "mac"') in found


def test_every_public_name_is_known(check):
    lines = [f"agflow.{name}" for name in agflow.__all__]
    text = "import agflow\n" + "\n".join(f"print({line})" for line in lines)
    assert not [message for severity, message in check(text) if severity == "error"]
