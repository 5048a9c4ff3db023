"""Which groups can be cut together: found by proofs, each failure with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agflow.models.channel_group import Attribute, ChannelGroup
from agflow.models.slicing import Cut
from agflow.models.tracing.failing import BY_INPUT
from agflow.models.tracing.proof import Proof, turns_for

Reasons = dict[str, str]
"""By name of a group, why it is not cut."""

Choices = Mapping[str, Callable[[], Iterable[Sequence[tuple[Attribute, ...]]]]]

Keys = tuple[str, frozenset[tuple[type, str, int | None]]]

FAINT = "what is computed of them does not reach the logits"
_TURNS = 2  # draws of units that go, where no two groups lie along one axis
_ROUNDS = 4
_LEAST_EFFECT = 10  # on the logits, in tolerances: below it a proof would not notice a mistake


def prove(
    proof: Proof,
    base: Sequence[ChannelGroup],
    groups: Sequence[ChannelGroup],
    choices: Choices,
    parted: bool = False,
    learnt: Learnt | None = None,
) -> tuple[dict[str, ChannelGroup], Reasons]:
    """The groups that can be cut together with those in ``base``, and why the others cannot.

    Parameters
    ----------
    choices : by group, what gives sets of attributes that it may need, likely ones first
    parted : whether groups may lie side by side along one axis
    learnt : of the attributes of such groups before
    """
    channels = [group for group in groups if group.members]
    faint = faint_of(proof, channels)
    reasons = {group.name: FAINT for group in faint}
    left = [group for group in groups if group not in faint]
    turns = turns_for([*base, *left]) if parted else _TURNS
    learnt = learnt or Learnt()
    for turn in range(turns):
        # The further draws are of units, which have nothing to do with the size of the images.
        at = proof.smaller if turn else proof
        growth = _Growth(Proof.refusal, at, proof.smaller, choices, reasons, turn, learnt)
        left = growth.beside(list(base), left)
    return {group.name: group for group in left}, reasons


def trainable(proof: Proof, groups: Sequence[ChannelGroup]) -> Reasons:
    """Why groups cannot go from a model that is to be trained; nothing for those that can.

    Parts that only run in training mode, such as auxiliary classifiers, are not in the graph.
    """
    reasons: Reasons = {}
    _Growth(Proof.training_refusal, proof, proof.smaller, {}, reasons).beside([], list(groups))
    return reasons


def faint_of(proof: Proof, groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
    """Groups of which no proof would say anything, on images of either size."""
    return _faint(proof, _faint(proof.smaller, groups))


def _faint(proof: Proof, groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
    """Groups whose units move the logits by so little that no mistake would be noticed."""
    effects = proof.effects(groups) if groups else []
    return [
        group
        for group, effect in zip(groups, effects, strict=True)
        if not effect > _LEAST_EFFECT * proof.tolerance
    ]


@dataclass
class Learnt:
    """What was found of groups and is likely of others: code that has one group has many.

    Attributes
    ----------
    needed : the attributes that groups of a kind needed, in the order that they were found
    fruitless : choices of attributes that were of no use to a group, and among them those with
        which the code failed by what no attribute cures
    """

    needed: dict[Keys, None] = field(default_factory=dict)
    fruitless: dict[tuple[Keys, ...], Keys | None] = field(default_factory=dict)


@dataclass
class _Growth:
    """Adds groups to what can be cut together, by halves.

    Attributes
    ----------
    check : why cuts are wrong, or None
    smaller : the proof on smaller images: what fails there is left out, what passes is proven
        by ``proof``
    reasons : gets those of the groups that fail
    turn : of the draws
    learnt : of the attributes that other groups needed
    """

    check: Callable[[Proof, Sequence[Cut]], str | None]
    proof: Proof
    smaller: Proof
    choices: Choices
    reasons: Reasons
    turn: int = 0
    learnt: Learnt = field(default_factory=Learnt)

    def beside(self, base: list[ChannelGroup], groups: list[ChannelGroup]) -> list[ChannelGroup]:
        """Those of ``groups`` that stand beside ``base``."""
        for _ in range(_ROUNDS):  # by chance a mistake may go unnoticed in one draw
            if not groups or self._refusal(self.proof, [*base, *groups]) is None:
                return groups
            groups = self._sound(base, groups)
        return self._together(base, groups)

    def _sound(self, base: list[ChannelGroup], groups: list[ChannelGroup]) -> list[ChannelGroup]:
        """Those that stand beside ``base`` with some of the others: what fails, fails alone."""
        if not groups:
            return []
        groups = [self._presumed(group) for group in groups]
        refusal = self._refusal(self.smaller, [*base, *groups])
        if refusal is None:
            return groups
        if len(groups) > 1:
            half = len(groups) // 2
            return [*self._sound(base, groups[:half]), *self._sound(base, groups[half:])]
        found = self._with_attributes(base, groups[0])
        if len(found) != 1:
            unsure = f"; {_named(found)} would each do, which of them is not known" if found else ""
            self.reasons[groups[0].name] = self.reasons.get(groups[0].name, refusal) + unsure
            return []
        return found

    def _together(self, base: list[ChannelGroup], groups: list[ChannelGroup]) -> list[ChannelGroup]:
        """Those that stand beside ``base`` and all that stand before them."""
        if not groups:
            return []
        refusal = self._refusal(self.proof, [*base, *groups])
        if refusal is None:
            return groups
        if len(groups) == 1:
            self.reasons[groups[0].name] = refusal
            return []
        half = len(groups) // 2
        first = self._together(base, groups[:half])
        return [*first, *self._together([*base, *first], groups[half:])]

    def _presumed(self, group: ChannelGroup) -> ChannelGroup:
        """The group with the attributes that another such group has needed."""
        if group.attributes or not self.learnt.needed:
            return group
        choices = self._choices_of(group)
        keys = {self._keys(group, chosen): chosen for equals in choices for chosen in equals}
        likely = (keys[needed] for needed in reversed(self.learnt.needed) if needed in keys)
        return replace(group, attributes=next(likely, ()))

    def _with_attributes(self, base: list[ChannelGroup], group: ChannelGroup) -> list[ChannelGroup]:
        """The group with each set of attributes, of as few as will do, that it stands with."""
        choices, bare = self._choices_of(group), replace(group, attributes=())
        keyed = {self._keys(group, chosen): chosen for equals in choices for chosen in equals}
        keys = tuple(keyed)
        if not group.attributes and keys in self.learnt.fruitless:
            told = self.learnt.fruitless[keys]
            if told is not None:
                failing = replace(group, attributes=keyed[told])
                self._tell(group, self._refusal(self.smaller, [*base, failing]))
            return []
        cuts = self.proof.draw([*base, bare], self.turn)
        if self.check(self.smaller, cuts) is None:
            stands = group.attributes and self._refusal(self.smaller, [*base, bare]) is None
            return [bare] if stands else []
        told: Keys | None = None
        for equals in choices:
            proven = []
            for other in (replace(group, attributes=attributes) for attributes in equals):
                refusal = self.check(self.smaller, [*cuts[:-1], (other, cuts[-1][1])])
                if refusal is None and self._refusal(self.smaller, [*base, other]) is None:
                    proven.append(other)
                elif told is None and self._tell(group, refusal):
                    told = self._keys(group, other.attributes)
            if len(proven) == 1:
                self.learnt.needed[self._keys(group, proven[0].attributes)] = None
            if proven:
                self.reasons.pop(group.name, None)
                return proven
        self.learnt.fruitless[keys] = told
        return []

    def _tell(self, group: ChannelGroup, refusal: str | None) -> bool:
        """Note what the code fails by with some attributes, if no other attribute cures that."""
        if refusal is None or BY_INPUT not in refusal:
            return False
        self.reasons[group.name] = refusal
        return True

    def _keys(self, group: ChannelGroup, attributes: Iterable[Attribute]) -> Keys:
        """The kind of a group and its attributes, by class, name and place."""
        of = ((type(self.proof.model.get_submodule(a.module)), a.name, a.place) for a in attributes)
        return group.kind, frozenset(of)

    def _choices_of(self, group: ChannelGroup) -> list[Sequence[tuple[Attribute, ...]]]:
        return list(self.choices.get(group.name, list)())

    def _refusal(self, proof: Proof, groups: list[ChannelGroup]) -> str | None:
        return self.check(proof, proof.draw(groups, self.turn))


def _named(groups: list[ChannelGroup]) -> str:
    """The attributes of groups, in words."""
    return " and ".join(
        ", ".join(f"{attribute.module}.{attribute.name}" for attribute in group.attributes)
        for group in groups
    )
