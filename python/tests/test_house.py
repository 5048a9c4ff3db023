"""The order of the package: floors, no cycles, names that stay public, sizes, cheap imports."""

import ast
import doctest
import graphlib
import importlib
import importlib.metadata
import inspect
import pathlib
import pkgutil
import subprocess
import sys

import pytest

import agflow
from agflow.models import registry

PACKAGE = pathlib.Path(agflow.__file__).parent
# Each floor may import those before it. Rooms of one floor do not import each other.
FLOORS = [
    ["errors"],
    ["_utils", "_core"],
    ["table"],
    ["functional"],
    ["data"],
    ["models"],
    ["calibration", "training", "evaluation"],
    ["pruning", "cascade"],
    ["search"],
    ["exporting"],
    ["serving"],
    ["diagnostics"],
    ["plotting"],
    ["recipes"],
    ["example"],
    ["research"],
    ["bench"],
    ["commands", "_doctor", "_launcher", "_version"],
    ["__main__", "__init__"],
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
MODULES = {
    ".".join(("agflow", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in PACKAGE.rglob("*.py")
}
TREES = {module: ast.parse(path.read_text()) for module, path in MODULES.items()}
LONG = "# Long because: "
MODULE_LINES, CLASS_LINES, FUNCTION_LINES, PARAMETERS = 400, 200, 50, 8


def in_fresh_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def homes(module: str) -> dict[str, str]:
    """Public name -> full name of its module, of a package with lazy names."""
    for node in TREES[module].body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_HOMES":
            return {name: f"{module}.{home}" for name, home in ast.literal_eval(node.value).items()}
    return {}


def type_checking(tree: ast.AST) -> list[ast.If]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    ]


def imports_of(module: str) -> set[str]:
    """Modules of agflow that a module imports, at its start or later, but not for type checkers."""
    left_out = {id(node) for block in type_checking(TREES[module]) for node in ast.walk(block)}
    found = set()
    for node in ast.walk(TREES[module]):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("agflow.")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "agflow":
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                home = homes(node.module).get(alias.name, node.module)
                found.add(below if below in MODULES else home)
    return found - {"agflow"}


def test_imports_point_down():
    against = []
    for module in MODULES:
        room = (module.split(".") + ["__init__"])[1]
        for imported in imports_of(module):
            other = imported.split(".")[1]
            if other != room and FLOOR[other] >= FLOOR[room]:
                against.append(f"{module} imports {imported}")
    assert not against, "\n".join(against)


def test_modules_do_not_import_each_other_in_a_circle():
    graph = {module: imports_of(module) for module in MODULES if MODULES[module].stem != "__init__"}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("package", ["agflow", *(f"agflow.{room}" for room in ROOMS)])
def test_public_names_are_listed_alike_and_no_module_bears_one(package):
    names = homes(package)
    if not names:
        return
    tree = TREES[package]
    listed = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    )
    for_checkers = {
        alias.name: node.module
        for block in type_checking(tree)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom) and node.module != "agflow"
        for alias in node.names
        if alias.asname == alias.name
    }
    assert for_checkers == names
    assert sorted(listed) == sorted(name for name in names if not name.startswith("__"))
    folder = MODULES[package].parent
    modules = {path.stem for path in (*folder.glob("*.py"), *folder.glob("*/"))}
    assert not modules & {*names}, "importing a module binds its name over the public one"


def test_every_public_name_is_still_itself_after_all_modules_are_imported():
    names = [m.name for m in pkgutil.walk_packages(agflow.__path__, "agflow.")]
    names = [name for name in names if not name.endswith(("__main__", "._native"))]
    public = {
        package: sorted(homes(package)) for package in ("agflow", *(f"agflow.{r}" for r in ROOMS))
    }
    in_fresh_python(f"""
import importlib, inspect, sys
for name in {names}:
    importlib.import_module(name)
for package, names in {public}.items():
    for name in names:
        value = getattr(sys.modules[package], name)
        assert not inspect.ismodule(value), f"{{package}}.{{name}} is a module"
assert "agflow._core._native" not in sys.modules, "importing must not start Go"
""")


def test_imports_are_cheap():
    loaded = "import sys; {}; print(*sys.modules)"
    after = set(in_fresh_python(loaded.format("import agflow")).split())
    assert not after & {"numpy", "pyarrow", "torch", "typing", "importlib.metadata"}
    after = set(in_fresh_python(loaded.format("import agflow._launcher")).split())
    assert not after & {"pathlib", "re", "sysconfig", "typing"}
    rooms = ", ".join(f"agflow.{room}" for room in ROOMS)
    after = set(in_fresh_python(loaded.format(f"import {rooms}")).split())
    assert not after & {"torch", "timm", "torchvision", "transformers", "matplotlib", "onnx"}


