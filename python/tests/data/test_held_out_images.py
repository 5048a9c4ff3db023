"""Images of every form, split into two parts that share none."""

import collections

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    SubsetRandomSampler,
    TensorDataset,
)

from agflow.data.batches import image_batches
from agflow.data.held_out_images import MOST_HELD_OUT, hold_out, split_images
from agflow.data.leakage import image_hashes
from agflow.errors import AgflowError, DtypeError, EmptyError, InvalidValueError, ShapeError

X = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 10
NAMED = collections.namedtuple("NAMED", "pixel_values labels")


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y.tolist(), strict=True))


class Items(Dataset):
    """Items of a form that is given."""

    def __init__(self, form):
        self.form = form

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return self.form(X[index], int(Y[index]))


class OwnLoader:
    def __iter__(self):
        return zip(X.split(5), Y.split(5), strict=True)


def batches():
    return list(zip(X.split(5), Y.split(5), strict=True))


FORMS = {
    "tensor": lambda: X,
    "array": lambda: X.numpy(),
    "pair": lambda: (X, Y),
    "pair of arrays": lambda: [X.numpy(), Y.numpy()[:, None]],
    "dictionary": lambda: {"pixel_values": X, "labels": Y},
    "dictionary of images": lambda: {"pixel_values": X},
    "dataset": lambda: TensorDataset(X, Y),
    "dataset of images": lambda: Items(lambda image, label: image),
    "dataset of dictionaries": lambda: Items(
        lambda image, label: {"pixel_values": image, "label": label, "id": 0}
    ),
    "dataset with paths": lambda: Items(lambda image, label: (image, label, object())),
    "list of samples": lambda: list(zip(X, Y.tolist(), strict=True)),
    "list of images": lambda: list(X),
    "list of batches": batches,
    "list of batches of images": lambda: list(X.split(5)),
    "named batches": lambda: [NAMED(*batch) for batch in batches()],
    "dictionaries": lambda: [{"images": x.numpy(), "label": y.tolist()} for x, y in batches()],
    "iterator": lambda: iter(batches()),
    "own loader": OwnLoader,
    "loader": lambda: DataLoader(TensorDataset(X, Y), 7, shuffle=True),
    "loader with workers": lambda: DataLoader(TensorDataset(X, Y), 7, num_workers=1),
    "loader of ready batches": lambda: DataLoader(batches(), batch_size=None),
    "stream": Stream,
    "loader of a stream": lambda: DataLoader(Stream(), 7),
    "repeated batches": lambda: batches() * 3,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_split_into_the_same_images_of_two_parts(form):
    split = lambda seed=0: split_images(
        FORMS[form](), calibration=1000, share=0.25, batch_size=4, seed=seed
    )
    parts = split()
    assert parts.labelled == ("images" not in form and form not in ("tensor", "array"))
    found = []
    for part in (parts.calibration, parts.held_out, parts.held_out):
        read = list(part)
        images = torch.cat(list(image_batches(read)))
        rows = [int((X == image).flatten(1).all(1).nonzero()) for image in images]
        if parts.labelled:
            get = lambda batch: batch["label"] if isinstance(batch, dict) else batch[1]
            assert torch.cat([torch.as_tensor(get(b)).flatten() for b in read]).equal(Y[rows])
        found.append(rows)
    kept, held, again = found
    assert sorted(kept + held) == list(range(24)) and len(held) == 6 and held == again
    hashes = [f"{number & (1 << 64) - 1:016x}" for number in image_hashes(X[kept]).tolist()]
    assert len(parts.calibration.sketch.split()) == len(hashes) == 18
    assert [*map(len, image_batches(split(1).calibration))] == [4, 4, 4, 4, 2]
    other = torch.cat(list(image_batches(split(1).held_out)))
    assert not torch.equal(other, X[held])


def test_no_more_is_read_than_needed_and_only_what_a_sampler_gives():
    def endless():
        while True:
            yield torch.randn(50, 1, 4, 4)

    parts = split_images(endless(), calibration=20, share=0.25, batch_size=10, seed=0)
    assert [*map(len, image_batches(parts.calibration))] == [10, 10]
    assert sum(map(len, parts.held_out)) == (20 + MOST_HELD_OUT + 30) // 4
    sampler = SubsetRandomSampler(range(8))
    loader = DataLoader(TensorDataset(X, Y), 3, sampler=sampler)
    parts = split_images(loader, calibration=1000, share=0.5, batch_size=4, seed=0)
    rows = [image for part in (parts.calibration, parts.held_out) for image in image_batches(part)]
    assert sorted(torch.cat(rows)[:, 0, 0, 0].tolist()) == sorted(X[:8, 0, 0, 0].tolist())


def test_images_that_a_dataset_holds_twice_are_not_in_both_parts():
    rows = [*range(24), *range(6)]
    twice = TensorDataset(X[rows], Y[rows])
    parts = split_images(twice, calibration=1000, share=0.25, batch_size=4, seed=0)
    kept = set(image_hashes(torch.cat([x for x, _ in parts.calibration])).tolist())
    held = set(image_hashes(torch.cat([x for x, _ in parts.held_out])).tolist())
    assert held and not kept & held
    same = TensorDataset(X[:1].repeat(9, 1, 1, 1), Y[:1].repeat(9))
    parts = split_images(same, calibration=1000, share=0.25, batch_size=4, seed=0)
    assert list(parts.calibration)
    with pytest.raises(EmptyError, match="equals one that calibrated: give more"):
        list(parts.held_out)


def test_a_smaller_share_holds_a_part_of_the_same_images_out():
    most, few = hold_out(100, 0.3, seed=1)[1], hold_out(100, 0.1, seed=1)[1]
    assert set(few) < set(most) and len(few) == 10
    assert hold_out(2, 0.01, seed=0)[1] and hold_out(2, 0.99, seed=0)[0]
    assert len(hold_out(10_000, 0.5, 0, most=7)[1]) == 7


@pytest.mark.parametrize(
    "images, kind, message",
    [
        (X[0], ShapeError, r"\[3, 8, 8\], expected \[images, channels.*single image as image"),
        ((X * 9).byte(), DtypeError, "uint8, expected floats: normalise"),
        (X[:1], EmptyError, "there are 1 different images, expected at least 2"),
        ([], EmptyError, "gave no batch"),
        (TensorDataset(X[:0], Y[:0]), EmptyError, "expected at least"),
        (7, InvalidValueError, "is a int, expected a DataLoader"),
        ([Image.new("RGB", (8, 8))] * 3, InvalidValueError, "it is a Image, expected"),
        ([(Image.new("RGB", (8, 8)), 1)] * 3, DtypeError, "PIL.Image.Image, expected a tensor"),
        ([{"pixels": X}], InvalidValueError, "it has the keys pixels"),
        ((X, Y.float()), DtypeError, "labels are torch.float32, expected class numbers"),
        ((X, Y[:3]), ShapeError, "24 images and 3 labels"),
        (np.zeros((4, 8, 8, 3), np.float32), ShapeError, "channels last"),
    ],
)
def test_refusals(images, kind, message):
    with pytest.raises(kind, match=message) as raised:
        split_images(images, calibration=8, share=0.25, batch_size=4, seed=0)
    assert isinstance(raised.value, AgflowError) and "\n" not in str(raised.value)
