"""Images by short names: ``parquet:FILE``, ``npz:FILE``, ``imagefolder:DIR``, ``example:train``."""

from __future__ import annotations

import functools
import hashlib
import pathlib
from collections.abc import Sequence

import numpy as np
import torch

from agflow._utils.nearest import did_you_mean
from agflow._utils.tensors import raw_bytes
from agflow.data.class_names import ModelClasses, match_classes
from agflow.data.digest import digest_of_files
from agflow.data.folder_images import read_folder
from agflow.data.npz_images import read_npz
from agflow.data.opening import readable_name, reason
from agflow.data.options import DataOptions
from agflow.data.parquet_images import read_parquet
from agflow.data.pixel_cache import PixelCache
from agflow.data.preprocessing import Preprocessing
from agflow.data.source import Images, Source
from agflow.errors import AgflowError, CorruptFileError, EmptyError, InvalidValueError

EXAMPLE = pathlib.Path(__file__).parents[1] / "example"


class Dataset(torch.utils.data.Dataset):
    """Labelled images: item i is (float32 [C, H, W], int label).

    Decoded images are kept as uint8, the first ones up to a limit
    (:attr:`DataOptions.cache_bytes`).

    Attributes
    ----------
    labels : int64 [N]
    preprocessing : Preprocessing
    classes : the model's class by the name of the data's, {} where the data have no names
    """

    def __init__(
        self,
        images: Images,
        labels_N: torch.Tensor,
        preprocessing: Preprocessing,
        cache_bytes: int,
        classes: dict[str, int],
    ):
        self._images = images
        self.labels, self.preprocessing, self.classes = labels_N, preprocessing, classes
        shape = (preprocessing.channels, *preprocessing.input_size)
        self._cache = PixelCache(len(labels_N), shape, cache_bytes)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the labels and of the files that hold the images (``digest_of_files``)."""
        files = digest_of_files(self._images.files)
        return hashlib.sha256(files.encode() + raw_bytes(self.labels)).hexdigest()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Image and label; CorruptFileError with its row or path for one that cannot be decoded."""
        label = int(self.labels[index])
        pixels = self._cache.get(index)
        if pixels is None:
            pixels = self._decode(range(len(self))[index])
            self._cache.add(index, pixels)
        return self.preprocessing.normalise(pixels), label

    def _decode(self, index: int) -> torch.Tensor:
        # Decoders raise whatever a broken file makes them run into, a MemoryError among others.
        try:
            with self._images.open(index) as image:
                return self.preprocessing.pixels(image)
        except AgflowError:
            raise
        except Exception as error:
            raise CorruptFileError(
                f"{self._images.name(index)} cannot be decoded ({reason(error)}); remove it or "
                "repair the file"
            ) from error