def test_the_version_is_that_of_the_installed_package():
    assert agflow.__version__ == importlib.metadata.version("agflow")


def is_explained(lines: list[str], node: ast.stmt) -> bool:
    """Whether the comment right above a definition says why it is long."""
    above = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 2
    while above >= 0 and lines[above].lstrip().startswith("#"):
        if lines[above].lstrip().startswith(LONG):
            return True
        above -= 1
    return False


def lines_of_code(lines: list[str], node: ast.stmt) -> int:
    """Lines of a function without its docstring, blank lines and comments."""
    first, last = node.lineno, node.end_lineno
    doc = node.body[0]
    docstring = range(0)
    if isinstance(doc, ast.Expr) and isinstance(getattr(doc.value, "value", None), str):
        docstring = range(doc.lineno, doc.end_lineno + 1)
    return sum(
        number not in docstring and bool(line) and not line.startswith("#")
        for number, line in enumerate(map(str.strip, lines[first - 1 : last]), first)
    )


def test_sizes():
    long = []
    for module, path in MODULES.items():
        lines = path.read_text().splitlines()
        first = next((n.lineno for n in TREES[module].body[1:]), 1)
        explained = any(line.startswith(LONG) for line in lines[:first])
        if len(lines) > MODULE_LINES and not explained:
            long.append(f"{module}: {len(lines)} lines")
        for node in ast.walk(TREES[module]):
            where = f"{module}.{getattr(node, 'name', '')}"
            if isinstance(node, ast.ClassDef) and not is_explained(lines, node):
                size = node.end_lineno - node.lineno + 1
                if size > CLASS_LINES:
                    long.append(f"{where}: {size} lines")
            elif isinstance(node, ast.FunctionDef) and not is_explained(lines, node):
                size = lines_of_code(lines, node)
                if size > FUNCTION_LINES:
                    long.append(f"{where}: {size} lines of code")
    assert not long, "\n".join(long)


def test_public_functions_have_few_parameters():
    wide = []
    for package in ("agflow", *(f"agflow.{room}" for room in ROOMS)):
        for name, home in homes(package).items():
            lines = MODULES[home].read_text().splitlines()
            for node in TREES[home].body:
                if isinstance(node, ast.FunctionDef) and node.name == name:
                    if is_explained(lines, node):
                        continue
                    arguments = node.args
                    count = len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs)
                    if count > PARAMETERS:
                        wide.append(f"{package}.{name}: {count} parameters")
    assert not wide, "\n".join(sorted(set(wide)))


def test_public_names_are_documented_and_public_functions_have_examples():
    without = []
    for package in ("agflow", *(f"agflow.{room}" for room in ROOMS)):
        for name in homes(package):
            value = getattr(importlib.import_module(package), name)
            doc = (callable(value) and inspect.getdoc(value)) or ""
            if callable(value) and not doc or inspect.isfunction(value) and ">>>" not in doc:
                without.append(f"{package}.{name}")
    assert not without, ", ".join(without)


@pytest.mark.parametrize(
    "module", sorted(name for name, path in MODULES.items() if ">>> " in path.read_text())
)
def test_examples_run(module, monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "_registered", [])  # one example registers an adapter
    monkeypatch.chdir(tmp_path)
    done = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert not done.failed


def test_go_lines_have_at_most_100_columns():
    """Formatters and linters of Go do not count columns; a tab counts as four."""
    root = pathlib.Path(__file__).resolve().parents[2]
    sources = [path for room in ("core", "bridge", "cli") for path in (root / room).rglob("*.go")]
    assert len(sources) > 100
    long = [
        f"{path.relative_to(root)}:{number}"
        for path in sources
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line.expandtabs(4)) > 100
    ]
    assert not long, "\n".join(long)


def test_nothing_else_stands_at_the_top():
    root = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("these sources are in no git repository")
    found = {line.split("/")[0] for line in done.stdout.splitlines()}
    rooms = {"bridge", "core", "python", "cli", "notebooks"}
    files = {"go.mod", "go.sum", "pyproject.toml", "README.md", "LICENSE", "Makefile"}
    assert {name for name in found if not name.startswith(".")} <= rooms | files
