"""Whoever folds what is told gets from the old profiles to the new ones."""

from datetime import UTC, datetime

import pytest
from google.protobuf.json_format import MessageToDict

from services.identity import changes
from services.identity.changes import creations, identifier_changes, moves, trait_changes
from services.identity.traits import Said

CAUSE = object()
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOON_TOLD = "2026-01-01T12:00:00Z"


def told(before, after, leads_to=None):
    """The events of moves, short; a node that is no atom leads nowhere unless told."""
    found = []
    leads_to = {**after, **(leads_to or {})}
    new = dict.fromkeys(set(after.values()) - set(before.values()), (NOON, NOON, 1))
    for change in [
        *creations(new, lambda _: CAUSE),
        *moves(before, after, leads_to, lambda _: CAUSE),
    ]:
        said = MessageToDict(change.event)
        assert said.pop("createTime", NOON_TOLD) == NOON_TOLD
        found.append((change.event.DESCRIPTOR.name, change.profile, *said.values()))
    return found


def test_nothing_is_told_when_nothing_moved():
    assert told({"a": "a", "b": "a"}, {"a": "a", "b": "a"}) == []


def test_a_new_atom_makes_a_profile_unless_it_joins_one():
    assert told({}, {"a": "a"}) == [("ProfileCreated", "a", "profiles/a")]
    assert told({"a": "a"}, {"a": "a", "b": "a"}) == []


def test_a_merge_tells_the_atoms_that_came_along():
    assert told({"a": "a", "b": "b", "c": "b"}, {"a": "a", "b": "a", "c": "a"}) == [
        ("ProfilesMerged", "a", "profiles/a", "profiles/b", ["b", "c"])
    ]


def test_a_part_that_becomes_a_profile_is_created_first():
    assert told({"a": "a", "b": "a"}, {"a": "a", "b": "b"}) == [
        ("ProfileCreated", "b", "profiles/b"),
        ("ProfileSplit", "a", "profiles/a", "profiles/b", ["b"]),
    ]


def test_an_older_atom_that_arrives_late_gives_the_profile_its_id():
    assert told({"b": "b"}, {"a": "a", "b": "a"}) == [
        ("ProfileCreated", "a", "profiles/a"),
        ("ProfilesMerged", "a", "profiles/a", "profiles/b", ["b"]),
    ]


def test_a_profile_that_ends_gives_its_last_atoms_to_where_its_own_went():
    assert told({"a": "a", "b": "b", "c": "b"}, {"a": "a", "b": "a", "c": "c"}) == [
        ("ProfileCreated", "c", "profiles/c"),
        ("ProfileSplit", "b", "profiles/b", "profiles/c", ["c"]),
        ("ProfilesMerged", "a", "profiles/a", "profiles/b", ["b"]),
    ]


def test_a_profile_whose_atoms_are_no_more_is_removed():
    assert told({"a": "a", "b": "a"}, {}) == [("ProfileRemoved", "a", "profiles/a")]
    assert told({"a": "a", "b": "a"}, {"a": "a"}) == []


def test_a_profile_whose_own_atom_is_no_more_is_absorbed_where_its_name_leads_to():
    assert told({"a": "a", "b": "a"}, {"b": "b"}, {"a": "b"}) == [
        ("ProfileCreated", "b", "profiles/b"),
        ("ProfilesMerged", "b", "profiles/b", "profiles/a", ["b"]),
    ]


@pytest.mark.parametrize("leads_to", [None, "c"])
def test_a_profile_is_removed_when_its_name_leads_to_none_of_its_atoms(leads_to):
    assert told({"a": "a", "b": "a", "c": "c"}, {"b": "b", "c": "c"}, {"a": leads_to}) == [
        ("ProfileCreated", "b", "profiles/b"),
        ("ProfileSplit", "a", "profiles/a", "profiles/b", ["b"]),
        ("ProfileRemoved", "a", "profiles/a"),
    ]


def identifiers(before, after):
    """Which nodes came to each profile, and which left it; all are users."""
    types = dict.fromkeys(after, "user_id")
    return {
        change.profile: (
            [known.node for known in change.event.added],
            [known.node for known in change.event.removed],
        )
        for change in identifier_changes(types, before, after, lambda _: CAUSE)
    }


def test_identifiers_are_told_to_whom_they_came_and_whom_they_left():
    before = {"a": "a", "b": "b", "c": "b", "new": None, "kept": "a", "gone": "a", "nobody": None}
    after = {"a": "a", "b": "a", "c": "a", "new": "a", "kept": "a", "gone": None, "nobody": None}

    assert {"a": (["b", "c", "new"], ["gone"]), "b": ([], ["b", "c"])} == identifiers(before, after)


def test_nothing_is_told_of_identifiers_that_stay():
    assert {} == identifiers({"a": "a", "b": None}, {"a": "a", "b": None})


def said(value):
    return Said(value, NOON, b"")


def test_only_values_that_differ_are_told():
    before = {"same": said("1"), "other": said("1"), "gone": said("1"), "back": said(None)}
    after = {"same": said("1"), "other": said("2"), "gone": said(None), "back": said("1")}

    [change] = trait_changes("a", before, after, CAUSE)

    assert [(c.trait, c.value) for c in change.event.changes] == [
        ("back", "1"),
        ("gone", ""),
        ("other", "2"),
    ]


def test_a_trait_that_went_with_another_atom_is_told_as_gone():
    [change] = trait_changes("a", {"plan": said("1")}, {}, CAUSE)

    assert [(c.trait, c.value) for c in change.event.changes] == [("plan", "")]


def test_many_traits_are_told_in_events_of_bounded_size(monkeypatch):
    monkeypatch.setattr(changes, "CHANGE_BYTES_MAX", 100)
    after = {f"t{number}": said("1" * 40) for number in range(5)}

    events = [change.event for change in trait_changes("a", {}, after, CAUSE)]

    assert [len(event.changes) for event in events] == [1, 1, 1, 1, 1]
