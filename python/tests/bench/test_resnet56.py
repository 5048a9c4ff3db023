"""The table of ResNet-56 beside torch-pruning is made of cells that are kept, at equal costs."""

import numpy as np
import pytest
from bench import resnet56

SMALL = {"DEPTH": 20, "CALIBRATION": 32, "EPOCHS": 1, "TRAINING_IMAGES": 96}


def test_points_lost_are_paired_differences():
    """Two seeds of four images: half a point in the one that one seed gets wrong."""
    dense_N = np.array([1.0, 1, 1, 0])
    mean, low, high = resnet56.lost(dense_N, np.array([[1, 1, 0, 0], [1, 1, 1, 0.0]]))
    assert mean == 12.5 and low == pytest.approx(12.5 - 1.96 * 12.5) and high - mean == mean - low


@pytest.mark.bench
def test_every_contender_is_cut_to_the_same_budget_and_trained_alike(
    networks, tmp_path, monkeypatch, capsys
):
    for name, value in SMALL.items():
        monkeypatch.setattr(resnet56, name, value)
    arguments = [str(networks), str(tmp_path), "--points", "2.1", "--seeds", "0"]
    resnet56.main([*arguments, "--cells", "2"])
    assert len(list(tmp_path.glob("*.npz"))) == 2
    resnet56.main(arguments)
    table = capsys.readouterr().out
    assert all(f"\n{name} " in table for name in resnet56.CONTENDERS)
    cells = [np.load(file) for file in sorted(tmp_path.glob("*.npz"))]
    assert len(cells) == len(resnet56.CONTENDERS) == 3
    for cell in cells:
        assert cell["cut"].shape == cell["trained"].shape == (500,)
        assert 0.42 < cell["macs"] <= 1 / 2.1
