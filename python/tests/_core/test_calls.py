"""The generated list of calls leads to the Go core, and wrong arguments are refused.

That the list equals Go's is held by a test of the generator, in bridge/internal/callgen.
"""

import pytest

from agflow._core.calls import ABI, CALLS
from agflow._core.loader import backend_name, core
from agflow.errors import InvalidValueError


def test_every_call_is_there():
    assert all(callable(getattr(core(), call.name)) for call in CALLS)
    assert core().version().endswith(f" abi {ABI}")
    assert backend_name() in ("extension", "host")


def test_the_extension_has_every_function():
    if backend_name() != "extension":
        pytest.skip("a Go process hosts this Python")
    from agflow._core import _native

    functions = {
        name.removeprefix("native_") for name in dir(_native) if name.startswith("native_")
    }
    assert functions >= {call.go_name for call in CALLS}


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
