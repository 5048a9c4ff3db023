"""Build the native parts of agflow.

These are the extension ``agflow/_core/_native`` and the command ``agflow/_bin/agflow``. As
hatchling's build hook this module puts both into the wheel. As a script::

    python python/build_native.py              # builds in place, for work on the sources
    python python/build_native.py environment  # prints the variables of `go … -tags python`

The generated sources stand in ``_build/<abi>/`` inside the Go module, because gopy's output must
belong to it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zlib
from pathlib import Path

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # run as a script: no wheel is made
    BuildHookInterface = object

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "agflow"
DEFAULTS = ROOT / "core" / "defaults" / "defaults.json"
BUILD = ROOT / "_build" / sysconfig.get_config_var("SOABI")
INCLUDE = sysconfig.get_path("include")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
EXTENSION = "_native" + sysconfig.get_config_var("EXT_SUFFIX")
GO_FLAGS = ["-trimpath", "-buildvcs=false", "-ldflags=-s -w"]


class NativeBuildHook(BuildHookInterface):
    """Add the native parts and the defaults to a wheel, or put them in place."""

    def initialize(self, version: str, build_data: dict) -> None:
        extension, command = build()
        if version == "editable":
            install_in_place(extension, command)
        else:
            build_data["force_include"][str(extension)] = f"agflow/_core/{extension.name}"
            build_data["force_include"][str(command)] = f"agflow/_bin/{command.name}"
            build_data["force_include"][str(DEFAULTS)] = f"agflow/{DEFAULTS.name}"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True  # cp3X-cp3X-linux_<machine>


def build() -> tuple[Path, Path]:
    """Build both parts and return their paths in the build folder."""
    go = find_go()
    require_c_compiler(go)
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return build_extension(go), build_command(go)


def install_in_place(extension: Path, command: Path) -> None:
    """Put all parts beside the sources; a rename, so that a running process keeps its own file."""
    places = ((extension, PACKAGE / "_core"), (command, PACKAGE / "_bin"), (DEFAULTS, PACKAGE))
    for built, folder in places:
        folder.mkdir(exist_ok=True)
        fresh = folder / f".{built.name}.new"
        shutil.copy2(built, fresh)
        fresh.replace(folder / built.name)


# ---------------------------------------------------------------- the extension


def build_extension(go: str) -> Path:
    """Run gopy over bridge/native, PyBindGen for the C half, and one ``go build``."""
    require_python_headers()
    generated, objects, tools = BUILD / "native", BUILD / "cgo", BUILD / "tools"
    shutil.rmtree(generated, ignore_errors=True)
    for folder in (generated, objects, tools):
        folder.mkdir(exist_ok=True)
    path = {"PATH": os.pathsep.join([str(tools), str(Path(go).parent), os.environ.get("PATH", "")])}

    say(f"building the extension for CPython {PYTHON}")
    programs = ["github.com/go-python/gopy", "golang.org/x/tools/cmd/goimports"]
    run(go, "build", "-o", f"{tools}/", *programs)
    options = ["-name=native", f"-output={generated.relative_to(ROOT)}", f"-vm={sys.executable}"]
    options += ["-dynamic-link=true", "-no-make=true"]
    run(tools / "gopy", "gen", *options, "./bridge/native", **path)
    replace_cgo_flags(generated / "native.go")
    run(tools / "goimports", "-w", "native.go", cwd=generated, **path)
    options = ["-objdir", f"{objects}/", "-exportheader", "native_go.h", "--", f"-I{INCLUDE}"]
    run(go, "tool", "cgo", *options, "native.go", cwd=generated)
    run(sys.executable, "build.py", cwd=generated)
    run(go, "build", *GO_FLAGS, "-buildmode=c-shared", "-o", EXTENSION, ".", cwd=generated)
    return generated / EXTENSION


def replace_cgo_flags(source: Path) -> None:
    """Drop gopy's flags: -Ofast changes float results, an extension must not link libpython."""
    text = source.read_text()
    flags = f'#cgo CFLAGS: "-I{INCLUDE}" -O2 -Wno-implicit-function-declaration -Wno-int-conversion'
    text = re.sub(r"(?m)^#cgo CFLAGS:.*$", lambda _: flags, text)
    text = re.sub(r"(?m)^#cgo LDFLAGS:.*$", "", text)
    source.write_text(text)


# ------------------------------------------------------------------ the command


