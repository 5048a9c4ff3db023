"""Classes of the data are the model's by what they are called, never by their order alone."""

import json
import os

import pytest
import timm.data
from pictures import RGB, picture

from agflow.data.class_names import ModelClasses, match_classes
from agflow.data.datasets import load_dataset
from agflow.data.options import DataOptions
from agflow.errors import AgflowError, CorruptFileError, FileError, InvalidValueError

IMAGENET = timm.data.ImageNetInfo()
IDS, LEMMAS = IMAGENET.label_names(), IMAGENET.label_descriptions()


def matched(names, classes, class_map=None):
    model = ModelClasses.of(classes)
    found = match_classes(names, range(len(names)), model, class_map, "photos")
    return [found[own] for own in range(len(names))]


@pytest.mark.parametrize(
    ("names", "classes", "expected"),
    [
        (["cat", "dog"], ["dog", "cat"], [1, 0]),
        (["Cat", "guinea_pig"], ["guinea pig", "x", "cat"], [2, 0]),
        (["goldfish"], ["tench, Tinca tinca", "goldfish, Carassius auratus"], [1]),
        (["n01443537", "n01440764"], 1000, [1, 0]),
        (["n02085620-Chihuahua", "n01440764_tench"], 1000, [151, 0]),
        (["n01443537"], IDS, [1]),
        (["n01443537"], LEMMAS, [1]),
        (["goldfish", "Tench", "great_white_shark"], IDS, [1, 0, 2]),
        (["goldfish", "tench"], LEMMAS, [1, 0]),
        (LEMMAS, LEMMAS, list(range(1000))),  # "maillot" is there twice, at the same places
        (["0", "1", "10", "9"], 11, [0, 1, 10, 9]),
        (["00", "01", "02"], 3, [0, 1, 2]),
        (["0", "10", "2"], 1000, [0, 10, 2]),
        (["0", "1", "10"], ["0", "1", "10"], [0, 1, 2]),  # names come before numbers
        (["apple", "pear", "plum"], 3, [0, 1, 2]),
        (["apple", "pear", "plum"], ["LABEL_0", "LABEL_1", "LABEL_2"], [0, 1, 2]),
        (["apple", "pear"], None, [0, 1]),
    ],
)
def test_names_that_match(names, classes, expected):
    assert matched(names, classes) == expected


@pytest.mark.parametrize(
    ("names", "classes", "message"),
    [
        (["apple", "pear"], 1000, "photos has 2 classes .* the model 1000, whose names are not"),
        (["apple", "pear"], IDS, "2 of the 2 classes of photos are none of the model's 1000"),
        (["cat", "dogg"], ["dog", "cat"], "the first 'dogg'; did you mean 'dog'"),
        (["katze", "hund"], ["dog", "cat"], "the first 'katze'"),
        (["apple", "pear"], ["LABEL_0", "LABEL_1", "LABEL_2"], "has 2 classes .* model 3"),
        (["crane"], LEMMAS, "'crane' of photos fits the model's classes 134 and 517"),
        (["train", "val"], 1000, "class_map"),
        (["0", "one"], 10, "whose names are not known"),
    ],
)
def test_names_that_do_not(names, classes, message):
    with pytest.raises(InvalidValueError, match=message) as error:
        matched(names, classes)
    assert "--class-map" in str(error.value)


@pytest.mark.parametrize("names", [["cat", "dog"], ["Katze", "Hund"]])
def test_a_map_comes_first(names):
    given = dict(zip(names, (281, "n02085620"), strict=True))
    assert matched(names, 1000, given) == [281, 151]
    assert matched(names, IDS, given) == [281, 151]


def test_maps_in_files(tmp_path):
    (tmp_path / "map.json").write_text(json.dumps({"cat": 3, "dog": "tench", "more": 1}))
    (tmp_path / "map.csv").write_text('cat,3\n"dog", tench\n\nmore,1\n')
    for name in ("map.json", "map.csv"):
        assert matched(["cat", "dog"], 1000, tmp_path / name) == [3, 0]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.json", '{"cat": 1}', "class 'dog' of photos is not in the class map, which has cat"),
        ("m.json", '{"cat": 1, "dog": "eagle"}', "gives 'eagle' for 'dog'"),
        ("m.json", '{"cat": 1, "dog": true}', "gives True for 'dog'"),
        ("m.json", '{"cat": 1, "dog": 1.5}', "gives 1.5 for 'dog'"),
        ("m.json", '{"cat": 1, "cat": 2}', "m.json is not JSON"),
        ("m.json", "[1]", "m.json holds a JSON list"),
        ("m.json", '{"cat":', "m.json is not JSON"),
        ("m.csv", "cat,1\ncat,2\n", "line 2 of class map .*m.csv"),
        ("m.csv", "cat;1\n", "line 1 of class map .*m.csv"),
        ("m.csv", 'cat,"1\n', "m.csv is neither JSON"),
        ("m.csv", "name,class\ncat,1\ndog,2\n", None),
    ],
)
def test_maps_that_are_none(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    if message is None:  # a header is a class that does not occur
        assert matched(["cat", "dog"], 3, tmp_path / name) == [1, 2]
        return
    with pytest.raises(AgflowError, match=message):
        matched(["cat", "dog"], ["bird_", "x"], tmp_path / name)


def test_files_that_are_no_maps(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in (
        (tmp_path / "none.json", FileError),
        (tmp_path / "pipe", FileError),
        ("/dev/zero", FileError),
        (tmp_path, FileError),
    ):
        with pytest.raises(kind, match="class map"):
            matched(["cat"], 3, path)
    (tmp_path / "large.json").write_bytes(b" " * (5 << 20))
    with pytest.raises(CorruptFileError, match="large.json is larger"):
        matched(["cat"], 3, tmp_path / "large.json")


@pytest.fixture
def photos(tmp_path):
    for name in ("n01440764", "n01443537", "n01484850"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(picture())
    return f"imagefolder:{tmp_path}"


def load(spec, **how):
    return load_dataset(spec, preprocessing=RGB, **how)


def test_only_counts_the_models_classes(photos):
    assert load(photos, classes=1000).labels.tolist() == [0, 1, 2]
    assert load(photos, classes=1000, only=[2, 0]).labels.tolist() == [1, 0]
    turned = DataOptions(class_map={"n01440764": 7, "n01443537": 8, "n01484850": 7})
    images = load(photos, classes=9, only=[7], options=turned)
    assert images.labels.tolist() == [0, 0]
    assert images.classes == {"n01440764": 7, "n01443537": 8, "n01484850": 7}


def test_an_order_that_is_taken_is_said(photos):
    with pytest.warns(UserWarning, match="3 classes are not known.*n01440764 = 0, n01443537 = 1"):
        load(photos, classes=3)


def test_a_map_beyond_the_models_classes(photos):
    turned = DataOptions(class_map={"n01440764": 7, "n01443537": 8, "n01484850": 9})
    with pytest.raises(InvalidValueError, match="run from 7 to 9, the model has 9 classes"):
        load(photos, classes=9, options=turned)


def test_numbers_may_be_mapped():
    spec, turned = "example:test", {str(i): 9 - i for i in range(10)}
    grey = type(RGB)((28, 28), (0.5,), (0.5,))
    plain = load_dataset(spec, preprocessing=grey, limit=9)
    mapped = load_dataset(
        spec, preprocessing=grey, limit=9, classes=10, options=DataOptions(class_map=turned)
    )
    assert mapped.labels.tolist() == [9 - label for label in plain.labels.tolist()]
