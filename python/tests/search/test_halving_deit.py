"""A design on DeiT-Tiny and photographs of 10 of its 1,000 classes."""

import pytest
import torch
from torch.utils.data import DataLoader

from agflow.data.datasets import load_dataset
from agflow.models import count_macs, logits_of, prefix_macs
from agflow.models.head import only_classes
from agflow.search.halving import design_cascade
from agflow.search.space import SearchSpace

pytestmark = pytest.mark.slow
IMAGENETTE = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)


@pytest.fixture(scope="module")
def images(folder, deit):
    source = load_dataset(
        f"parquet:{folder / 'imagenette160_train3000.parquet'}",
        preprocessing=deit[1],
        classes=1000,
        limit=64,
        seed=0,
        only=IMAGENETTE,
    )
    part = lambda start, stop: DataLoader(
        torch.utils.data.Subset(source, range(start, stop)), batch_size=20
    )
    return part(0, 24), part(24, 64)


def test_smaller_images_and_shared_blocks_of_ten_classes(deit, images):
    heavy = only_classes(deit[0], IMAGENETTE)
    whole = next(iter(images[1]))[0][:4]
    with torch.no_grad():
        assert torch.allclose(heavy(whole), deit[0](whole)[:, IMAGENETTE], atol=1e-3)
    found = design_cascade(
        heavy,
        *images,
        space=SearchSpace(
            image_sizes=(224, 112), macs=(1.0, 0.75), groups=("mlp",), shared_blocks=(0, 4)
        ),
        tolerance=0.02,
        epochs=1,
    )
    cut = {
        (row.image_size, row.width, row.shared_blocks): row
        for row in found.frontier.rows
        if row.stage == "pruned"
    }
    assert (
        set(cut)
        == {("224x224", 0.75, 0), ("224x224", 0.75, 4), ("112x112", 1.0, 0), ("112x112", 0.75, 0)}
        and len(found.frontier) == 6
    )
    assert float(found.frontier.metadata["agflow.heavy_accuracy"]) >= 0.9
    small = cut["112x112", 1.0, 0]
    assert small.light == pytest.approx(0.227, abs=2e-3) and small.light_accuracy > 0.5
    shared, saved = cut["224x224", 0.75, 4], prefix_macs(heavy, 4) / count_macs(heavy)
    assert (
        shared.charged == pytest.approx(shared.light + shared.escalation * (1 - saved))
        and shared.light_accuracy > 0.8
    )
    cascade = found.cascade(1.1)  # every image escalates, so the heavy expert answers
    with torch.no_grad():
        assert torch.equal(cascade(whole), logits_of(heavy(whole)))
    assert cascade.ledger.escalation == 1
