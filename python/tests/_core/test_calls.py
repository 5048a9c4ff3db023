"""The list of calls is the same in Go's abi, in the two doors that lead to it, and in Python."""

import pathlib
import re

import pytest

from agflow._core.calls import ABI, CALLS, FLOAT, INT, TEXT
from agflow._core.loader import backend_name, core
from agflow.errors import InvalidValueError

BRIDGE = pathlib.Path(__file__).parents[3] / "bridge"
GO_TYPES = {"int64": INT, "float64": FLOAT, "string": TEXT}
C_TYPES = {"C.int64_t": INT, "C.double": FLOAT, "*C.char": TEXT}

needs_sources = pytest.mark.skipif(
    not (BRIDGE / "abi").is_dir(), reason="the Go sources are not here"
)


def parameters(text, types):
    """Go's parameter list: the type of each parameter."""
    found, waiting = [], 0
    for part in filter(None, (part.strip() for part in text.split(","))):
        words = part.split()
        waiting += 1
        if len(words) == 2:
            found += [types[words[1]]] * waiting
            waiting = 0
    return tuple(found)


def go_functions(package):
    sources = "\n".join(
        path.read_text()
        for path in (BRIDGE / package).glob("*.go")
        if not path.name.endswith("_test.go")
    )
    pattern = r"^func ([A-Z]\w*)\(([^)]*)\) \((?:\w+ )?(\w+), (?:err )?error\)"
    return {
        name: (parameters(arguments, GO_TYPES), GO_TYPES[result])
        for name, arguments, result in re.findall(pattern, sources, re.M)
    }


@needs_sources
@pytest.mark.parametrize("package", ["abi", "native"])
def test_calls_equal_go(package):
    assert {call.go_name: (call.arguments, call.result) for call in CALLS} == go_functions(package)


@needs_sources
def test_calls_equal_the_host_exports():
    source = (BRIDGE / "host" / "host.go").read_text()
    exports = re.findall(
        r"^//export (\w+)\nfunc \1\((.*), number \*C\.int64_t, text \*\*C\.char\) C\.int32_t \{\n\tresult, err := "
        r"abi\.(\w+)\(.*\)\n\treturn (answer|answerText)\(",
        source.replace("(number", "(, number"),
        re.M,
    )
    found = {
        go_name: (name, parameters(arguments, C_TYPES), INT if answer == "answer" else TEXT)
        for name, arguments, go_name, answer in exports
    }
    assert found == {
        call.go_name: (
            f"agflow_abi_{'version_text' if call.name == 'version' else call.name}",
            call.arguments,
            call.result,
        )
        for call in CALLS
    }
    assert "//export agflow_abi_version\n" in source and "//export agflow_abi_free\n" in source


@needs_sources
def test_abi_number_is_gos():
    assert f"const Number = {ABI}\n" in (BRIDGE / "abi" / "abi.go").read_text()


def test_every_call_is_there():
    assert all(callable(getattr(core(), call.name)) for call in CALLS)
    assert core().version().endswith(f" abi {ABI}")
    assert backend_name() in ("extension", "host")


def test_the_extension_has_every_function():
    if backend_name() != "extension":
        pytest.skip("a Go process hosts this Python")
    from agflow._core import _native

    assert {
        name.removeprefix("native_") for name in dir(_native) if name.startswith("native_")
    } >= {call.go_name for call in CALLS}


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ((), TypeError),
        ((1, 2), TypeError),
        (("1",), TypeError),
        ((1.5,), TypeError),
        ((None,), TypeError),
        ((2**63,), InvalidValueError),
        ((-(2**63) - 1,), InvalidValueError),
    ],
)
def test_wrong_integer_arguments(values, error):
    with pytest.raises(error):
        core().statistics_close(*values)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (1, TypeError),
        (b"{}", TypeError),
        ("a\0b", InvalidValueError),
        ("\udcff", InvalidValueError),
    ],
)
def test_wrong_texts(text, error):
    with pytest.raises(error):
        core().ledger(text)
