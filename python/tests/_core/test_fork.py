"""Forked children get a clear error if the parent had loaded the core, and else the core."""

import os
import subprocess
import sys

import pytest

from agflow._core.loader import backend_name, core


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


FORK = """
import os, sys
from agflow._core.loader import core
{before}
child = os.fork()
if child == 0:
    try:
        print(core().version(), flush=True)
    except RuntimeError as error:
        print(type(error).__name__, error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
{after}
"""


def test_a_child_of_a_process_that_loaded_the_core_is_refused():
    done = run(FORK.format(before="core().version()", after="print('parent', core().version())"))
    child, parent = done.stdout.splitlines()
    assert child.startswith("ForkedProcessError") and "spawn" in child, done.stderr
    assert parent.startswith("parent 0.")


def test_a_child_of_a_process_that_only_imported_agflow_may_load_it():
    if backend_name() == "host":
        pytest.skip("a Go process hosts this Python")
    done = run(FORK.format(before="", after=""))
    assert " abi " in done.stdout, done.stdout + done.stderr


def test_import_does_not_load_the_core():
    code = (
        "import sys, agflow, agflow._core.arrow, agflow.errors, agflow._core.loader; "
        "print('agflow._core._native' in sys.modules)"
    )
    done = run(code)
    assert done.stdout.strip() == "False", done.stderr


def test_a_real_fork_of_this_process():
    core().version()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            core()
            os.write(writing, b"no error")
        except RuntimeError as error:
            os.write(writing, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        assert answer.read() == "ForkedProcessError"
