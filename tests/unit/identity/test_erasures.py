"""Up to which fact somebody is erased, and what that covers."""

import pytest

from services.identity.erasures import covers, erased_by, left_of, nodes_in
from services.identity.facts import key_of, read_fact
from services.identity.identifiers import node_of
from services.identity.retraction import Kept, said_by
from services.identity.rules import DEFAULT
from tests.erasures_world import erased
from tests.identity_world import Facts

U1 = node_of("acme", "user_id", "u1")


def read(event):
    return read_fact(DEFAULT, event, {})


def test_the_latest_of_several_erasures_counts():
    facts = Facts()
    early, late = facts.track(user_id="u1"), facts.track(user_id="u1")
    told = [erased(facts, ("user_id", "u1"), until=each) for each in (late, early)]

    [(place, found)] = erased_by(told).items()

    assert place == ("acme", U1)
    assert found.key == key_of(late.record_time, late.event_id)


@pytest.mark.parametrize(("workspace", "gone"), [("acme", True), ("theirs", False)])
def test_a_fact_goes_up_to_the_key_itself_and_only_in_its_workspace(workspace, gone):
    facts = Facts()
    last, next_one = facts.track(user_id="u1"), facts.track(user_id="u1")
    keys = {(workspace, U1): read(last).key}

    assert left_of(keys, [read(last)]) == ([] if gone else [read(last)])
    assert left_of(keys, [read(next_one)]) == [read(next_one)]


def test_a_record_names_whom_it_asserts():
    fact = read(Facts().contact_created("c1", email="ada@x.com"))
    keys = {("acme", node_of("acme", "email", "ada@x.com")): fact.key}

    assert left_of(keys, [fact]) == []
    kept = Kept.of(fact.atom, fact.key, fact.occur_time, said_by(fact))
    assert covers(keys, "acme", kept.named(), fact.key)


def test_a_verdict_names_both():
    cut = Facts().cut(("user_id", "u1"), ("email", "ada@x.com"))

    assert set(nodes_in(cut)) == {U1, node_of("acme", "email", "ada@x.com")}
    assert nodes_in(Facts().track(user_id="u1")) == ()
