"""Images by short names: ``parquet:FILE``, ``npz:FILE``, ``imagefolder:DIR``, ``example:train``."""

from __future__ import annotations

import io
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from PIL import Image

from agflow.data.preprocessing import Preprocessing
from agflow.errors import AgflowError, CorruptFileError, EmptyError, FileError, InvalidValueError

EXAMPLE = pathlib.Path(__file__).parents[1] / "example"
IMAGENET_CLASSES = 1000


class Dataset(torch.utils.data.Dataset):
    """Labelled images: item i is (float32 [C, H, W], int label).

    Each image is decoded once and kept as uint8.

    Attributes
    ----------
    labels : int64 [N]
    preprocessing : Preprocessing
    """

    def __init__(
        self,
        source: str,
        open_image: Callable[[int], Image.Image],
        labels_N: torch.Tensor,
        preprocessing: Preprocessing,
    ):
        self._source, self._open_image = source, open_image
        self.labels, self.preprocessing = labels_N, preprocessing
        self._pixels = torch.empty(
            len(labels_N), preprocessing.channels, *preprocessing.input_size, dtype=torch.uint8
        )
        self._decoded = torch.zeros(len(labels_N), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Image and label; CorruptFileError with its row for an image that cannot be decoded."""
        if not self._decoded[index]:
            try:
                self._pixels[index] = self.preprocessing.pixels(self._open_image(index))
            except (
                OSError,
                TypeError,
                ValueError,
                SyntaxError,
                Image.DecompressionBombError,
            ) as error:
                raise CorruptFileError(
                    f"image {index} of {self._source} cannot be decoded ({error}); remove it or "
                    "repair the file"
                ) from error
            self._decoded[index] = True
        return self.preprocessing.normalise(self._pixels[index]), int(self.labels[index])


def load_dataset(
    spec: str,
    *,
    preprocessing: Preprocessing,
    label: str | None = None,
    limit: int | None = None,
    offset: int = 0,
    seed: int | None = None,
    classes: int | None = None,
    only: Sequence[int] | None = None,
) -> Dataset:
    """Load labelled images by a short name.

    =================== ==========================================================================
    ``parquet:FILE``    column ``image`` (struct of bytes and path, as Hugging Face writes it) and a
                        label column
    ``npz:FILE``        arrays x, y or x_train, y_train, with ``npz:FILE#test`` x_test, y_test; x is
                        uint8 [N, H, W] or [N, H, W, 3]
    ``imagefolder:DIR`` one folder of images per class, classes in alphabetical order
    ``example:train``   the shipped Fashion-MNIST sample of 4,000 images; ``example:test`` has 1,000
    =================== ==========================================================================

    Parameters
    ----------
    spec : one of these names
    preprocessing : of the model that gets the images, such as :func:`agflow.load_model` returns
    label : label column of a parquet file; by default ``label``, or ``imagenet_label`` where the
        file has it and the model has the 1,000 classes of ImageNet
    limit, offset : take ``limit`` images after skipping ``offset``
    seed : take the images class by class in turn, each class in seeded random order, so that any
        first n are balanced; without a seed in file order
    classes : number of classes of the model; a label outside it is refused
    only : leave out images of all classes but these, whose labels become their places in this list,
        as those of :func:`agflow.models.only_classes` are

    Raises
    ------
    InvalidValueError
        Unknown prefix, missing column or array, labels outside the model's classes, a negative
        limit or offset.
    FileError, CorruptFileError
        The file is missing or not readable; damaged or of another format.
    EmptyError
        No image is left.

    Examples
    --------
    >>> import agflow
    >>> model, preprocessing, name = agflow.load_model("example")
    >>> images = agflow.load_dataset("example:test", preprocessing=preprocessing, limit=20, seed=0)
    >>> image, label = images[0]
    >>> len(images), image.dtype, image.shape
    (20, torch.float32, torch.Size([1, 28, 28]))
    >>> sorted(images.labels.tolist())[:6]  # balanced, as a seed makes them
    [0, 0, 1, 1, 2, 2]
    """
    prefix, _, rest = spec.partition(":")
    if prefix not in _READERS or not rest:
        raise InvalidValueError(
            f"data {spec!r} is not understood, expected one of: parquet:FILE, npz:FILE, "
            "npz:FILE#test, imagefolder:DIR, example:train, example:test"
        )
    if offset < 0 or (limit is not None and limit < 0):
        raise InvalidValueError(
            f"limit is {limit} and offset {offset}, expected numbers of at least 0"
        )
    labels_N, opener = _READERS[prefix](rest, label, classes)
    _check_labels(labels_N, classes, spec)
    order = np.arange(len(labels_N)) if seed is None else _in_turn(labels_N, seed)
    if only is not None:
        order = order[np.isin(labels_N[order], only)]
        place = {label: i for i, label in enumerate(only)}
        labels_N = np.array([place.get(label, -1) for label in labels_N.tolist()], np.int64)
    rows = order[offset : None if limit is None else offset + limit]
    if len(rows) == 0:
        raise EmptyError(
            f"{spec} has {len(labels_N)} images and none is left after offset {offset} and limit "
            f"{limit}; expected at least one"
        )
    return Dataset(spec, opener(rows), torch.from_numpy(labels_N[rows]), preprocessing)


def _in_turn(labels_N: np.ndarray, seed: int) -> np.ndarray:
    """Order the rows such that the classes alternate, each in seeded random order."""
    shuffled = np.random.default_rng(seed).permutation(len(labels_N))
    by_class = shuffled[np.argsort(labels_N[shuffled], kind="stable")]
    sizes = np.unique(labels_N, return_counts=True)[1]
    turn = np.concatenate([np.arange(size) for size in sizes]) if len(sizes) else by_class
    return by_class[np.argsort(turn, kind="stable")]


def _check_labels(labels_N: np.ndarray, classes: int | None, spec: str) -> None:
    if classes is None or len(labels_N) == 0:
        return
    low, high = labels_N.min(), labels_N.max()
    if low < 0 or high >= classes:
        raise InvalidValueError(
            f"labels of {spec} run from {low} to {high}, the model has {classes} classes (0 to "
            f"{classes - 1}): "
            "name the right column with label, or take a model of these classes"
        )


@contextmanager
def _reading(path: str, kind: str) -> Iterator[None]:
    try:
        yield
    except AgflowError:
        raise
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise missing_file(path) from error
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        EOFError,
        pa.ArrowException,
        zipfile.BadZipFile,
    ) as error:
        raise CorruptFileError(f"{path} is not a readable {kind} ({error})") from error


def _open_encoded(encoded_N: pa.ChunkedArray, index: int) -> Image.Image:
    return Image.open(io.BytesIO(encoded_N[index].as_py()))


def _open_array(x_NHW: np.ndarray, index: int) -> Image.Image:
    return Image.fromarray(x_NHW[index])


def _open_path(paths: list[str], index: int) -> Image.Image:
    return Image.open(paths[index])


def _read_parquet(path: str, label: str | None, classes: int | None):
    with _reading(path, "parquet file"):
        file = pq.ParquetFile(path, memory_map=True)
        columns = file.schema_arrow.names
        if label is None:
            label = (
                "imagenet_label"
                if classes == IMAGENET_CLASSES and "imagenet_label" in columns
                else "label"
            )
        _require(path, columns, [label, "image"], "column")
        labels_N = file.read([label]).column(0)
    if not pa.types.is_integer(labels_N.type) or labels_N.null_count:
        raise InvalidValueError(
            f"column {label!r} of {path} is {labels_N.type} with {labels_N.null_count} nulls, "
            "expected integers without nulls"
        )
    image_type = file.schema_arrow.field("image").type
    if not pa.types.is_struct(image_type) or image_type.get_field_index("bytes") < 0:
        raise InvalidValueError(
            f"column 'image' of {path} is {image_type}, expected a struct with a field 'bytes' as "
            "Hugging Face writes it"
        )

    def opener(rows: np.ndarray):
        with _reading(path, "parquet file"):
            return partial(
                _open_encoded,
                # pyarrow makes its compute functions when it is imported.
                pc.struct_field(  # pyright: ignore[reportAttributeAccessIssue]
                    file.read(["image"]).column(0), "bytes"
                ).take(pa.array(rows)),
            )

    return labels_N.to_numpy().astype(np.int64), opener


def _read_npz(path: str, label: str | None, classes: int | None):
    path, _, part = path.partition("#")
    with _reading(path, "npz file"), np.load(path, allow_pickle=False) as arrays:
        if not part and "x" not in arrays:
            part = "train"
        x_name, y_name = (f"x_{part}", f"y_{part}") if part else ("x", "y")
        _require(path, list(arrays), [x_name, y_name], "array")
        x_NHW, labels_N = arrays[x_name], arrays[y_name]
    if x_NHW.dtype != np.uint8 or x_NHW.ndim not in (3, 4):
        raise InvalidValueError(
            f"array {x_name!r} of {path} is {x_NHW.dtype} {x_NHW.shape}, expected uint8 [N, H, W] "
            "or [N, H, W, 3]"
        )
    if labels_N.shape != x_NHW.shape[:1] or labels_N.dtype.kind not in "iu":
        raise InvalidValueError(
            f"array {y_name!r} of {path} is {labels_N.dtype} {labels_N.shape}, expected "
            f"{len(x_NHW)} integers"
        )
    return labels_N.astype(np.int64), lambda rows: partial(_open_array, x_NHW[rows])


def _read_imagefolder(path: str, label: str | None, classes: int | None):
    from torchvision.datasets import ImageFolder  # slow to import

    try:
        samples = ImageFolder(path).samples
    except OSError as error:
        raise FileError(
            f"{path} is not a folder with one folder of images per class ({error})"
        ) from error
    labels_N = np.array([label for _, label in samples], np.int64)
    return labels_N, lambda rows: partial(_open_path, [samples[row][0] for row in rows])


def _read_example(part: str, label: str | None, classes: int | None):
    if part not in ("train", "test"):
        raise InvalidValueError(
            f"data 'example:{part}' is unknown, expected example:train or example:test"
        )
    return _read_npz(f"{EXAMPLE / 'fashion_mnist_mini.npz'}#{part}", label, classes)


# Each takes (path, label, classes) and returns the labels, int64 [N], and a function from the rows
# to take to a function that opens image i of those rows.
_READERS = {
    "parquet": _read_parquet,
    "npz": _read_npz,
    "imagefolder": _read_imagefolder,
    "example": _read_example,
}


def _require(path: str, found: list[str], wanted: list[str], what: str) -> None:
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InvalidValueError(
            f"{what} {missing[0]!r} is not in {path}; it has {', '.join(found)}"
        )


def missing_file(path: str | os.PathLike) -> FileError:
    return FileError(
        f"{os.fspath(path)} is missing or not a readable file: check the path and its rights "
        f"(working folder {pathlib.Path.cwd()})"
    )
