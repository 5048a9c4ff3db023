"""Train the shipped heavy expert: a small ViT on Fashion-MNIST.

    python -m agflow.example.train --data /usr/share/datasets/fashion-mnist --mini fashion_mnist_mini.npz --out heavy.safetensors

The 4,000 training images of the shipped sample are left out, so that they can calibrate, fine-tune and set
thresholds for a model that never saw them; its 1,000 test images are part of the 10,000 the model is judged on.
"""

from __future__ import annotations

import argparse
import gzip
import pathlib

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from tqdm.auto import tqdm

ARCHITECTURE = dict(
    model_name="vit_tiny_patch16_224",
    img_size=28, patch_size=4, in_chans=1, num_classes=10, embed_dim=128, depth=6, num_heads=4,
)


def read_idx(path: pathlib.Path) -> np.ndarray:
    """An IDX file (gzip) as a uint8 array; the header holds the number of axes and their lengths."""
    raw = gzip.decompress(path.read_bytes())
    axes = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * i:8 + 4 * i], "big") for i in range(axes)]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def not_in(images: np.ndarray, excluded: np.ndarray) -> np.ndarray:
    """Mask of the images [N, 28, 28] whose pixels match none of ``excluded`` [M, 28, 28]."""
    seen = {image.tobytes() for image in excluded}
    return np.array([image.tobytes() not in seen for image in images])


def augment(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Flip half of the images [B, 1, 28, 28] and shift each batch by up to two pixels."""
    flip = torch.rand(len(x), generator=generator) < 0.5
    x = torch.where(flip[:, None, None, None], x.flip(-1), x)
    dy, dx = torch.randint(-2, 3, (2,), generator=generator).tolist()
    return torch.roll(x, (dy, dx), dims=(2, 3))


def normalise(images: np.ndarray) -> torch.Tensor:
    """uint8 [N, 28, 28] -> float32 [N, 1, 28, 28] with the sample's mean 0.286 and deviation 0.353."""
    return (torch.from_numpy(images).float()[:, None] / 255 - 0.286) / 0.353


@torch.no_grad()
def accuracy(model: torch.nn.Module, x: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    hits = sum(int((model(b).argmax(1) == l).sum()) for b, l in zip(x.split(500), labels.split(500)))
    return hits / len(x)


def train(x, labels, epochs: int, seed: int, batch: int = 256) -> torch.nn.Module:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = timm.create_model(**ARCHITECTURE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3, weight_decay=0.05)
    steps = epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.5e-3, total_steps=steps, pct_start=0.15)
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(len(x), generator=generator)
        bar = tqdm(order.split(batch)[: len(x) // batch], desc=f"epoch {epoch + 1}/{epochs}", mininterval=10)
        for index in bar:
            loss = F.cross_entropy(model(augment(x[index], generator)), labels[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of the four idx .gz files")
    parser.add_argument("--mini", type=pathlib.Path, required=True, help="the shipped sample, left out of training")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    images = read_idx(args.data / "train-images-idx3-ubyte.gz")
    labels = torch.from_numpy(read_idx(args.data / "train-labels-idx1-ubyte.gz").astype(np.int64))
    keep = torch.from_numpy(not_in(images, np.load(args.mini)["x_train"]))
    print(f"{int(keep.sum())} of {len(images)} training images are used", flush=True)
    model = train(normalise(images)[keep], labels[keep], args.epochs, args.seed)

    test = normalise(read_idx(args.data / "t10k-images-idx3-ubyte.gz"))
    truth = torch.from_numpy(read_idx(args.data / "t10k-labels-idx1-ubyte.gz").astype(np.int64))
    print(f"accuracy on the {len(test)} test images: {accuracy(model, test, truth):.4f}")
    save_file(model.state_dict(), args.out)


if __name__ == "__main__":
    main()
