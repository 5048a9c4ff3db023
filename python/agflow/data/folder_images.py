"""``imagefolder:DIR``: one folder of images per class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from PIL import Image

from agflow.data.decoding import open_image
from agflow.data.opening import open_regular, readable_name, reason
from agflow.data.source import Source
from agflow.errors import FileError, InvalidValueError

ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
# They are images, so passing them over would lose them without a word.
_OTHER_IMAGES = (
    *(".avif", ".heic", ".heif", ".jp2", ".j2k", ".jxl", ".psd", ".tga", ".ico", ".dds", ".exr"),
    *(".svg", ".dcm", ".dng", ".cr2", ".nef", ".arw", ".npy"),
)
# Made by file managers and archives, as are all names that begin with a dot.
_NO_CLASSES = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}


class FolderImages:
    """The image files of a folder, in the order given."""

    def __init__(self, paths: Sequence[str]):
        self.files = paths

    def name(self, index: int) -> str:
        """The path of an image."""
        return readable_name(self.files[index])

    @contextmanager
    def open(self, index: int) -> Iterator[Image.Image]:
        """Open an image, for as long as the context is."""
        with open_regular(self.files[index]) as file:
            yield open_image(file)


def read_folder(path: str) -> Source:
    """Find the classes and the images of a folder.

    Hidden files and folders, and what file managers leave behind, are no images and no classes.
    Files that are no images by their ending (texts, tables) are passed over.

    Raises
    ------
    FileError
        The folder is missing or cannot be read, or has no folders of images.
    InvalidValueError
        A file is an image of a format that is not read.
    """
    names = sorted(entry.name for entry in _entries(path) if entry.is_dir())
    paths, labels = [], []
    for label, name in enumerate(names):
        found = sorted(_images(os.path.join(path, name), set()))
        if not found:
            raise FileError(
                f"{readable_name(os.path.join(path, name))} has no image ({', '.join(ENDINGS)}), "
                "expected some in the folder of a class: remove it, or give the folder above the "
                "classes"
            )
        paths += found
        labels += [label] * len(found)
    if not names:
        raise FileError(
            f"{readable_name(path)} is not a folder with one folder of images per class: it has no "
            "folders"
        )
    shown = [readable_name(name) for name in names]
    return Source(
        np.array(labels, np.int64),
        shown,
        lambda rows: FolderImages([paths[row] for row in rows]),
    )


def _entries(path: str) -> list[os.DirEntry]:
    try:
        with os.scandir(path) as entries:
            return [
                entry
                for entry in entries
                if not entry.name.startswith(".") and entry.name not in _NO_CLASSES
            ]
    except (OSError, ValueError) as error:
        raise FileError(
            f"{readable_name(path)} is not a folder with one folder of images per class "
            f"({reason(error)})"
        ) from error


def _images(path: str, above: set[tuple[int, int]]) -> Iterator[str]:
    """The images of a class, in its folder and those in it; ``above`` ends a circle of links."""
    here = os.stat(path)
    if (here.st_dev, here.st_ino) in above:
        return
    for entry in _entries(path):
        ending = os.path.splitext(entry.name)[1].lower()
        if entry.is_dir():
            yield from _images(entry.path, above | {(here.st_dev, here.st_ino)})
        elif ending in ENDINGS:
            yield entry.path
        elif ending in _OTHER_IMAGES:
            raise InvalidValueError(
                f"{readable_name(entry.path)} is of a format that is not read: convert it to one "
                f"of {', '.join(ENDINGS)}, or remove it"
            )
