"""Decoded images are kept up to a limit, in every process its share of it."""

import pickle

import pytest
import torch
from pictures import RGB, picture
from torch.utils.data import DataLoader

from agflow.data import pixel_cache
from agflow.data.datasets import load_dataset
from agflow.data.options import DataOptions
from agflow.errors import InvalidValueError

IMAGE = 3 * 16 * 16


class _Worker:
    num_workers = 2


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "cat").mkdir()
    for i in range(6):
        (tmp_path / "cat" / f"{i}.png").write_bytes(picture(10 * i))
    return f"imagefolder:{tmp_path}"


def load(spec, images):
    return load_dataset(
        spec, preprocessing=RGB, options=DataOptions(cache_bytes=int(images * IMAGE))
    )


@pytest.mark.parametrize(("room", "kept"), [(0, 0), (0.5, 0), (2.5, 2), (6, 6), (100, 6)])
def test_the_first_images_are_kept(photos, room, kept):
    images = load(photos, room)
    first = [image for image, _ in images]
    assert images._cache._used == kept
    assert images._cache._pixels is None or images._cache._pixels.nbytes == kept * IMAGE
    assert all(torch.equal(a, b) for a, (b, _) in zip(first, images, strict=True))
    images._images = None
    for index in range(kept):
        assert torch.equal(images[index][0], first[index])
    if kept < 6:
        with pytest.raises(AttributeError):
            images._images.open(kept)


def test_a_worker_keeps_its_share(photos, monkeypatch):
    images = load(photos, 4)
    monkeypatch.setattr(pixel_cache, "get_worker_info", _Worker)
    list(images)
    assert images._cache._used == 2


def test_a_pickled_cache_is_empty(photos):
    images = load(photos, 6)
    size = len(pickle.dumps(images))
    list(images)
    again = pickle.loads(pickle.dumps(images))
    assert again._cache._used == 0 and len(pickle.dumps(images)) == size
    assert torch.equal(again[3][0], images[3][0])


def test_persistent_workers_give_the_same_images_in_every_epoch(photos):
    images = load(photos, 3)
    loader = DataLoader(images, 2, num_workers=2, persistent_workers=True)
    plain = torch.stack([image for image, _ in images])
    for _ in range(3):
        assert torch.equal(torch.cat([x for x, _ in loader]), plain)


def test_indices(photos):
    images = load(photos, 2)
    assert torch.equal(images[-1][0], images[5][0]) and torch.equal(images[-6][0], images[0][0])
    with pytest.raises(IndexError):
        images[6]


def test_a_negative_limit():
    with pytest.raises(InvalidValueError, match="cache_bytes is -1"):
        DataOptions(cache_bytes=-1)
