"""Loaders with workers give the same batches, and the errors of workers are the same sentence."""

import pytest
import torch
from pictures import RGB, picture
from torch.utils.data import DataLoader

import agflow
from agflow.data import image_loader, load_dataset
from agflow.data.batches import labelled_batches
from agflow.errors import CorruptFileError, InvalidValueError


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "cat").mkdir()
    for i in range(6):
        (tmp_path / "cat" / f"{i}.png").write_bytes(picture(10 * i))
    return load_dataset(f"imagefolder:{tmp_path}", preprocessing=RGB), tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("seed", [None, 3])
def test_the_batches_do_not_depend_on_the_workers(photos, seed):
    loaders = [image_loader(photos[0], 4, workers=n, shuffle_seed=seed) for n in (0, 2)]
    for _ in range(2):
        alone, shared = (torch.cat([x for x, _ in loader]) for loader in loaders)
        assert torch.equal(alone, shared)


def test_the_error_of_a_worker_is_that_of_the_image(photos):
    (photos[1] / "cat" / "3.png").write_bytes(b"broken")
    workers = DataLoader(photos[0], 2, num_workers=1, multiprocessing_context="fork")
    for loader in (DataLoader(photos[0], 2), workers):
        with pytest.raises(CorruptFileError, match="^.*cat/3.png cannot be decoded") as error:
            list(labelled_batches(loader))
        assert "\n" not in str(error.value) and "Caught" not in str(error.value)


def test_training_says_it_too(photos, make_vit):
    (photos[1] / "cat" / "3.png").write_bytes(b"broken")
    workers = DataLoader(photos[0], 2, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(CorruptFileError, match="^.*cat/3.png cannot be decoded") as error:
        agflow.finetune(make_vit(img_size=16), workers, epochs=1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("how", [{"batch_size": 0}, {"batch_size": 2, "workers": -1}])
def test_numbers_out_of_range(photos, how):
    with pytest.raises(InvalidValueError, match="expected at least 1 and 0"):
        image_loader(photos[0], **how)
