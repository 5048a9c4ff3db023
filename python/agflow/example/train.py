"""Train the shipped heavy expert: a small ViT on Fashion-MNIST.

    python -m agflow.example.train --data fashion-mnist/ --mini fashion_mnist_mini.npz --out heavy

The 4,000 training images of the shipped sample are left out, so that they can calibrate, fine-tune
and set thresholds for a model that never saw them; its 1,000 test images are among the 10,000 that
the model is evaluated on.
"""

from __future__ import annotations

import argparse
import gzip
import pathlib
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from agflow.data.preprocessing import Preprocessing
from agflow.models.expert import save_expert

# Epochs, batch size, peak learning rate and largest shift in pixels: large steps first, then many
# small ones.
PHASES = ((10, 256, 1.5e-3, 2), (5, 64, 8e-4, 0))

MEAN, DEVIATION = 0.286, 0.353
ARCHITECTURE: dict[str, Any] = dict(
    model_name="vit_tiny_patch16_224",
    img_size=28,
    patch_size=4,
    in_chans=1,
    num_classes=10,
    embed_dim=128,
    depth=6,
    num_heads=4,
)


def read_idx(path: pathlib.Path) -> np.ndarray:
    """Read a gzipped IDX file as a uint8 array; its header holds the axes and their lengths."""
    raw = gzip.decompress(path.read_bytes())
    axes = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes)]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()


def not_in(images: np.ndarray, excluded: np.ndarray) -> np.ndarray:
    """Mask of the images [N, 28, 28] whose pixels match none of ``excluded`` [M, 28, 28]."""
    seen = {image.tobytes() for image in excluded}
    return np.array([image.tobytes() not in seen for image in images])


def augment(x: torch.Tensor, shift: int, generator: torch.Generator) -> torch.Tensor:
    """Flip half of the images [B, 1, 28, 28] and move the batch by up to ``shift`` pixels."""
    flip = torch.rand(len(x), generator=generator) < 0.5
    x = torch.where(flip[:, None, None, None], x.flip(-1), x)
    dy, dx = torch.randint(-shift, shift + 1, (2,), generator=generator).tolist()
    return torch.roll(x, (dy, dx), dims=(2, 3))


def normalise(images: np.ndarray) -> torch.Tensor:
    """uint8 [N, 28, 28] -> float32 [N, 1, 28, 28] by the data set's mean and deviation."""
    return (torch.from_numpy(images).float()[:, None] / 255 - MEAN) / DEVIATION


@torch.no_grad()
def accuracy(model: torch.nn.Module, x: torch.Tensor, labels: torch.Tensor) -> float:
    """Top-1 accuracy on images [N, 1, 28, 28] with labels int64 [N], in [0, 1]."""
    model.eval()
    batches = zip(x.split(500), labels.split(500), strict=True)
    correct = sum(int((model(images).argmax(1) == truth).sum()) for images, truth in batches)
    return correct / len(x)


def train(
    model: torch.nn.Module, x: torch.Tensor, labels: torch.Tensor, phase: int, seed: int
) -> None:
    """Train for one phase, in place: AdamW, one-cycle schedule, label smoothing, clipped gradients.

    Parameters
    ----------
    x : float32 [N, 1, 28, 28]
    labels : int64 [N]
    phase : index into ``PHASES``
    """
    epochs, batch, rate, shift = PHASES[phase]
    torch.manual_seed(seed + phase)
    generator = torch.Generator().manual_seed(seed + phase)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    steps = len(x) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=epochs * steps, pct_start=0.15
    )
    model.train()
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        bar = tqdm(
            order.split(batch)[:steps],
            desc=f"phase {phase + 1}, epoch {epoch + 1}/{epochs}",
            mininterval=10,
        )
        for index in bar:
            loss = F.cross_entropy(
                model(augment(x[index], shift, generator)), labels[index], label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def main() -> None:
    """Train the expert from the command line and save its folder."""
    import timm

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=pathlib.Path, required=True, help="folder of the four idx .gz files"
    )
    parser.add_argument(
        "--mini", type=pathlib.Path, required=True, help="the shipped sample, left out of training"
    )
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    images = read_idx(args.data / "train-images-idx3-ubyte.gz")
    labels = torch.from_numpy(read_idx(args.data / "train-labels-idx1-ubyte.gz").astype(np.int64))
    keep = torch.from_numpy(not_in(images, np.load(args.mini)["x_train"]))
    print(f"{int(keep.sum())} of {len(images)} training images are used", flush=True)
    torch.manual_seed(args.seed)
    model = timm.create_model(**ARCHITECTURE)
    for phase in range(len(PHASES)):
        train(model, normalise(images)[keep], labels[keep], phase, args.seed)

    test = normalise(read_idx(args.data / "t10k-images-idx3-ubyte.gz"))
    truth = torch.from_numpy(read_idx(args.data / "t10k-labels-idx1-ubyte.gz").astype(np.int64))
    print(f"accuracy on the {len(test)} test images: {accuracy(model, test, truth):.4f}")
    save_expert(
        model,
        args.out,
        preprocessing=Preprocessing(input_size=(28, 28), mean=(MEAN,), std=(DEVIATION,)),
    )


if __name__ == "__main__":
    main()
