"""All that follows from facts: people, accounts and consents, in the tables and in what is told."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from tests.accounts_reference import ExpectedAccounts, expected_accounts
from tests.consents_reference import strictest
from tests.identity_reference import Expected, expected, together
from tests.integration.identity import test_account_order as accounts
from tests.integration.identity import test_consents as consents
from tests.integration.identity import test_order as people


@dataclass
class Whole:
    """What must be."""

    people: Expected
    accounts: ExpectedAccounts
    consents: dict


class Reader:
    """Folds all that identity tells, as others do."""

    def __init__(self):
        self.people, self.accounts = people.Reader(), accounts.Reader()
        self.consents = consents.Reader()

    def read(self, changes):
        for reader in (self.people, self.accounts, self.consents):
            reader.read(changes)


def follows(events, rules):
    """What follows from events, in each workspace by its rules, as the references say it."""
    by_workspace = defaultdict(list)
    for event in events:
        by_workspace[event.workspace].append(event)
    known, groups, consented = [Expected()], [ExpectedAccounts()], {}
    for workspace, own in by_workspace.items():
        known.append(expected(own, rules[workspace]))
        said = own, known[-1].profile_of, rules[workspace]
        groups.append(expected_accounts(*said))
        consented |= strictest(*said)
    return Whole(together(*known), together(*groups), consented)


async def assert_tables(connection, schema, wanted):
    """The tables hold exactly what is wanted."""
    await people.assert_tables(connection, schema, wanted.people)
    await accounts.assert_tables(connection, schema, wanted.accounts)
    assert await consents.stored(connection, schema) == wanted.consents


def assert_told(reader, wanted):
    """Who read all that was told knows the same."""
    people.assert_told(reader.people, wanted.people)
    accounts.assert_told(reader.accounts, wanted.accounts)
    assert reader.consents.told() == wanted.consents
