"""Accounts and memberships from all words at once, kept in memory until it is known who is who."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from services.identity.accounts import Account, Kind, Turn, Word, periods
from services.identity.projections import memberships
from services.identity.projections.profiles import traits_json

Row = tuple[object, ...]


@dataclass(slots=True)
class Groups:
    """What facts say of the accounts of one workspace."""

    workspace: str
    group_ids: dict[str, str] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=lambda: defaultdict(Account))
    turns: dict[tuple[str, str], list[Turn]] = field(default_factory=lambda: defaultdict(list))

    def add(self, word: Word) -> None:
        """Adds a word."""
        self.group_ids[word.account] = word.group_id
        self.accounts[word.account].add(word.key, word.occur_time, word.traits)
        if word.atom is not None and word.kind is not Kind.DESCRIBED:
            turn = Turn(word.kind, word.occur_time, word.key)
            self.turns[word.atom, word.account].append(turn)

    def rows(self, profile_of: Mapping[str, str | None]) -> Iterator[tuple[str, list[Row]]]:
        """Yields the rows of each table but the words', with the profiles of nodes."""
        yield (
            "accounts",
            [
                (
                    self.workspace,
                    account,
                    self.group_ids[account],
                    found.create_time,
                    found.words,
                    traits_json(found.traits),
                )
                for account, found in self.accounts.items()
            ],
        )
        yield (
            "account_traits",
            [
                (self.workspace, account, name, said.value, said.occur_time, said.key)
                for account, found in self.accounts.items()
                for name, said in found.traits.items()
            ],
        )
        yield "memberships", self._memberships(profile_of)

    def _memberships(self, profile_of: Mapping[str, str | None]) -> list[Row]:
        together: dict[tuple[str, str], list[Turn]] = defaultdict(list)
        for (atom, account), turns in self.turns.items():
            together[str(profile_of[atom]), account] += turns
        return [
            memberships.row_of(self.workspace, profile, account, period)
            for (profile, account), turns in together.items()
            for period in periods(turns)
        ]
