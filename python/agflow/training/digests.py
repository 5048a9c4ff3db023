"""SHA-256 of tensors and models, by which two runs are compared."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from agflow._utils.tensors import raw_bytes


def named_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers, each once however many names it has."""
    return itertools.chain(model.named_parameters(), model.named_buffers())


def digest_of(model: nn.Module) -> str:
    """SHA-256 of names, types, shapes and values of the model's tensors, hexadecimal."""
    return hash_tensors(dict(named_tensors(model))).hexdigest()


def hash_tensors(tensors: Mapping[str, torch.Tensor], text: str = "") -> hashlib._Hash:
    """SHA-256 of ``text``, and of names, types, shapes and values of ``tensors`` in name order."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(raw_bytes(tensor))
    return digest


def tensors_under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors named ``prefix.name``, by ``name``."""
    return {
        name[len(prefix) + 1 :]: tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{prefix}.")
    }
