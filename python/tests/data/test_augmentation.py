"""Shifts and crops show nothing that is not in the image, and mirror all of it or nothing."""

import torch
from hypothesis import given, settings, strategies as st
from torch.utils.data import DataLoader

from agflow.data.augmentation import random_crops, random_shifts, shifting_batch


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    smallest=st.floats(0.3, 1),
    height=st.integers(2, 12),
    width=st.integers(2, 12),
)
def test_a_crop_shows_nothing_that_is_not_in_the_image(seed, smallest, height, width):
    torch.manual_seed(seed)
    x = torch.arange(float(height * width)).view(1, 1, height, width).repeat(4, 2, 1, 1)
    seen = random_crops(x, smallest)
    assert seen.shape == x.shape and seen.min() >= 0 and seen.max() <= x.max() + 1e-3
    assert torch.equal(seen[:, 0], seen[:, 1])
    rises_down = seen.diff(dim=2) >= -1e-3  # nothing is turned upside down
    across = seen.diff(dim=3)
    assert (
        rises_down.all()
        and ((across >= -1e-3).all(3).all(2) | (across <= 1e-3).all(3).all(2)).all()
    )  # a row is mirrored wholly or not at all


def test_a_whole_window_is_the_image_or_its_mirror_image(images):
    torch.manual_seed(1)
    seen = random_crops(images[0], 1.0)
    straight = [
        torch.allclose(mine, whole, atol=1e-4) for mine, whole in zip(seen, images[0], strict=True)
    ]
    mirrored = [
        torch.allclose(mine, whole.flip(-1), atol=1e-4)
        for mine, whole in zip(seen, images[0], strict=True)
    ]
    assert (
        all(a != b for a, b in zip(straight, mirrored, strict=True))
        and any(straight)
        and any(mirrored)
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    most=st.floats(0, 0.4),
    height=st.integers(2, 30),
    width=st.integers(2, 30),
)
def test_a_shift_is_a_whole_number_of_pixels_and_repeats_the_edge(seed, most, height, width):
    torch.manual_seed(seed)
    x = torch.arange(float(height * width)).view(1, 1, height, width).repeat(4, 2, 1, 1)
    seen = random_shifts(x, most)
    down, across = max(1, round(most * height)), max(1, round(most * width))
    rows, columns = torch.arange(height), torch.arange(width)
    moved = [
        image[0][(rows + i).clamp(0, height - 1)][:, (columns + j).clamp(0, width - 1)]
        for image in (x[0], x[0].flip(-1))
        for i in range(-down, down + 1)
        for j in range(-across, across + 1)
    ]
    assert seen.shape == x.shape and torch.equal(seen[:, 0], seen[:, 1])
    assert all(any(torch.equal(view, other) for other in moved) for view in seen[:, 0])


def test_shifts_go_every_way_and_mirror_half_of_the_images():
    torch.manual_seed(0)
    x = torch.arange(49.0).view(1, 1, 7, 7).expand(400, 1, 7, 7)
    seen = random_shifts(x)
    middles = seen[:, 0, 3, 3].tolist()
    mirrored = (seen.diff(dim=3)[:, 0, 3, 3] < 0).float().mean()
    assert (
        set(middles) == {24.0 + 7 * i + j for i in (-1, 0, 1) for j in (-1, 0, 1)}
        and 0.4 < mirrored < 0.6
    )


def test_a_batch_keeps_what_belongs_to_its_images():
    pairs = [(torch.full((1, 5, 5), float(i)), i, torch.full((3,), float(i))) for i in range(6)]
    for images_BCHW, labels_B, logits_BK in DataLoader(
        pairs, batch_size=4, collate_fn=shifting_batch
    ):
        assert torch.equal(images_BCHW[:, 0, 2, 2], labels_B.float()) and torch.equal(
            logits_BK[:, 1], labels_B.float()
        )
