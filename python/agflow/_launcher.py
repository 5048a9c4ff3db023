"""Start the ``agflow`` command, a Go program, so that it hosts this very Python.

Only what every Python has loaded at its start is imported: each step on models waits for this
module.
"""

from __future__ import annotations

# signal imports enumerations, which take longer than all else here
import _signal  # pyright: ignore[reportMissingImports]
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# Both beside the sources; in an installed package the host alone: the command is beside python.
HOST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_bin", "agflow-host")
IN_PLACE = os.path.join(os.path.dirname(HOST), "agflow")


def main() -> NoReturn:
    """Replace this process by the command, with its arguments and environment."""
    signals = (_signal.SIGINT, _signal.SIGTERM)
    for number in signals:  # as the command does, without a traceback
        _signal.signal(number, lambda number, _: os._exit(128 + number))
    environment = dict(os.environ)
    environment.setdefault("AGFLOW_PYTHON", sys.executable)
    library = libpython()
    if library and not set(library) & set(" :"):  # they part the names of what is preloaded
        command = HOST
        preload = filter(None, [library, environment.get("LD_PRELOAD")])
        environment["LD_PRELOAD"] = ":".join(preload)
    else:
        command = IN_PLACE if os.path.exists(IN_PLACE) else _installed_command()
    # a signal that came ends this process here, a later one the command, once it listens
    _signal.pthread_sigmask(_signal.SIG_BLOCK, signals)
    try:
        os.execve(command, ["agflow", *sys.argv[1:]], environment)
    except OSError as error:
        sys.exit(
            f"agflow: the command {command} cannot be started ({error.strerror}): reinstall it "
            f"with {sys.executable} -m pip install --force-reinstall --no-deps agflow"
        )


def describe() -> str:
    """What the command must know of this Python to have it hosted, as JSON."""
    import json

    facts = {"version": _version(), "executable": sys.executable}
    facts |= {"host": HOST, "libpython": libpython()}
    return json.dumps(facts)


def libpython() -> str:
    """Path of this Python's shared library; empty where it has none.

    The one that this process runs on, if it does; otherwise Python's own notes may be wrong, for
    some Pythons were moved after their build.
    """
    name = f"libpython{_version()}{sys.abiflags}.so.1.0"
    try:
        with open("/proc/self/maps") as maps:
            for line in maps:
                if line.endswith(f"/{name}\n"):
                    return line[line.index("/") : -1]
    except OSError:
        pass  # no /proc: look where it should be
    import sysconfig  # slow: it reads all variables of Python's build

    folders = [os.path.join(sys.base_prefix, "lib"), sysconfig.get_config_var("LIBDIR") or ""]
    paths = [os.path.join(folder, name) for folder in folders]
    return next(filter(os.path.exists, paths), "")


def _version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _installed_command() -> str:
    """Where pip has put the command: its notes know, the scheme of an installation may not."""
    from importlib.metadata import files

    for file in files("agflow") or []:
        if file.name == "agflow" and file.parent.name == "bin":
            return os.path.abspath(str(file.locate()))
    return IN_PLACE
