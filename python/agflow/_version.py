"""The installed version; a module of its own, since ``importlib.metadata`` is slow to import."""

from importlib.metadata import version

__version__ = version("agflow")
