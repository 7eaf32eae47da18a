"""What accounts and memberships must be, said a second time: slowly, from all the facts at once.

It shares with the service how a single event is read, and nothing of how words come together.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from services.identity.accounts import Kind, words_of
from services.identity.rules import DEFAULT
from tests.identity_reference import facts_of, without_erased


@dataclass
class ExpectedAccounts:
    """The accounts of one or more workspaces, and who is and was in them."""

    accounts: dict = field(default_factory=dict)  # account -> (create, how many words)
    traits: dict = field(default_factory=dict)  # account -> {name: value}
    # (profile, account) -> [(start key, start, end key, end)]
    memberships: dict = field(default_factory=dict)


def expected_accounts(events, profile_of, rules=DEFAULT):
    """The accounts that follow from a set of events, with the profiles of nodes."""
    true = {event.event_id: event for event in without_erased(events, rules)}.values()
    words = words_of(true, facts_of(events, rules))
    result = ExpectedAccounts()
    for account in {word.account for word in words}:
        own = [word for word in words if word.account == account]
        result.accounts[account] = min(word.receive_time for word in own), len(own)
        result.traits[account] = _last_words(own)
    told = defaultdict(list)
    for word in words:
        if word.kind is not Kind.DESCRIBED:
            told[profile_of[word.atom], word.account].append(word)
    for pair, own in told.items():
        if made := list(_periods(own)):
            result.memberships[pair] = made
    return result


def _last_words(words):
    said = {}
    for word in sorted(words, key=_place):
        said.update(word.traits)
    return {name: value for name, value in said.items() if value is not None}


def _periods(words):
    """Every word to join that comes after none or after one to leave begins a period."""
    for word in sorted(words, key=_place):
        earlier = [other for other in words if _place(other) < _place(word)]
        is_in = earlier and max(earlier, key=_place).kind is Kind.JOINED
        if word.kind is Kind.LEFT or is_in:
            continue
        leaving = [
            other for other in words if other.kind is Kind.LEFT and _place(other) > _place(word)
        ]
        end = min(leaving, key=_place, default=None)
        yield (
            word.key.hex(),
            word.occur_time,
            end and end.key.hex(),
            end and end.occur_time,
        )


def _place(word):
    return word.occur_time, word.key
