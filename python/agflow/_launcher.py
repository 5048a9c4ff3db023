"""Starts the ``agflow`` command, a Go program, so that it hosts this very Python."""

from __future__ import annotations

import os
import pathlib
import sys
import sysconfig
from typing import NoReturn

COMMAND = pathlib.Path(__file__).parent / "_bin" / "agflow"


def main() -> NoReturn:
    """Become the command: same process, same arguments, this interpreter's environment and libpython."""
    environment = dict(os.environ)
    environment.setdefault("AGFLOW_PYTHON", sys.executable)
    libraries = [
        sysconfig.get_config_var("LIBDIR"),
        os.path.join(sys.base_prefix, "lib"),
        environment.get("LD_LIBRARY_PATH"),
    ]
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    try:
        os.execve(COMMAND, ["agflow", *sys.argv[1:]], environment)
    except OSError as error:
        sys.exit(
            f"agflow: the command {COMMAND} cannot be started ({error.strerror}): reinstall it with "
            f"{sys.executable} -m pip install --force-reinstall --no-deps agflow"
        )
