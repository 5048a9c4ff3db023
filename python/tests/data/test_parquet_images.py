"""Parquet files as people have them: types of columns, parts, sizes, and rows by their names."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import RGB, STRUCT, embedded, picture, values, write_parquet
from torch.utils.data import DataLoader

from agflow.data import parquet_images
from agflow.data.datasets import load_dataset
from agflow.data.options import DataOptions
from agflow.errors import CorruptFileError, FileError, InvalidValueError

SHADES = [0, 50, 100, 150]
LABELS = [0, 1, 0, 1]


def load(spec, **how):
    return load_dataset(spec, preprocessing=RGB, **how)


def named_column(kind):
    pictures = [picture(shade) for shade in SHADES]
    if kind == "struct":
        return embedded(pictures)
    if kind == "large struct":
        large = pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])
        return pa.array([{"bytes": one, "path": "x.png"} for one in pictures], large)
    return pa.array(pictures, getattr(pa, kind)())


@pytest.mark.parametrize("kind", ["struct", "large struct", "binary", "large_binary"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_all_types_of_embedded_images(tmp_path, kind, dictionary):
    columns = {"image": named_column(kind), "label": LABELS}
    spec = write_parquet(tmp_path / "x.parquet", columns, use_dictionary=dictionary)
    assert values(load(spec)) == SHADES


@pytest.mark.skipif(not hasattr(pa, "binary_view"), reason="pyarrow before 16 has no views")
def test_views(tmp_path):
    columns = {
        "image": named_column("binary_view"),
        "label": pa.array(["cat", "dog", "cat", "dog"], pa.string_view()),
    }
    images = load(write_parquet(tmp_path / "x.parquet", columns), classes=["dog", "cat"])
    assert values(images) == SHADES and images.labels.tolist() == [1, 0, 1, 0]


def test_images_by_path(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    for shade in SHADES:
        (tmp_path / "photos" / f"{shade}.png").write_bytes(picture(shade))
    relative = [f"photos/{shade}.png" for shade in SHADES]
    absolute = [str(tmp_path / path) for path in relative]
    monkeypatch.chdir("/")
    for number, column in enumerate(
        [
            pa.array([{"bytes": None, "path": path} for path in relative], STRUCT),
            pa.array([{"bytes": None, "path": path} for path in absolute], STRUCT),
            pa.array(relative),
            pa.array(absolute, pa.large_string()),
            pa.array(relative).dictionary_encode(),
        ]
    ):
        columns = {"image": column, "label": LABELS}
        assert values(load(write_parquet(tmp_path / f"{number}.parquet", columns))) == SHADES


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ({"bytes": None, "path": "no.png"}, FileError, "row 1 of .* holds the path 'no.png'"),
        ({"bytes": None, "path": "https://x/y.png"}, InvalidValueError, "row 1 .* embed"),
        ({"bytes": None, "path": None}, CorruptFileError, "row 1 .* neither bytes nor a path"),
        ({"bytes": b"", "path": ""}, CorruptFileError, "row 1 .* neither bytes nor a path"),
        (None, CorruptFileError, "row 1 .* neither bytes nor a path"),
        ({"bytes": b"broken", "path": None}, CorruptFileError, "row 1 .* JPEG, PNG"),
        ({"bytes": picture(9)[:60], "path": None}, CorruptFileError, "row 1 .* truncated"),
    ],
)
def test_a_row_without_a_picture_says_why(tmp_path, value, kind, message):
    column = pa.array([{"bytes": picture(), "path": None}, value], STRUCT)
    images = load(write_parquet(tmp_path / "x.parquet", {"image": column, "label": [0, 1]}))
    assert images[0][1] == 0
    with pytest.raises(kind, match=message) as error:
        images[1]
    assert "\n" not in str(error.value) and "0x" not in str(error.value)


@pytest.mark.parametrize("how", [{}, {"seed": 0}, {"offset": 10}, {"only": [1]}, {"limit": 14}])
@pytest.mark.parametrize("rows", [3, 100])
def test_a_broken_image_is_named_by_its_row_in_the_file(tmp_path, how, rows):
    pictures = [picture()] * 20
    pictures[13] = b"broken"
    columns = {"image": embedded(pictures), "label": [i % 4 for i in range(20)]}
    images = load(write_parquet(tmp_path / "x.parquet", columns, row_group_size=rows), **how)
    messages = []
    for index in range(len(images)):
        try:
            images[index]
        except CorruptFileError as error:
            messages.append(str(error))
    assert len(messages) == 1 and f"row 13 of {tmp_path / 'x.parquet'} cannot" in messages[0]


@pytest.fixture
def parts(tmp_path):
    """Three parts of two rows each in row groups of one; row i of all has shade 10 i, label i."""
    for part in range(3):
        rows = [2 * part, 2 * part + 1]
        columns = {"image": embedded([picture(10 * i) for i in rows]), "label": rows}
        name = tmp_path / f"train-{part:05}-of-00003.parquet"
        write_parquet(name, columns, row_group_size=1)
    (tmp_path / "._train-00000-of-00003.parquet").write_bytes(b"of a file manager")
    return tmp_path


@pytest.mark.parametrize("pattern", ["", "/*.parquet", "/train-*", "/**/*.parquet"])
def test_parts_of_a_data_set(parts, pattern):
    images = load(f"parquet:{parts}{pattern}")
    assert values(images) == [0, 10, 20, 30, 40, 50] and images.labels.tolist() == list(range(6))
    shuffled = load(f"parquet:{parts}{pattern}", seed=3)
    assert values(shuffled) == [10 * label for label in shuffled.labels.tolist()]


def test_one_part_may_be_named_alone(parts):
    assert load(f"parquet:{parts}/train-00001-of-00003.parquet").labels.tolist() == [2, 3]


def test_a_broken_image_of_a_part_is_named_by_its_row_there(parts):
    columns = {"image": embedded([picture(), b"broken"]), "label": [0, 1]}
    write_parquet(parts / "train-00001-of-00003.parquet", columns)
    with pytest.raises(CorruptFileError, match="row 1 of .*/train-00001-of-00003.parquet cannot"):
        load(f"parquet:{parts}")[3]


def test_parts_that_do_not_belong_together(parts):
    columns = {"image": embedded([picture()]), "label": [0]}
    write_parquet(parts / "test-00000-of-00001.parquet", columns)
    with pytest.raises(InvalidValueError, match=r"parts of .*test and .*train: name those of one"):
        load(f"parquet:{parts}")
    assert len(load(f"parquet:{parts}/train-*.parquet")) == 6
    (parts / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(FileError, match="lacks part 1 of the 3 of .*train"):
        load(f"parquet:{parts}/train-*.parquet")
    with pytest.raises(FileError, match="has no parquet file"):
        load(f"parquet:{parts}/none-*.parquet")


@pytest.mark.parametrize("other", [["dog", "cat"], None])
def test_parts_that_number_their_classes_differently(tmp_path, other):
    columns = {"image": embedded([picture()] * 2), "label": [0, 1]}
    for name, names in (("a", ["cat", "dog"]), ("b", other)):
        about = {"label": {"_type": "ClassLabel", "names": names}} if names else None
        write_parquet(tmp_path / f"{name}.parquet", columns, about)
    with pytest.raises(InvalidValueError, match="b.parquet and .*a.parquet differ"):
        load(f"parquet:{tmp_path}")


def test_a_name_with_the_signs_of_a_pattern_is_a_name(tmp_path):
    columns = {"image": embedded([picture(70)]), "label": [0]}
    assert values(load(write_parquet(tmp_path / "a[1]*.parquet", columns))) == [70]
    (tmp_path / "b[2]").mkdir()
    write_parquet(tmp_path / "b[2]" / "x.parquet", columns)
    assert values(load(f"parquet:{tmp_path / 'b[2]'}")) == [70]


IMAGE, CLASSES = {"_type": "Image"}, {"_type": "ClassLabel", "names": ["cat", "dog"]}


def test_columns_are_found_by_what_they_are(tmp_path):
    images, numbers = embedded([picture(shade) for shade in SHADES]), pa.array(LABELS)
    for number, (columns, features) in enumerate(
        [
            ({"img": images, "label": numbers}, None),
            ({"img": named_column("binary"), "label": numbers}, None),
            ({"scan": images, "mask": images, "label": numbers}, {"scan": IMAGE}),
            ({"img": images, "fine": numbers, "id": numbers}, {"img": IMAGE, "fine": CLASSES}),
        ]
    ):
        found = load(write_parquet(tmp_path / f"{number}.parquet", columns, features))
        assert values(found) == SHADES and found.labels.tolist() == LABELS


def test_columns_that_are_not_clear_are_asked_for(tmp_path):
    images = embedded([picture(shade) for shade in SHADES])
    columns = {"left": images, "right": images, "fine": LABELS, "coarse": LABELS}
    features = {"fine": CLASSES, "coarse": CLASSES}
    spec = write_parquet(tmp_path / "x.parquet", columns, features)
    with pytest.raises(InvalidValueError, match="left and right may be it.*--image-column"):
        load(spec)
    with pytest.raises(InvalidValueError, match="fine and coarse may be it.*--label"):
        load(spec, options=DataOptions(image="left"))
    assert values(load(spec, options=DataOptions(image="left", label="fine"))) == SHADES
    with pytest.raises(InvalidValueError, match="image column 'top' is not in .*left, right"):
        load(spec, options=DataOptions(image="top"))
    with pytest.raises(InvalidValueError, match="column 'fine' of .* is int64, expected encoded"):
        load(spec, options=DataOptions(image="fine"))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pa.array([True, False, True, True]), [1, 0, 1, 1]),
        (pa.array([3, 1, 2, 0], pa.uint8()), [3, 1, 2, 0]),
        (pa.array(["b", "a", "c", "a"]), [1, 0, 2, 0]),
        (pa.array(["b", "a", "c", "a"], pa.large_string()), [1, 0, 2, 0]),
        (pa.array(["b", "a", "c", "a"]).dictionary_encode(), [1, 0, 2, 0]),
        (pa.array(["9", "10", "2", "2"]), [9, 10, 2, 2]),
    ],
)
def test_labels_of_all_types(tmp_path, labels, expected):
    columns = {"image": embedded([picture()] * 4), "label": labels}
    assert load(write_parquet(tmp_path / "x.parquet", columns)).labels.tolist() == expected


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (pa.array([0.0, 1.0]), "is double, expected integers, texts or booleans: .*cast"),
        (pa.array([[0, 1], [1, 0]]), "is list.*argmax of one-hot"),
        (pa.array([0, None]), "is int64 with 1 nulls, the first in row 1"),
        (pa.array(["a", None]), "with 1 nulls, the first in row 1"),
        (pa.array([0, -1]), "row 1 of .* has the label -1, .*unlabelled"),
        (pa.array([0, 2**63], pa.uint64()), "beyond int64"),
        (pa.array([0, 5]), "labels of .* run from 0 to 5, the model has 3 classes"),
    ],
)
def test_labels_that_are_no_classes(tmp_path, labels, message):
    columns = {"image": embedded([picture()] * 2), "label": labels}
    spec = write_parquet(tmp_path / "x.parquet", columns)
    with pytest.raises(InvalidValueError, match=message):
        load(spec, classes=3)


def test_named_labels_are_matched_by_name(tmp_path):
    columns = {"image": embedded([picture()] * 3), "label": [0, 1, 1]}
    spec = write_parquet(tmp_path / "x.parquet", columns, {"label": CLASSES})
    assert load(spec).labels.tolist() == [0, 1, 1]
    assert load(spec, classes=["dog", "bird", "cat"]).labels.tolist() == [2, 0, 0]
    assert load(spec, classes=2).labels.tolist() == [0, 1, 1]
    with pytest.raises(InvalidValueError, match="2 classes .*and the model 5, whose names"):
        load(spec, classes=5)
    with pytest.raises(InvalidValueError, match="1 of the 2 classes .* the first 'dog'"):
        load(spec, classes=["cat", "horse"])


class _Counted(parquet_images.ParquetImages):
    reads = 0

    def _read(self, index):
        self.reads += 1
        return super()._read(index)


def test_few_images_read_few_row_groups_and_each_once(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_images, "ParquetImages", _Counted)
    columns = {"image": embedded([picture(i) for i in range(40)]), "label": list(range(40))}
    spec = write_parquet(tmp_path / "x.parquet", columns, row_group_size=4)
    images = load(spec, limit=10, options=DataOptions(cache_bytes=0))
    assert values(images) == values(images) == list(range(10)) and images._images.reads == 3
    assert sum(len(rows) for rows in images._images._kept.values()) == 10


def test_images_beyond_what_is_kept(tmp_path, monkeypatch):
    """In one row group and in several, in any order, the images are right and memory is bounded."""
    monkeypatch.setattr(parquet_images, "KEPT_BYTES", 5 * len(picture(1)))
    columns = {"image": embedded([picture(i) for i in range(40)]), "label": list(range(40))}
    for size in (4, 40):
        spec = write_parquet(tmp_path / "x.parquet", columns, row_group_size=size)
        for seed in (None, 1):
            images = load(spec, seed=seed, options=DataOptions(cache_bytes=0))
            assert values(images) == images.labels.tolist()
            kept = [len(one) for rows in images._images._kept.values() for one in rows.values()]
            assert sum(kept) <= parquet_images.KEPT_BYTES


def test_repeated_bytes_do_not_fill_memory(tmp_path, monkeypatch):
    """A dictionary makes a large column of a small file: the bytes count, not the file's."""
    monkeypatch.setattr(parquet_images, "KEPT_BYTES", 1 << 20)
    large = picture() + bytes(200_000)
    columns = {"image": embedded([large] * 40), "label": [0] * 40}
    images = load(write_parquet(tmp_path / "x.parquet", columns))
    assert images[39][1] == 0 and images[0][1] == 0
    kept = [len(one) for rows in images._images._kept.values() for one in rows.values()]
    assert sum(kept) <= (1 << 20) + len(large)