def build_command(go: str) -> Path:
    """Build the command; it hosts Python only where this Python has a shared libpython."""
    command = BUILD / "agflow"
    if libpython_folder():
        say(f"building the command, linked to libpython{PYTHON}")
        run(go, "build", *GO_FLAGS, "-tags=python", "-o", command, "./cli", **hosting_environment())
    else:
        say(
            f"{sys.executable} has no shared libpython: the command is built without the steps "
            "that host Python (run, calibrate, prune, predict); use them from Python, or install "
            "with a Python built with --enable-shared"
        )
        run(go, "build", *GO_FLAGS, "-o", command, "./cli")
    return command


def libpython_folder() -> str | None:
    """Return the folder of this Python's shared libpython, or None.

    Python's own notes may be wrong: some Pythons were moved after their build.
    """
    for folder in (sysconfig.get_config_var("LIBDIR"), os.path.join(sys.base_prefix, "lib")):
        if os.path.exists(os.path.join(folder, f"libpython{PYTHON}.so")):
            return folder
    return None


def hosting_environment() -> dict[str, str]:
    """Variables for ``go build -tags python``: go-python3 finds this Python through python3.pc."""
    library = libpython_folder() or fail(
        f"{sys.executable} has no shared libpython{PYTHON}.so: only a Python built with "
        "--enable-shared can be hosted"
    )
    compat = ROOT / "python" / "compat.h"
    cflags = ["-I" + INCLUDE, "-include", str(compat), "-Wno-deprecated-declarations"]
    libs = ["-L" + library, f"-lpython{PYTHON}", "-Wl,-rpath," + library]
    text = "\n".join(
        [
            "Name: python3",
            "Description: the CPython that agflow hosts",
            f"Version: {PYTHON}",
            "Cflags: " + " ".join(flag.replace(" ", "\\ ") for flag in cflags),
            "Libs: " + " ".join(flag.replace(" ", "\\ ") for flag in libs),
            "",
        ]
    )
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "python3.pc").write_text(text)
    # Go's build cache does not see what python3.pc says; without the hash a second Python of this
    # machine would get a command that is linked to the first one's libpython.
    return {
        "PKG_CONFIG": f'"{ROOT / "python" / "pkg-config"}"',  # Go splits it at blanks
        "PKG_CONFIG_PATH": str(BUILD),
        "CGO_CFLAGS": f"-O2 -g -DAGFLOW_LIBPYTHON={zlib.crc32(text.encode())}",
    }


# ------------------------------------------------------------ what must be there


def find_go() -> str:
    needed = re.search(r"(?m)^go (\d+\.\d+)", (ROOT / "go.mod").read_text())[1]
    go = shutil.which("go")
    if go is None:
        fail(
            f"Go is missing: agflow's core is written in Go; install Go {needed} or newer from "
            "https://go.dev/dl and put it on the PATH"
        )
    found = subprocess.run([go, "env", "GOVERSION"], cwd=ROOT, capture_output=True, text=True)
    version = re.match(r"go(\d+)\.(\d+)", found.stdout)
    if version is None or tuple(map(int, version.groups())) < tuple(map(int, needed.split("."))):
        said = found.stdout.strip() or found.stderr.strip()
        fail(f"{go} is too old ({said}): agflow needs Go {needed} or newer, from https://go.dev/dl")
    return go


def require_c_compiler(go: str) -> None:
    compiler = subprocess.run([go, "env", "CC"], capture_output=True, text=True).stdout.split()
    if not compiler or shutil.which(compiler[0]) is None:
        fail(
            f"the C compiler {' '.join(compiler) or 'cc'} is missing: install gcc (Debian: "
            "apt-get install gcc libc6-dev), or name another one in CC"
        )


def require_python_headers() -> None:
    if not Path(INCLUDE, "Python.h").exists():
        fail(
            f"{INCLUDE}/Python.h is missing: install the headers of CPython {PYTHON} (Debian: "
            "apt-get install python3-dev)"
        )


def run(*command: object, cwd: Path = ROOT, **environment: str) -> None:
    """Run quietly; show what the command said only when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        cwd=cwd,
        env={**os.environ, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr)
        fail(f"this step of the native build failed (its output stands above): {shlex.join(words)}")


def say(text: str) -> None:
    print(f"agflow: {text}", file=sys.stderr, flush=True)


def fail(text: str) -> None:
    sys.exit(f"agflow: {text}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            install_in_place(*build())
        case ["environment"]:
            for name, value in hosting_environment().items():
                print(f"export {name}={shlex.quote(value)}")
        case _:
            fail("usage: python python/build_native.py [environment]")
