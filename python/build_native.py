"""Build the native parts of agflow.

These are the extension ``agflow/_core/_native``; the command ``agflow``, a static program that has
the steps on files; and the host ``agflow/_bin/agflow-host``, the same command with Python in its
process, which the steps on models are handed to. As hatchling's build hook this module puts them
into the wheel. As a script::

    python python/build_native.py              # builds in place, for work on the sources
    python python/build_native.py environment  # prints the variables of `go … -tags python`

The generated sources stand in ``_build/<abi>/`` inside the Go module, because gopy's output must
belong to it.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import runpy
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
        parts = build()
        if version == "editable":
            install_in_place(parts)
        else:
            for folder in ("_core", "_bin"):
                built = parts[folder]
                build_data["force_include"][str(built)] = f"agflow/{folder}/{built.name}"
            build_data["force_include"][str(DEFAULTS)] = f"agflow/{DEFAULTS.name}"
        # pip copies it beside python as it is: it starts in milliseconds and starts no Python.
        build_data["shared_scripts"][str(parts["command"])] = parts["command"].name
        build_data["pure_python"] = False
        build_data["infer_tag"] = True  # cp3X-cp3X-linux_<machine>


def build() -> dict[str, Path]:
    """Build the parts; returns the command, and the file for each folder of the package."""
    refuse_other_pythons()
    go = find_go()
    require_c_compiler(go)
    require_python_headers()
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return {
            "_core": build_extension(go),
            "_bin": build_host(go),
            "command": build_command(go),
        }


def install_in_place(parts: dict[str, Path]) -> None:
    """Put all parts beside the sources; a rename, so that a running process keeps its own file."""
    places = (
        (parts["_core"], PACKAGE / "_core"),
        (parts["_bin"], PACKAGE / "_bin"),
        (parts["command"], PACKAGE / "_bin"),
        (DEFAULTS, PACKAGE),
    )
    for built, folder in places:
        folder.mkdir(exist_ok=True)
        fresh = folder / f".{built.name}.new"
        shutil.copy2(built, fresh)
        fresh.replace(folder / built.name)


# ---------------------------------------------------------------- the extension


def build_extension(go: str) -> Path:
    """Run gopy over bridge/native, PyBindGen for the C half, and one ``go build``."""
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


# -------------------------------------------------- the command and the host


def build_command(go: str) -> Path:
    """Build the command of the steps on files: static, without C, so that it runs anywhere."""
    say("building the command")
    command = BUILD / "agflow"
    run(go, "build", *GO_FLAGS, "-o", command, "./cli", CGO_ENABLED="0")
    return command


def build_host(go: str) -> Path:
    """Build the command that hosts Python."""
    say(f"building the host of CPython {PYTHON}")
    host = BUILD / "agflow-host"
    environment = hosting_environment(go)
    run(go, "build", *GO_FLAGS, "-tags=python", "-o", host, "./cli", **environment)
    return host


def hosting_environment(go: str) -> dict[str, str]:
    """Variables for ``go build -tags python``: go-python3 finds this Python through python3.pc.

    The host names no libpython, for it cannot know where that will be: its starter preloads that
    of the Python to be hosted. So the build needs none, only the headers.
    """
    compat = ROOT / "python" / "compat.h"
    # -fPIC: other code would take a copy of Python's variables, of a size known only from libpython
    cflags = ["-I" + INCLUDE, "-include", str(compat), "-Wno-deprecated-declarations", "-fPIC"]
    BUILD.mkdir(parents=True, exist_ok=True)
    build_python_names(go, cflags)
    text = "\n".join(
        [
            "Name: python3",
            "Description: the CPython that agflow hosts",
            f"Version: {PYTHON}",
            "Cflags: " + " ".join(flag.replace(" ", "\\ ") for flag in cflags),
            "Libs: " + f"-L{BUILD}".replace(" ", "\\ ") + " -lpython_names",
            "",
        ]
    )
    (BUILD / "python3.pc").write_text(text)
    # Go's build cache does not see what python3.pc says; without the hash a second Python of this
    # machine would get a host that was compiled for the first one.
    return {
        "PKG_CONFIG": f'"{ROOT / "python" / "pkg-config"}"',  # Go splits it at blanks
        "PKG_CONFIG_PATH": str(BUILD),
        "CGO_CFLAGS": f"-O2 -g -DAGFLOW_PYTHON_PC={zlib.crc32(text.encode())}",
    }


def build_python_names(go: str, cflags: list[str]) -> None:
    """Make what the linker sees instead of libpython: a library of every name in Python's headers.

    It bears the name of one that every process has, so that the host needs nothing of it to start.
    """
    compiler = c_compiler(go)
    headers = [*compiler, "-E", "-P", *cflags, "-x", "c", "-"]
    text = subprocess.run(
        headers, input="#include <Python.h>", capture_output=True, text=True
    ).stdout
    lines = [".data"]
    for name in sorted(set(re.findall(r"\b_?Py\w+", text))):
        lines.append(f".globl {name}\n.type {name}, %object\n.size {name}, 8\n{name}:")
    lines += [".quad 0", '.section .note.GNU-stack, "", %progbits', ""]
    source = BUILD / "python_names.s"
    source.write_text("\n".join(lines))
    library = BUILD / "libpython_names.so"
    run(*compiler, "-shared", "-nostdlib", "-Wl,-soname,libm.so.6", "-o", library, source)


def testing_environment(go: str) -> dict[str, str]:
    """Those of hosting_environment, and the preloading of libpython into Go's tests."""
    libpython = runpy.run_path(str(PACKAGE / "_launcher.py"))["libpython"]() or fail(
        f"{sys.executable} has no shared libpython{PYTHON}.so.1.0: it can be extended, but not "
        "hosted; name a Python built with --enable-shared"
    )
    flags = f"{os.environ.get('GOFLAGS', '')} '-exec=env LD_PRELOAD={libpython}'"
    return {**hosting_environment(go), "GOFLAGS": flags.strip()}


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


def c_compiler(go: str) -> list[str]:
    return subprocess.run([go, "env", "CC"], capture_output=True, text=True).stdout.split()


def require_c_compiler(go: str) -> None:
    compiler = c_compiler(go)
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


def refuse_other_pythons() -> None:
    here = f"{sys.executable} is {platform.python_implementation()} {PYTHON}"
    if sys.implementation.name != "cpython" or not (3, 10) <= sys.version_info[:2] <= (3, 13):
        fail(f"{here}: agflow needs CPython 3.10 to 3.13")
    if "t" in sys.abiflags:
        fail(
            f"{here}, the free-threaded build, which agflow does not support: its extension needs "
            "the global lock; install with the default build"
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
            install_in_place(build())
        case ["environment"]:
            for name, value in testing_environment(find_go()).items():
                print(f"export {name}={shlex.quote(value)}")
        case _:
            fail("usage: python python/build_native.py [environment]")