def load_dataset(
    spec: str,
    *,
    preprocessing: Preprocessing,
    limit: int | None = None,
    offset: int = 0,
    seed: int | None = None,
    classes: int | Sequence[str] | None = None,
    only: Sequence[int] | None = None,
    options: DataOptions = DataOptions(),
) -> Dataset:
    """Load labelled images by a short name.

    =================== ==========================================================================
    ``parquet:FILE``    a column of images (struct of bytes and path as Hugging Face writes it,
                        binary, or paths) and one of labels. A folder, or a pattern such as
                        ``parquet:DIR/train-*.parquet``, names the parts of one data set
    ``npz:FILE``        arrays x, y or x_train, y_train, with ``npz:FILE#test`` x_test, y_test; x is
                        uint8 [N, H, W] or [N, H, W, 3]
    ``imagefolder:DIR`` one folder of images per class
    ``example:train``   the shipped Fashion-MNIST sample of 4,000 images; ``example:test`` has 1,000
    =================== ==========================================================================

    Images are JPEG, PNG, WebP, TIFF, BMP, GIF or PPM (:mod:`agflow.data.decoding` says how they
    become 8 bits a channel). Those of a parquet file are read by row group when they are asked for.

    Parameters
    ----------
    spec : one of these names
    preprocessing : of the model that gets the images, such as :func:`agflow.load_model` returns
    limit, offset : take ``limit`` images after skipping ``offset``
    seed : take the images class by class in turn, each class in seeded random order, so that any
        first n are balanced; without a seed in file order
    classes : of the model, their number or their names (:func:`agflow.models.class_names`). Classes
        of the data that have names are matched to them (:mod:`agflow.data.class_names` has the
        rules); a label outside them is refused
    only : leave out images of all classes but these, whose labels become their places in this list,
        as those of :func:`agflow.models.only_classes` are
    options : columns of a parquet file, the classes as a map, and how much memory may be used

    Raises
    ------
    InvalidValueError
        Unknown prefix, missing column or array, classes that match none of the model's, labels
        outside them, a negative limit or offset.
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
    if offset < 0 or (limit is not None and limit < 0):
        raise InvalidValueError(
            f"limit is {limit} and offset {offset}, expected numbers of at least 0"
        )
    model = ModelClasses.of(classes)
    source = _read(spec, options, model)
    labels_N, names = _model_labels(source, model, options, spec)
    order = np.arange(len(labels_N)) if seed is None else _in_turn(labels_N, seed)
    if only is not None:
        order = order[np.isin(labels_N[order], only)]
        place = {label: i for i, label in enumerate(only)}
        labels_N = np.array([place.get(label, -1) for label in labels_N.tolist()], np.int64)
    rows = order[offset : None if limit is None else offset + limit]
    if len(rows) == 0:
        raise EmptyError(
            f"{readable_name(spec)} has {len(labels_N)} images and none is left after offset "
            f"{offset} and limit {limit}; expected at least one"
        )
    labels = torch.from_numpy(labels_N[rows])
    return Dataset(source.take(rows), labels, preprocessing, options.cache_bytes, names)


def _read(spec: str, options: DataOptions, model: ModelClasses) -> Source:
    prefix, _, rest = spec.partition(":")
    if prefix == "parquet" and rest:
        return read_parquet(rest, options, model.count)
    if prefix == "npz" and rest:
        return read_npz(rest)
    if prefix == "imagefolder" and rest:
        return read_folder(rest)
    if prefix == "example" and rest:
        if rest not in ("train", "test"):
            raise InvalidValueError(
                f"data {spec!r} is unknown, expected example:train or example:test"
            )
        return read_npz(f"{EXAMPLE / 'fashion_mnist_mini.npz'}#{rest}")
    raise InvalidValueError(
        f"data {spec!r} is not understood, expected one of: parquet:FILE, npz:FILE, "
        "npz:FILE#test, imagefolder:DIR, example:train or example:test"
        + did_you_mean(spec, (f"{form}:{rest}" for form in ("parquet", "npz", "imagefolder")))
    )


def _model_labels(
    source: Source, model: ModelClasses, options: DataOptions, spec: str
) -> tuple[np.ndarray, dict[str, int]]:
    """The labels as the model counts its classes, int64 [N], and its class by name."""
    labels_N, own_names = source.labels_N, source.names
    strange = np.flatnonzero(labels_N < 0)
    if len(strange):
        row = source.take(strange[:1]).name(0)
        raise InvalidValueError(
            f"{row} has the label {labels_N[strange[0]]}, as have {len(strange)} of "
            f"{len(labels_N)} images a negative one, which is no class (unlabelled data have -1): "
            "leave them out"
        )
    names: dict[str, int] = {}
    if own_names is None and options.class_map is not None:
        numbers_K, labels_N = np.unique(labels_N, return_inverse=True)
        own_names = [str(number) for number in numbers_K]
    if own_names is not None:
        used = np.unique(labels_N).tolist()
        found = match_classes(own_names, used, model, options.class_map, readable_name(spec))
        place_K = np.zeros(len(own_names), np.int64)
        place_K[list(found)] = list(found.values())
        labels_N = place_K[labels_N]
        names = {own_names[own]: number for own, number in found.items()}
    _check_labels(labels_N, model.count, spec)
    return labels_N, names


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
            f"labels of {readable_name(spec)} run from {low} to {high}, the model has {classes} "
            f"classes (0 to {classes - 1}): "
            "name the right column with label, or take a model of these classes"
        )
