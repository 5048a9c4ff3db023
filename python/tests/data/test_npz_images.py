"""npz files: forms that people have, and files that were made to fail."""

import io
import os
import resource
import struct
import zipfile

import numpy as np
import pytest
from pictures import RGB, values

from agflow.data.datasets import load_dataset
from agflow.errors import AgflowError, CorruptFileError, InvalidValueError

X = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.full((1, 8, 8, 3), 10, np.uint8)
Y = np.array([1, 0, 1, 0, 2, 2])


def load(path, **how):
    return load_dataset(f"npz:{path}", preprocessing=RGB, **how)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    ("x", "y"),
    [
        (X, Y),
        (X[..., 0], Y),
        (X[..., :1], Y),
        (np.concatenate([X, np.full_like(X[..., :1], 255)], -1), Y),
        (np.asfortranarray(X), Y),
        (X, Y[:, None]),
        (X, Y.astype(np.uint8)),
        (X, Y.astype(">i4")),
    ],
)
def test_forms_that_are_taken(tmp_path, save, x, y):
    save(tmp_path / "x.npz", x=x, y=y)
    for how in ({}, {"seed": 0}, {"offset": 2, "limit": 3}):
        images = load(tmp_path / "x.npz", **how)
        shades = values(images)
        assert [Y[shade // 10] for shade in shades] == images.labels.tolist()
    assert values(load(tmp_path / "x.npz")) == [0, 10, 20, 30, 40, 50]


def test_boolean_labels(tmp_path):
    np.savez(tmp_path / "x.npz", x=X, y=Y > 0)
    assert load(tmp_path / "x.npz").labels.tolist() == [1, 0, 1, 0, 1, 1]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X.astype(np.uint16), Y, "array 'x' of .* is uint16 .*scale"),
        (X / 255, Y, "array 'x' of .* is float64 .*scale"),
        (X.transpose(0, 3, 1, 2).copy(), Y, r"array 'x' .*transpose\(0, 2, 3, 1\)"),
        (X[..., :2], Y, "expected 1, 3 or 4 channels at the end"),
        (X[:, :0], Y, "expected images with pixels"),
        (X, np.eye(3)[Y], r"array 'y' of .* is float64 \(6, 3\), expected 6 integers: .*argmax"),
        (X, Y.astype(float), "array 'y' of .* is float64"),
        (X, Y[:5], "array 'y' of .* expected 6 integers"),
        (X, Y - 1, "image 1 of array 'x' of .* has the label -1"),
        (X, np.array([0, 0, 0, 0, 0, 2**64 - 1], np.uint64), "has the label 18446744073709551615"),
    ],
)
def test_forms_that_are_refused(tmp_path, x, y, message):
    np.savez(tmp_path / "x.npz", x=x, y=y)
    with pytest.raises(InvalidValueError, match=message):
        load(tmp_path / "x.npz")


def archive(path, x, *, method=zipfile.ZIP_DEFLATED, y=Y):
    labels = io.BytesIO()
    np.save(labels, y)
    with zipfile.ZipFile(path, "w", method) as made:
        made.writestr("x.npy", x)
        made.writestr("y.npy", labels.getvalue())


def npy(shape, dtype="|u1", body=b"", version=b"\1\0"):
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + body


@pytest.mark.parametrize(
    "x",
    [
        npy((10**8, 1024, 1024, 3)),
        npy((1 << 63, 1 << 63, 4)),
        npy((-1, 8, 8), body=bytes(64)),
        npy((6, 8, 8), body=bytes(100)),
        npy((6, 8, 8), body=bytes(6 * 64 + 1)),
        npy((6, 8, 8), dtype="|O", body=bytes(48 * 64)),
        npy((6, 8, 8), dtype="|V0"),
        npy("__import__('os')"),
        npy((6, 8, 8), version=b"\7\0"),
        b"\x93NUMPY",
        b"",
        b"no array",
    ],
)
def test_headers_that_claim_too_much_or_nothing(tmp_path, x):
    archive(tmp_path / "x.npz", x)
    with pytest.raises(AgflowError) as error:
        load(tmp_path / "x.npz")
    assert "x.npz" in str(error.value) and "\n" not in str(error.value)


def test_what_inflates_beyond_reason_is_refused_before_it_does(tmp_path):
    body = bytes(80 << 20)
    archive(tmp_path / "x.npz", npy((80 << 10, 32, 32), body=body), y=np.zeros(80 << 10, int))
    del body
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert os.path.getsize(tmp_path / "x.npz") < 1 << 20
    with pytest.raises(CorruptFileError, match="at most 100 times as many: write it uncompressed"):
        load(tmp_path / "x.npz", limit=3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


def test_encrypted_unknown_and_damaged_members(tmp_path):
    np.savez_compressed(
        tmp_path / "x.npz", x=np.arange(6 * 64, dtype=np.uint8).reshape(6, 8, 8), y=Y
    )
    whole = (tmp_path / "x.npz").read_bytes()
    for offset, value in ((6, 1), (8, 99), (8, 9)):  # flags: encrypted; method: unknown, deflate64
        changed = bytearray(whole)
        start = whole.index(b"PK\1\2")
        changed[offset] = changed[start + offset + 2] = value
        (tmp_path / "y.npz").write_bytes(bytes(changed))
        with pytest.raises(CorruptFileError, match="y.npz is not a readable npz file"):
            load(tmp_path / "y.npz")
    changed = bytearray(whole)
    middle = whole.index(b"x.npy") + 140
    changed[middle : middle + 8] = b"\xff" * 8
    (tmp_path / "y.npz").write_bytes(bytes(changed))
    with pytest.raises(CorruptFileError, match="y.npz is not a readable npz file"):
        values(load(tmp_path / "y.npz"))


def test_cuts_and_flips_are_one_error(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", x=X, y=Y)
    whole, random = (tmp_path / "x.npz").read_bytes(), np.random.default_rng(0)
    for trial in range(int(os.environ.get("AGFLOW_TRIALS", "60"))):
        broken = bytearray(whole)
        if trial % 2:
            broken[random.integers(len(whole))] ^= 1 << random.integers(8)
        else:
            del broken[random.integers(len(whole)) :]
        (tmp_path / "y.npz").write_bytes(bytes(broken))
        try:
            values(load(tmp_path / "y.npz", classes=3))
        except (CorruptFileError, InvalidValueError) as error:
            assert "\n" not in str(error)


def test_rows_are_named_as_in_the_file(tmp_path):
    np.savez(tmp_path / "x.npz", x=X, y=Y)
    images = load(tmp_path / "x.npz", offset=4)
    assert images._images.name(1) == f"image 5 of array 'x' of {tmp_path / 'x.npz'}"
