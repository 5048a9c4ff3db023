"""Folders of images as people have them: hidden files, links, other formats, empty classes."""

import os

import pytest
from pictures import RGB, picture, values
from torchvision.datasets import ImageFolder

from agflow.data.datasets import load_dataset
from agflow.errors import CorruptFileError, FileError, InvalidValueError


@pytest.fixture
def photos(tmp_path):
    """Two cats (10, 20) and a dog (30)."""
    for name, shade in (("cat/a.png", 10), ("cat/b.png", 20), ("dog/a.png", 30)):
        place(tmp_path, name, shade)
    return tmp_path


def place(folder, name, shade=0):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(picture(shade))


def load(folder, **how):
    return load_dataset(f"imagefolder:{folder}", preprocessing=RGB, **how)


def test_what_is_hidden_is_no_class_and_no_image(photos):
    for name in (
        ".ipynb_checkpoints/1-checkpoint.png",
        "__MACOSX/cat/._a.png",
        "@eaDir/a.png",
        "cat/.ipynb_checkpoints/a-checkpoint.png",
        "cat/._a.png",
        "dog/@eaDir/thumb.jpg",
    ):
        place(photos, name, 90)
    for name in ("cat/Thumbs.db", "dog/notes.txt", "labels.csv", "cat/.DS_Store"):
        (photos / name).write_text("no image")
    images = load(photos)
    assert values(images) == [10, 20, 30] and images.labels.tolist() == [0, 0, 1]
    assert images.classes == {"cat": 0, "dog": 1}


def test_it_is_torchvisions_order(photos):
    place(photos, "cat/inner/c.PNG", 40)
    place(photos, "Bird/z.jpeg", 50)
    expected = ImageFolder(str(photos)).samples
    images = load(photos)
    assert images.labels.tolist() == [label for _, label in expected]
    assert [images._images.name(i) for i in range(len(images))] == [path for path, _ in expected]


@pytest.mark.parametrize("how", [{}, {"seed": 1}, {"offset": 1}, {"only": [1]}])
def test_a_broken_image_is_named_by_its_path(photos, how):
    (photos / "dog" / "a.png").write_bytes(b"broken")
    images = load(photos, **how)
    with pytest.raises(CorruptFileError, match=f"^{photos}/dog/a.png cannot be decoded"):
        for index in range(len(images)):
            images[index]


def test_other_images_are_not_passed_over(photos):
    (photos / "dog" / "b.HEIC").write_bytes(b"an image of a phone")
    with pytest.raises(InvalidValueError, match="dog/b.HEIC is of a format that is not read"):
        load(photos)


def test_a_class_without_images_is_refused(photos):
    (photos / "emu").mkdir()
    with pytest.raises(FileError, match="emu has no image .*: remove it"):
        load(photos)


def test_circles_of_links_end(photos):
    (photos / "cat" / "again").symlink_to(photos / "cat")
    (photos / "dog" / "up").symlink_to(photos / "dog")
    assert values(load(photos)) == [10, 20, 30]


def test_links_to_images_and_folders(photos, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    place(other, "x.png", 70)
    (photos / "emu").symlink_to(other)
    (photos / "dog" / "z.png").symlink_to(other / "x.png")
    assert values(load(photos)) == [10, 20, 30, 70, 70]


def test_what_is_no_file(photos):
    os.mkfifo(photos / "dog" / "b.png")
    (photos / "dog" / "c.png").symlink_to("/dev/zero")
    (photos / "dog" / "d.png").symlink_to("gone")
    images = load(photos)
    for index, message in (
        (3, "b.png is no regular"),
        (4, "c.png is no regular"),
        (5, "d.png is m"),
    ):
        with pytest.raises(FileError, match=message):
            images[index]


def test_names_of_any_bytes(photos):
    (photos / "dog" / os.fsdecode(b"\xff.png")).write_bytes(b"broken")
    with pytest.raises(CorruptFileError, match="dog/\ufffd.png cannot be decoded") as error:
        load(photos)[3]
    assert str(error.value).encode()
