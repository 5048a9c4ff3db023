"""A bound on what is built after a description that nobody has checked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from agflow.errors import CorruptFileError

# A transformer's block has twelve tensors and registers about forty modules and parameters, twice
# where it is cut. The blocks that lost both branches have no tensor and are built all the same.
REGISTRATIONS, REGISTRATIONS_PER_TENSOR = 2000, 16


@contextmanager
def registrations_at_most(tensors: int) -> Iterator[None]:
    """Stop this thread when it builds far more than a model of so many tensors.

    Raises
    ------
    CorruptFileError
        More modules and parameters were registered than 2,000 and 16 for every tensor.
    """
    left = REGISTRATIONS + REGISTRATIONS_PER_TENSOR * tensors
    thread = threading.get_ident()

    def count(*_) -> None:
        nonlocal left
        if threading.get_ident() == thread:
            left -= 1
            if left < 0:
                raise CorruptFileError(f"it is of a model with far more than {tensors} tensors")

    hooks = [
        register_module_parameter_registration_hook(count),
        register_module_module_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
