"""Packages with lazy names: what loads when, and what is no name of theirs."""

import sys

import pytest

from agflow._utils.lazy import lazy_names


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package ``lazy_room`` with a lazy name ``answer`` and a lazy submodule ``other``."""
    folder = tmp_path / "lazy_room"
    folder.mkdir()
    (folder / "home.py").write_text("answer = 42\n")
    (folder / "other.py").write_text("")
    (folder / "__init__.py").write_text(
        "from agflow._utils.lazy import lazy_names\n"
        "__getattr__, __dir__ = lazy_names(__name__, {'answer': 'home'}, ('other',))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("lazy_room")
    for name in [name for name in sys.modules if name.split(".")[0] == "lazy_room"]:
        del sys.modules[name]


def test_a_name_loads_its_module_at_first_use(package):
    assert "lazy_room.home" not in sys.modules
    assert package.answer == 42
    assert "lazy_room.home" in sys.modules and "lazy_room.other" not in sys.modules


def test_a_submodule_loads_at_first_use(package):
    assert package.other is sys.modules["lazy_room.other"]


def test_from_imports_work(package):
    from lazy_room import answer

    assert answer == 42


def test_dir_lists_names_and_submodules(package):
    assert dir(package) == ["answer", "other"]


def test_other_names_are_attribute_errors(package):
    with pytest.raises(AttributeError, match="module 'lazy_room' has no attribute 'question'"):
        package.question  # noqa: B018
    assert not hasattr(package, "question")


def test_a_home_without_the_name_is_an_attribute_error(package):
    load, _ = lazy_names("lazy_room", {"missing": "home"})
    with pytest.raises(AttributeError, match="missing"):
        load("missing")
