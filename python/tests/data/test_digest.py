"""A data set is known again by its labels and the content of its files."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from agflow.data import Preprocessing, digest, load_dataset
from agflow.errors import FileError

PREPROCESSING = Preprocessing((8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.fixture
def folder(tmp_path):
    for name in ("apple", "pear"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(2):
            pixels = np.full((8, 8, 3), 10 * i + len(name), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


def digest_of(folder, **options):
    return load_dataset(f"imagefolder:{folder}", preprocessing=PREPROCESSING, **options).digest


def test_the_digest_is_that_of_the_content_wherever_it_lies(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    assert digest_of(folder) == digest_of(tmp_path / "copy")
    image = folder / "pear" / "1.png"
    about = image.stat()
    Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(image)
    os.utime(image, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert digest_of(folder) != digest_of(tmp_path / "copy")


def test_the_same_files_with_other_labels_or_fewer_images_are_others(folder):
    ours = {
        digest_of(folder),
        digest_of(folder, limit=3),
        digest_of(folder, classes=["pear", "apple"]),
    }
    assert len(ours) == 3


def test_of_large_data_sizes_and_times_stand_for_the_content(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(digest, "READ_BYTES", 10)
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copy2)
    assert digest_of(folder) == digest_of(tmp_path / "copy")
    os.utime(tmp_path / "copy" / "pear" / "1.png")
    assert digest_of(folder) != digest_of(tmp_path / "copy")


def test_arrays_and_tables_have_digests_of_their_files(tmp_path):
    x = np.zeros((2, 8, 8, 3), np.uint8)
    for name, labels in (("a", [0, 1]), ("b", [0, 1]), ("c", [1, 1])):
        np.savez(tmp_path / f"{name}.npz", x=x, y=np.array(labels))
    a, b, c = (
        load_dataset(f"npz:{tmp_path / name}.npz", preprocessing=PREPROCESSING).digest
        for name in "abc"
    )
    assert a == b != c


def test_a_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(FileError, match=r"gone\.png is missing"):
        digest.digest_of_files([str(tmp_path / "gone.png")])
