"""Which groups can be cut together: found by proofs, each failure with its reason."""

from __future__ import annotations

from collections.abc import Sequence

from agflow.models.channel_group import ChannelGroup
from agflow.models.tracing.proof import Proof

Reasons = dict[str, str]
"""By name of a group, why it is not cut."""

_DRAWS = 2  # of units that go
_LEAST_EFFECT = 10  # on the logits, in tolerances: below it a proof would not notice a mistake


def prove(
    proof: Proof, base: Sequence[ChannelGroup], groups: Sequence[ChannelGroup]
) -> tuple[dict[str, ChannelGroup], Reasons]:
    """The groups that can be cut together with those in ``base``, and why the others cannot."""
    reasons: Reasons = {}
    left = list(groups)
    for group, effect in zip(groups, proof.effects(groups), strict=True):
        if not effect > _LEAST_EFFECT * proof.tolerance:
            left.remove(group)
            reasons[group.name] = "what is computed of them does not reach the logits"
    for _ in range(_DRAWS):
        left = _grown(proof, list(base), left, reasons)
    return {group.name: group for group in left}, reasons


def _grown(
    proof: Proof, base: list[ChannelGroup], groups: list[ChannelGroup], reasons: Reasons
) -> list[ChannelGroup]:
    """Those of ``groups`` that stand beside ``base``; ``reasons`` gets those of the others."""
    if not groups:
        return []
    refusal = proof.refusal(proof.draw([*base, *groups]))
    if refusal is None:
        return groups
    if len(groups) == 1:
        reasons[groups[0].name] = refusal
        return []
    half = len(groups) // 2
    first = _grown(proof, base, groups[:half], reasons)
    return [*first, *_grown(proof, [*base, *first], groups[half:], reasons)]
