"""Fine-tuning of a light expert, with the heavy one as its teacher."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from agflow.errors import EmptyError, InvalidValueError, NonFiniteError
from agflow.modes import modes_kept

WARM_UP = 0.1
CLIP = 1.0


def finetune(model: nn.Module, loader: Iterable, *, teacher: nn.Module | None = None, epochs: int = 3, lr: float = 3e-4,
             weight_decay: float = 0.05, temperature: float = 2.0, distill: float = 0.9, seed: int = 0,
             progress: bool = True) -> list[dict[str, float]]:
    """Train ``model`` in place with AdamW, a short warm-up and cosine decay.

    The loss is (1 - distill) * cross entropy + distill * temperature² * KL(teacher || model), both softened by the
    temperature (Hinton et al., arXiv 1503.02531); cross entropy alone without a teacher. Equal seeds and equal
    batches give equal bits: torch's generator is seeded inside and put back afterwards, so a DataLoader that shuffles
    without a generator of its own is covered, too.

    Parameters
    ----------
    loader : sized iterable of (images float32 [B, C, H, W], labels int64 [B]), gone through once per epoch
    teacher : evaluated without gradients; it and its training mode are left as they were
    lr : peak learning rate
    weight_decay : for matrices; biases, norms and tokens have none
    distill : share of the teacher's part, in [0, 1]

    Returns
    -------
    one dict per epoch: epoch, loss and accuracy (means over the epoch's images, in training mode), lr at its end

    Raises
    ------
    EmptyError
        The loader gives no batch.
    InvalidValueError
        A value out of range, a loader without length, or nothing to train.
    NonFiniteError
        Loss or gradient became NaN or infinite; the model keeps the weights of the last good step.
    """
    steps = epochs * _batches(loader)
    _check(epochs=epochs, lr=lr, temperature=temperature, distill=distill)
    optimizer = _optimizer(model, lr, weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    device = next(model.parameters()).device
    history = []
    with _training(model, teacher), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for epoch in range(1, epochs + 1):
            total, hits, images_seen = 0.0, 0, 0
            bar = tqdm(loader, desc=f"fine-tune {epoch}/{epochs}", disable=None if progress else True, leave=False)
            for images, labels in bar:
                images, labels = images.to(device), labels.to(device)
                logits = model(images)
                loss = _loss(logits, labels, teacher, images, temperature, distill)
                optimizer.zero_grad()
                loss.backward()
                norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                if not (loss.isfinite() and norm.isfinite()):
                    raise NonFiniteError(f"loss {loss.item()} and gradient norm {norm.item()} in epoch {epoch} after {images_seen} images: "
                                         f"the last step's weights are kept; try a lower lr than {lr:g}")
                optimizer.step()
                schedule.step()
                total += loss.item() * len(labels)
                hits += int((logits.argmax(1) == labels).sum())
                images_seen += len(labels)
                bar.set_postfix(loss=f"{total / images_seen:.3f}", refresh=False)
            history.append({"epoch": epoch, "loss": total / images_seen, "accuracy": hits / images_seen,
                            "lr": schedule.get_last_lr()[0]})
    return history


def _batches(loader: Iterable) -> int:
    try:
        batches = len(loader)
    except TypeError as error:
        raise InvalidValueError("the loader has no length, which the learning-rate schedule needs: pass a DataLoader or a list of batches") from error
    if batches == 0:
        raise EmptyError("the loader gives no batch; expected at least one (images, labels) pair: check the dataset's length and limit")
    return batches


def _check(*, epochs: int, lr: float, temperature: float, distill: float) -> None:
    if epochs < 1:
        raise InvalidValueError(f"epochs is {epochs}, expected at least 1")
    if not (lr > 0 and temperature > 0):
        raise InvalidValueError(f"lr is {lr} and temperature {temperature}, expected numbers above 0")
    if not 0 <= distill <= 1:
        raise InvalidValueError(f"distill is {distill}, expected a share in [0, 1]")


def _optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise InvalidValueError("every parameter of the model is frozen: call model.requires_grad_() before fine-tuning")
    matrices = [parameter for parameter in trained if parameter.ndim in (2, 4)]  # tokens and positions have 3 axes
    others = [parameter for parameter in trained if parameter.ndim not in (2, 4)]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}], lr=lr)


def _rate(step: int, steps: int) -> float:
    """Share of the peak rate at ``step``: linear warm-up, then half a cosine down to zero."""
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _loss(logits_BK, labels_B, teacher, images, temperature: float, distill: float) -> torch.Tensor:
    hard = F.cross_entropy(logits_BK, labels_B)
    if teacher is None:
        return hard
    with torch.no_grad():
        target_BK = F.log_softmax(teacher(images) / temperature, dim=1)
    soft = F.kl_div(F.log_softmax(logits_BK / temperature, dim=1), target_BK, log_target=True, reduction="batchmean")
    return (1 - distill) * hard + distill * temperature**2 * soft


@contextmanager
def _training(model: nn.Module, teacher: nn.Module | None) -> Iterator[None]:
    """Model in training mode, teacher in evaluation mode; both modes come back and the gradients are dropped."""
    with modes_kept(*filter(None, (model, teacher))):
        if teacher is not None:
            teacher.eval()
        model.train()
        try:
            yield
        finally:
            model.zero_grad()
