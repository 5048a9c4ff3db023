"""loss="self": labels drawn from the model's own softened answers; loaders of images alone."""

import subprocess

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import agflow
from agflow.calibration.calibration import calibrate
from agflow.calibration.loss import loss_name
from agflow.calibration.options import CalibrationOptions
from agflow.calibration.own_answers import drawn_labels
from agflow.calibration.statistics import Statistics
from agflow.errors import InvalidValueError
from agflow.models import model_logits

NAME = "cross_entropy of labels drawn from its own answers at temperature 4, sum over the batch"


def test_labels_are_drawn_by_the_softened_answers():
    """4,000 images of one answer: the shares of the classes are its softmax."""
    images = torch.rand(4000, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    logits = torch.tensor([2.0, 0.0, -1.0, 8.0, float("-inf")])
    for temperature in (1.0, 4.0):
        drawn = drawn_labels(logits.expand(4000, -1), images, temperature, seed=3)
        shares = torch.bincount(drawn, minlength=5) / 4000
        expected = (logits / temperature).softmax(0)
        deviation = (expected * (1 - expected) / 4000).sqrt()
        assert ((shares - expected).abs() <= 4 * deviation).all()
        assert shares[4] == 0


def test_the_draw_of_an_image_goes_by_seed_and_pixels_alone():
    images, logits = torch.rand(64, 3, 4, 4), torch.zeros(64, 10)
    drawn = drawn_labels(logits, images, 4.0, seed=0)
    order = torch.randperm(64)
    assert torch.equal(drawn_labels(logits, images[order], 4.0, seed=0), drawn[order])
    again = images.contiguous(memory_format=torch.channels_last).double()
    assert torch.equal(drawn_labels(logits, again, 4.0, seed=0), drawn)
    other = drawn_labels(logits, images, 4.0, seed=1)
    assert (other != drawn).float().mean() > 0.7 and len(drawn.unique()) > 5
    assert drawn_labels(torch.full((64, 1), float("nan")), images, 4.0, 0).tolist() == [0] * 64


def labelled(model, images, options=CalibrationOptions()):
    """The batch with the labels that are drawn for it."""
    with torch.no_grad():
        logits = model_logits(model.eval(), images)
    return images, drawn_labels(logits, images, options.temperature, options.seed)


def without(statistics, *keys):
    return {k: v for k, v in statistics.metadata.items() if k not in keys}


def test_the_loss_is_that_of_the_drawn_labels(vit, images):
    """With or without labels in the loader, of which the worst are not read."""
    x, labels = images
    expected = calibrate(vit, [labelled(vit, x)])
    alone = calibrate(vit, [x], loss="self")
    dictionary = {"pixel_values": x, "labels": np.full(len(x), -100)}
    for found in (
        alone,
        calibrate(vit, [(x, labels)], loss="self"),
        calibrate(vit, [dictionary], loss="self"),
    ):
        assert found == alone
    for name in expected.columns:
        assert np.array_equal(alone.columns[name], expected.columns[name]), name
    assert alone.metadata["agflow.loss"] == NAME
    assert without(alone, "agflow.loss", "agflow.data") == without(
        expected, "agflow.loss", "agflow.data"
    )
    assert (alone["sum_yg"] != calibrate(vit, [images])["sum_yg"]).any()


def test_seed_and_temperature_count(vit, images):
    usual = calibrate(vit, [images[0]], loss="self")
    seeded, cold = (
        calibrate(vit, [images[0]], loss="self", options=options)
        for options in (CalibrationOptions(seed=1), CalibrationOptions(temperature=0.5))
    )
    assert (usual["sum_yg"] != seeded["sum_yg"]).any()
    assert "at temperature 0.5," in cold.metadata["agflow.loss"]
    for wrong in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(InvalidValueError, match="temperature is .* expected a number above 0"):
            CalibrationOptions(temperature=wrong)
    with pytest.raises(InvalidValueError, match="expected 'labels', 'self', 'features' or a fun"):
        loss_name("selfs")


def test_labels_do_not_depend_on_the_batches(vit, images):
    """Statistics of parts sum to those of the whole, as with labels."""
    whole = calibrate(vit, [images[0]], loss="self")
    parts = calibrate(vit, list(images[0].split(3)), loss="self")
    np.testing.assert_allclose(parts["sum_abs_yg"], whole["sum_abs_yg"], rtol=1e-4)
    assert parts.metadata["agflow.data"] == whole.metadata["agflow.data"]


def test_command_and_python_agree(tmp_path):
    model, preprocessing, _ = agflow.load_model("example")
    images = agflow.load_dataset("example:train", preprocessing=preprocessing, limit=16, seed=5)
    loader = DataLoader([image for image, _ in images], 8)
    dump = tmp_path / "tensors"
    options = CalibrationOptions(dump=dump, seed=5)
    python = calibrate(model, loader, loss="self", groups="mlp", options=options)
    commands = (
        "calibrate --loss self --groups mlp --limit 16 --batch-size 8 --seed 5 --output".split(),
        ["statistics", "--tensors", str(dump), "--output"],
    )
    for words in commands:
        output = tmp_path / f"{words[0]}.arrow"
        subprocess.run(["agflow", *words, output], check=True, capture_output=True)
        assert Statistics.load(output) == python
    wrong = subprocess.run(
        ["agflow", "calibrate", "--loss", "own", "--output", tmp_path / "other.arrow"],
        capture_output=True,
        text=True,
    )
    assert wrong.returncode and "labels, self" in wrong.stderr


def test_images_without_labels_are_shrunk_by_own_answers(vit, images, monkeypatch):
    from agflow.recipes import shrinking

    losses = []

    def noting(*arguments, **named):
        losses.append(named["loss"])
        return calibrate(*arguments, **named)

    monkeypatch.setattr(shrinking, "calibrate", noting)
    agflow.shrink(vit, images[0], macs=0.7, report=None)
    agflow.shrink(vit, images, macs=0.7, report=None)
    assert losses == ["self", "labels"]
