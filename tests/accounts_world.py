"""Dense random histories of people who join and leave accounts."""

from __future__ import annotations

from tests.identity_histories import DenseHistory

GROUPING = 0.8


class AccountHistory(DenseHistory):
    """Few people, few identifiers and few accounts, so that everybody comes and goes.

    Most of what would be any other customer event is about an account.
    """

    def _track(self, **message):
        if self._rng.random() > GROUPING:
            return super()._track(**message)
        choice = self._rng.choice
        told = {"group_id": choice(["g0", "g0", " g1", "null"]), "traits": self._traits()}
        match choice(["joins", "joins", "leaves", "leaves", "is in it", "described"]):
            case "joins":
                return self._sent("group", **told, **self._ids(), **message)
            case "leaves":
                return self._sent("group", **told, ends_membership=True, **self._ids(), **message)
            case "is in it":
                context = {"groupId": told["group_id"]}
                return self._sent("screen", context=context, **self._ids(), **message)
        return self._sent("account", **told, **choice([{}, self._ids()]), **message)
