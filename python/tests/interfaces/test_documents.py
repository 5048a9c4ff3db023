"""The READMEs: their examples run and gain, their links lead somewhere, the first is short."""

import json
import pathlib
import re
import subprocess

import pytest

import agflow

ROOT = pathlib.Path(__file__).parents[3]
READMES = [ROOT / "README.md", *sorted(ROOT.glob("[a-z]*/README.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ON_REAL_DATA = "03_deit"


def python_blocks(readme):
    return re.findall(r"```python\n(.*?)```", readme.read_text(), flags=re.DOTALL)


def run(block, readme):
    names = {}
    exec(compile(block, str(readme), "exec"), names)
    return names


def shell_lines(readme, first):
    """The lines of the shell section that begins so."""
    blocks = re.findall(r"```sh\n(.*?)```", readme.read_text(), flags=re.DOTALL)
    (block,) = (block for block in blocks if block.startswith(first))
    return [line.partition("  #")[0].strip() for line in block.splitlines()]


def gains(evaluation):
    """Whether a cascade, guaranteed and cheaper, is as accurate as the heavy expert but for 1 %."""
    counts = evaluation.counts
    assert counts.guarantee == "PASS" and counts.cost == "gain" and counts.deploy
    return evaluation.cascade > evaluation.heavy - 0.01


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_example_of_the_first_page_gains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = python_blocks(ROOT / "README.md")
    names = run(block, "README.md")
    history, router, evaluation = (names[name] for name in ("history", "router", "evaluation"))
    assert history.best_accuracy > history.start
    assert router.verdict == "PASS" and router.ledger.charged < 0.8
    assert gains(evaluation) and evaluation.ledger.charged < 0.8
    parts = [set(names[part].indices) for part in ("training", "choosing", "routing")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 4000


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "readme, first", [("README.md", "agflow shrink"), ("cli/README.md", "agflow calibrate")]
)
def test_the_lines_for_the_shell_gain(readme, first, tmp_path):
    """Pasted one after the other into a fresh folder."""
    lines, found = shell_lines(ROOT / readme, first), {}
    assert len(lines) in (6, 10) and lines[-1].endswith("--check")
    for line in lines:
        done = subprocess.run(
            f"{line} --json", shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        found[line.split()[1]] = json.loads(done.stdout)
    held_out = found["finetune"]["held_out"]
    assert held_out["best"] > held_out["start"]
    if "shrink" in found:
        shrunk = found["shrink"]
        assert shrunk["macs"] <= 0.35 * shrunk["dense_macs"] and shrunk["speedup"]["median"] > 1
        assert shrunk["accuracy"] > shrunk["dense_accuracy"] - 0.1
    router = agflow.Router.load(tmp_path / "router.json")
    test = agflow.Predictions.load(tmp_path / "test.arrow")
    assert gains(agflow.evaluate_router(test, router))


@pytest.mark.parametrize("readme", READMES[1:], ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_of_the_rooms_run(readme, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in python_blocks(readme):
        run(block, readme)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", page.read_text())
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(readme):
    text = re.sub(r"```.*?```|`[^`]*`", "", readme.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\((?!https?:)([^)\s]+)\)", text)
    for link in links:
        path, _, anchor = link.partition("#")
        target = (readme.parent / path).resolve() if path else readme
        assert target.exists(), f"{readme.name} links to {link}"
        if anchor:
            page = target / "README.md" if target.is_dir() else target
            assert anchor in anchors(page), f"{readme} links to {link}"


def test_every_room_has_a_page_and_the_first_page_links_to_it():
    rooms = {page.parent.name for page in READMES[1:]}
    assert rooms == {"bridge", "cli", "core", "notebooks", "python"}
    assert all(f"({room}/README.md)" in READMES[0].read_text() for room in rooms)


def test_the_first_page_is_short():
    lines = READMES[0].read_text().splitlines()
    assert len(lines) <= 150 and max(map(len, lines)) <= 120


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, request, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    if path.stem == ON_REAL_DATA:
        monkeypatch.setenv("AGFLOW_NOTEBOOK_DATA", str(request.getfixturevalue("folder")))

    NotebookClient(
        nbformat.read(path, as_version=4),
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_with_their_outputs(path):
    import nbformat

    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert any(output.get("data", {}).get("image/png") for cell in cells for output in cell.outputs)


def test_the_notebook_on_real_data_stops_where_there_is_none(tmp_path, monkeypatch):
    """With one line and no traceback."""
    import nbformat

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGFLOW_NOTEBOOK_DATA", raising=False)
    notebook = nbformat.read(ROOT / "notebooks" / f"{ON_REAL_DATA}.ipynb", as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    with pytest.raises(
        Exception, match="^there is no .* in the folder 'data': set AGFLOW_NOTEBOOK_DATA$"
    ) as e:
        exec(compile(first.source, "first cell", "exec"), {})
    assert e.value._render_traceback_() == [f"stopped: {e.value}"]


def test_the_cascade_notebook_shows_both_counts():
    """That its cascade gains is asserted in its own last cell."""
    import nbformat

    cells = nbformat.read(ROOT / "notebooks" / "02_cascade.ipynb", as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    shown = "".join(output.get("text", "") for output in outputs if output.get("name") == "stdout")
    assert "PASS and a gain" in shown and "PASS, but a LOSS" in shown
    assert not [output for output in outputs if output.get("name") == "stderr"]
