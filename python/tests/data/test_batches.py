"""Batches: every form that can be read without guessing is, all others are refused by name."""

from collections import namedtuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from transformers import BatchFeature

from agflow.data.batches import check_labels, image_batches, labelled_batches, read_batch
from agflow.errors import AgflowError, EmptyError, InvalidValueError

X, Y = torch.arange(2 * 3 * 8 * 8).reshape(2, 3, 8, 8) / 99, torch.tensor([4, 1])
Swapped = namedtuple("Swapped", "label image")
Plain = namedtuple("Plain", "x y")
BIG_ENDIAN = np.array([4, 1], ">i4")

READ = {
    "tuple": (X, Y),
    "list": [X, Y],
    "transformers' collator": {"pixel_values": X, "labels": Y},
    "image processor": BatchFeature({"pixel_values": X, "labels": [4, 1]}),
    "singular keys, and others": {"label": Y, "image": X, "path": ["a", "b"]},
    "named tuple, by its names": Swapped(Y, X),
    "named tuple of unknown names, by its order": Plain(X, Y),
    "arrays": (X.numpy(), Y.numpy()),
    "read-only, reversed, big-endian arrays": (
        np.broadcast_to(X.numpy()[:, :, :, ::-1], X.shape)[:, :, :, ::-1],
        BIG_ENDIAN,
    ),
    "lists of tensors and numbers": ([*X], [4, 1]),
    "lists of arrays and scalars": ([*X.numpy()], [*Y]),
    "int32 labels": (X, Y.int()),
    "uint8 labels": (X, Y.to(torch.uint8)),
    "uint16 labels": (X, Y.to(torch.uint16)),
    "a column of labels": (X, Y[:, None]),
    "a gradient": (X.clone().requires_grad_(), Y),
    "logits of a teacher": (X, Y, torch.zeros(2, 10)),
    "channels-last memory": (X.to(memory_format=torch.channels_last), Y),
}


@pytest.mark.parametrize("form", READ)
def test_images_and_labels_are_read_from(form):
    batch = read_batch(READ[form])
    assert torch.equal(batch.images, X) and torch.equal(batch.labels, Y)
    assert batch.labels.dtype is torch.int64 and not batch.images.requires_grad
    assert (batch.logits is not None) == (form == "logits of a teacher")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floats_of_any_width_stay_as_they_are(dtype):
    assert read_batch((X.to(dtype), Y)).images.dtype is dtype


REFUSED = {
    "images alone": (X, "images without labels"),
    "a tuple of images alone": ((X,), "images without labels"),
    "no labels": ({"pixel_values": X, "labels": None}, "images without labels"),
    "an index": ((X, Y, Y), r"third part is torch.int64 \[2\]"),
    "four parts": ((X, Y, Y, Y), "has 4 parts"),
    "tokens of other images": (
        {"images": X, "labels": Y, "tokens": torch.zeros(3, 4, 5)},
        r"tokens are torch.float32 \[3, 4, 5\], expected .* \[2, tokens, channels\]",
    ),
    "unknown keys": ({"x": X, "y": Y}, "the keys x, y, expected .* pixel_values or images"),
    "text": ("images", "is a str"),
    "a number": (3, "is a int"),
    "one item of a dataset": ((X[0], 4), r"\[3, 8, 8\].*DataLoader\(dataset"),
    "raw pixels": ((X.byte(), Y), "images are torch.uint8, expected floats: normalise"),
    "channels last": ((torch.zeros(2, 8, 8, 3), Y), r"permute\(0, 3, 1, 2\)"),
    "images of several sizes": (([X[0], X[1, :, :4]], Y), "images are a list"),
    "names as labels": ((X, ["cat", "dog"]), "labels are a list"),
    "one-hot labels": ((X, torch.eye(10)[Y].long()), r"\[2, 10\].*labels.argmax"),
    "soft labels": ((X, torch.rand(2, 10)), r"\[2, 10\].*labels.argmax"),
    "float labels": ((X, Y.float()), "labels are torch.float32.*labels.long"),
    "bool labels": ((X, Y > 1), "labels are torch.bool"),
    "a row of labels": ((X, Y[None]), r"labels have the shape \[1, 2\]"),
    "too few labels": ((X, Y[:1]), "2 images and 1 labels"),
    "no image": ((X[:0], Y[:0]), "holds no image"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_would_be_a_guess_is_refused_by_name(form):
    batch, message = REFUSED[form]
    with pytest.raises(AgflowError, match=f"(?s)^batch 7 of the loader: .*{message}"):
        read_batch(batch, 7)


def test_the_number_of_a_bad_batch_is_named():
    with pytest.raises(AgflowError, match="^batch 2 of the loader: labels are torch.float32"):
        list(labelled_batches([(X, Y), (X, Y.float())]))


def test_empty_batches_are_passed_over_and_empty_loaders_refused():
    batches = list(labelled_batches([(X[:0], Y[:0]), (X, Y), ([], []), []]))
    assert len(batches) == 1 and torch.equal(batches[0].images, X)
    for loader in ([], [(X[:0], Y[:0])], iter([])):
        with pytest.raises(EmptyError, match="gave no batch with images"):
            list(labelled_batches(loader))


def test_images_are_read_without_a_look_at_the_labels():
    loader = [X, (X,), (X, None), (X, ["cat", "dog"], 1, 2), {"pixel_values": X}, X.numpy()]
    found = list(image_batches(loader))
    assert len(found) == 6 and all(torch.equal(images, X) for images in found)
    with pytest.raises(AgflowError, match="batch 2 .* images are torch.int64"):
        list(image_batches([X, (Y.reshape(2, 1, 1, 1), X)]))


@pytest.mark.parametrize(
    "loader",
    [TensorDataset(X, Y), DataLoader(TensorDataset(X, Y), batch_size=None), X, (X, Y)],
    ids=["a dataset", "a loader without batches", "a tensor", "a bare batch"],
)
def test_what_is_no_loader_of_batches_is_refused(loader):
    with pytest.raises(AgflowError, match=r"batch 1 of the loader: .*expected"):
        list(labelled_batches(loader))


@pytest.mark.parametrize("loader", [None, 3, "example:test", {"pixel_values": X}])
def test_what_cannot_be_a_loader_is_refused(loader):
    with pytest.raises(InvalidValueError, match="the loader is a .*, expected a DataLoader"):
        list(labelled_batches(loader))


def test_tensors_of_inference_mode_become_ones_for_autograd():
    with torch.inference_mode():
        inside = X * 2, Y * 1
    batch = read_batch(inside)
    assert not batch.images.is_inference() and not batch.labels.is_inference()
    assert torch.equal(batch.images, X * 2)


@pytest.mark.parametrize("labels", [[-1, -1], [1, 10], [-100, 3]])
def test_labels_outside_the_classes_are_refused(labels):
    check_labels(torch.tensor([0, 9]), 10)
    with pytest.raises(InvalidValueError, match=r"the model has 10 classes \(0 to 9\)"):
        check_labels(torch.tensor(labels), 10)
