"""The instructions of this CPU that decide how fast and how exact int8 products are."""

from __future__ import annotations

import pathlib
import platform
import re

INT8_SETS = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp")
"""Sets that add products of 8 bits in 32 without saturation, the fastest first."""
_OTHER_SETS = ("avx512bw", "avx2", "avx", "asimd")


def instruction_set(flags: set[str] | None = None) -> str:
    """The best of the sets that int8 products use: ``"avx512_vnni"``; the machine's where unknown.

    Parameters
    ----------
    flags : of the CPU as Linux names them; None reads this one's

    Examples
    --------
    >>> from agflow._utils.instruction_set import instruction_set
    >>> instruction_set({"sse2", "avx2", "avx512_vnni", "avx512bw"})
    'avx512_vnni'
    """
    known = _flags() if flags is None else flags
    sets = (each for each in (*INT8_SETS, *_OTHER_SETS) if each in known)
    return next(sets, platform.machine())


def saturates(name: str) -> bool:
    """Whether 8-bit products of a set are added in 16 bits, which saturate: x86 without VNNI.

    Examples
    --------
    >>> from agflow._utils.instruction_set import saturates
    >>> saturates("avx2"), saturates("avx512_vnni"), saturates("aarch64")
    (True, False, False)
    """
    return name.startswith("avx") and name not in INT8_SETS


def _flags() -> set[str]:
    info = pathlib.Path("/proc/cpuinfo")
    if not info.exists():
        return set()
    found = re.search(r"^(flags|Features)\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
    return set(found.group(2).split()) if found else set()
