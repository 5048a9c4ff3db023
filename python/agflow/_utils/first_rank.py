"""Which of the processes that ``torchrun`` started writes and reports; known without torch."""

from __future__ import annotations

import os


def is_first_rank() -> bool:
    """Whether this is rank 0, or the only process."""
    return int(os.environ.get("WORLD_SIZE", 1)) == 1 or os.environ.get("RANK", "0") == "0"
