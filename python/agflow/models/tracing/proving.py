"""Which groups can be cut together: found by proofs, each failure with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from agflow.models.channel_group import Attribute, ChannelGroup
from agflow.models.tracing.proof import Proof

Reasons = dict[str, str]
"""By name of a group, why it is not cut."""

Choices = Callable[[ChannelGroup], Iterable[Sequence[tuple[Attribute, ...]]]]

_DRAWS = 2  # of units that go
_LEAST_EFFECT = 10  # on the logits, in tolerances: below it a proof would not notice a mistake


def prove(
    proof: Proof,
    base: Sequence[ChannelGroup],
    groups: Sequence[ChannelGroup],
    choices: Choices,
) -> tuple[dict[str, ChannelGroup], Reasons]:
    """The groups that can be cut together with those in ``base``, and why the others cannot.

    Parameters
    ----------
    choices : for a group that fails, sets of attributes that it may need, likely ones first
    """
    reasons: Reasons = {}
    left = list(groups)
    for group, effect in zip(groups, proof.effects(groups), strict=True):
        if not effect > _LEAST_EFFECT * proof.tolerance:
            left.remove(group)
            reasons[group.name] = "what is computed of them does not reach the logits"
    for _ in range(_DRAWS):
        left = _grown(proof, list(base), left, choices, reasons)
    return {group.name: group for group in left}, reasons


def _grown(
    proof: Proof,
    base: list[ChannelGroup],
    groups: list[ChannelGroup],
    choices: Choices,
    reasons: Reasons,
) -> list[ChannelGroup]:
    """Those of ``groups`` that stand beside ``base``; ``reasons`` gets those of the others."""
    if not groups:
        return []
    refusal = proof.refusal(proof.draw([*base, *groups]))
    if refusal is None:
        return groups
    if len(groups) > 1:
        half = len(groups) // 2
        first = _grown(proof, base, groups[:half], choices, reasons)
        second = _grown(proof, [*base, *first], groups[half:], choices, reasons)
        return [*first, *second]
    for equals in choices(groups[0]):
        proven = [
            group
            for group in (replace(groups[0], attributes=attributes) for attributes in equals)
            if proof.refusal(proof.draw([*base, group])) is None
        ]
        if len(proven) == 1:
            return proven
        if proven:
            refusal = (
                f"{refusal}; {_named(proven)} would each do: which of them it takes is not known"
            )
            break
    reasons[groups[0].name] = refusal
    return []


def _named(groups: list[ChannelGroup]) -> str:
    """The attributes of groups, in words."""
    return " and ".join(
        ", ".join(f"{attribute.module}.{attribute.name}" for attribute in group.attributes)
        for group in groups
    )