MEMORY = """
import resource, sys
from agflow.data import DataOptions, Preprocessing, load_dataset
from PIL import Image
small = Preprocessing((16, 16), (.5,) * 3, (.5,) * 3)
small.pixels(Image.new("RGB", (20, 20)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
images = load_dataset(sys.argv[1], preprocessing=small, limit=10, seed=0)
for i in range(len(images)):
    images[i]
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def large_file(path, rows, groups):
    """A file of random bytes behind small pictures, as long as photographs are."""
    schema = pa.schema([("image", STRUCT), ("label", pa.int64())])
    random = np.random.default_rng(0)
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for group in range(groups):
            pictures = [picture(form="JPEG") + random.bytes(100_000) for _ in range(rows)]
            labels = [group % 4] * rows
            writer.write_table(pa.table({"image": embedded(pictures), "label": labels}, schema))


def memory_of_ten(path):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, f"parquet:{path}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "groups"), [(2000, 1), (200, 10)])
def test_ten_images_of_a_large_file_cost_ten_images(tmp_path, rows, groups):
    large_file(tmp_path / "large.parquet", rows, groups)
    assert os.path.getsize(tmp_path / "large.parquet") > 190 << 20
    assert memory_of_ten(tmp_path / "large.parquet") < 60  # MiB


@pytest.mark.slow
def test_a_column_of_more_than_two_gib(tmp_path):
    """Arrow cannot hold such a column of structs in one piece; the file itself is small."""
    image, rows = picture(form="JPEG") + bytes(1_000_000), 2200
    columns = {"image": embedded([image] * 2), "label": [0, 1]}
    schema = pa.table(columns).schema
    with pq.ParquetWriter(tmp_path / "x.parquet", schema, compression="zstd") as writer:
        for _ in range(rows // 100):
            writer.write_table(
                pa.table({"image": embedded([image] * 100), "label": [0, 1] * 50}, schema)
            )
    images = load(f"parquet:{tmp_path / 'x.parquet'}", offset=2150, limit=10)
    assert values(images) == [0] * 10


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_the_same_images(parts, start):
    images = load(f"parquet:{parts}", seed=0)
    images[0]
    batches = list(DataLoader(images, 2, num_workers=2, multiprocessing_context=start))
    labels = [label for batch in batches for label in batch[1].tolist()]
    shades = [round(float((x.mean() * 0.25 + 0.5) * 255)) for batch in batches for x in batch[0]]
    assert labels == images.labels.tolist() and shades == [10 * label for label in labels]


def test_a_pickled_data_set_holds_no_pixels(parts):
    images = load(f"parquet:{parts}")
    size = len(pickle.dumps(images))
    values(images)
    assert len(pickle.dumps(images)) == size
    assert values(pickle.loads(pickle.dumps(images))) == values(images)


def test_files_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for spec, message in (
        (f"parquet:{tmp_path / 'pipe'}", "no regular file but a pipe"),
        ("parquet:/dev/zero", "no regular file but a device"),
        (f"npz:{tmp_path / 'pipe'}", "no regular file but a pipe"),
        ("npz:/dev/zero", "no regular file but a device"),
        (f"npz:{tmp_path}", "no regular file but a folder"),
        ("parquet:a\0b", "is missing or not a readable file"),
    ):
        with pytest.raises(FileError, match=message):
            load(spec)


def test_a_file_that_was_cut_or_changed(tmp_path):
    columns = {"image": embedded([picture(i) for i in range(9)]), "label": list(range(9))}
    spec = write_parquet(tmp_path / "x.parquet", columns)
    whole = (tmp_path / "x.parquet").read_bytes()
    images = load(spec)
    for count in (0, 4, 8, len(whole) // 2, len(whole) - 1):
        (tmp_path / "x.parquet").write_bytes(whole[:count])
        with pytest.raises(CorruptFileError, match="x.parquet is not a readable parquet file"):
            load(spec)
        with pytest.raises(CorruptFileError, match="x.parquet is not a readable parquet file"):
            images[0]
    few = {"image": embedded([picture()]), "label": [0]}
    write_parquet(tmp_path / "x.parquet", few)
    with pytest.raises(CorruptFileError, match="fewer rows than when its labels were read"):
        images[5]


def test_random_flips_are_one_error(tmp_path):
    columns = {"image": embedded([picture(i) for i in range(9)]), "label": list(range(9))}
    write_parquet(tmp_path / "x.parquet", columns, compression="none")
    whole, random = (tmp_path / "x.parquet").read_bytes(), np.random.default_rng(0)
    for _ in range(int(os.environ.get("AGFLOW_TRIALS", "60"))):
        flipped = bytearray(whole)
        flipped[random.integers(len(whole))] ^= 1 << random.integers(8)
        (tmp_path / "y.parquet").write_bytes(bytes(flipped))
        try:
            values(load(f"parquet:{tmp_path / 'y.parquet'}", classes=9))
        except (CorruptFileError, InvalidValueError) as error:
            assert "\n" not in str(error)
        except FileError as error:  # a flip of a null may make a path of an image
            assert "holds the path" in str(error)
