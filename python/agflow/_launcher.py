"""Start the ``agflow`` command, a Go program, so that it hosts this very Python.

Only what every Python has loaded at its start is imported: each ``agflow`` waits for this module.
"""

from __future__ import annotations

import _signal  # signal imports enumerations, which take longer than all else here
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


COMMAND = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_bin", "agflow")


def main() -> NoReturn:
    """Replace this process by the command, with its arguments, environment and libpython."""
    for number in (_signal.SIGINT, _signal.SIGTERM):  # as the command does, without a traceback
        _signal.signal(number, lambda number, _: os._exit(128 + number))
    environment = dict(os.environ)
    environment.setdefault("AGFLOW_PYTHON", sys.executable)
    folders = [*_library_folders(), environment.get("LD_LIBRARY_PATH")]
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, folders))
    try:
        os.execve(COMMAND, ["agflow", *sys.argv[1:]], environment)
    except OSError as error:
        sys.exit(
            f"agflow: the command {COMMAND} cannot be started ({error.strerror}): reinstall it "
            f"with {sys.executable} -m pip install --force-reinstall --no-deps agflow"
        )


def _library_folders() -> list[str | None]:
    """Where libpython may lie."""
    folder = os.path.join(sys.base_prefix, "lib")
    version = f"{sys.version_info.major}.{sys.version_info.minor}{sys.abiflags}"
    if os.path.exists(os.path.join(folder, f"libpython{version}.so.1.0")):
        return [folder]
    import sysconfig  # slow: it reads all variables of Python's build

    return [sysconfig.get_config_var("LIBDIR"), folder]
