"""What a verdict says, and how it is told: as one fact, without the values it is about."""

from dataclasses import replace

import pytest

from rapport.identity.v1.events_pb2 import IdentifiersCut, IdentifiersLinked, VerdictCleared
from rapport.identity.v1.service_pb2 import Identifier as Named
from rapport.identity.v1.verdicts_pb2 import (
    ClearVerdictRequest,
    CutIdentifiersRequest,
    LinkIdentifiersRequest,
)
from services.identity.decider import VERDICTS_PER_IDENTIFIER_MAX, Judged, State, decider_about
from services.identity.graph import Edge, Refusal, Rule, cuts_of, resolve
from services.identity.identifiers import identifier
from services.identity.rules import DEFAULT, Rules
from services.identity.service.verdicts import pair_named
from services.identity.verdicts import Kind, last_rulings, pair_id
from services.kernel.errors import ResourceExhausted
from tests.identity_world import Facts

ONE, OTHER = (
    identifier(DEFAULT, "acme", "user_id", "u1"),
    identifier(DEFAULT, "acme", "email", "ada@x.com"),
)


def decided(command, state=None, others=0):
    """The events of a command, and the state they lead to."""
    decider = decider_about(Judged(ONE, OTHER, {ONE.node: 0, OTHER.node: others}))
    state = state or decider.initial
    events = decider.decide(command, state)
    return [type(event) for event in events], decider.fold(events, state)


@pytest.mark.parametrize(
    ("command", "kind", "fact"),
    [
        (LinkIdentifiersRequest(reason="why"), Kind.LINK, IdentifiersLinked),
        (CutIdentifiersRequest(reason="why"), Kind.CUT, IdentifiersCut),
    ],
)
def test_a_verdict_is_one_fact_and_deciding_twice_is_deciding_once(command, kind, fact):
    events, state = decided(command)

    assert (events, state) == ([fact], State(kind, "why"))
    assert decided(command, state) == ([], state)
    assert decided(ClearVerdictRequest(), state) == ([VerdictCleared], State(Kind.NONE))


def test_taking_back_what_nobody_said_is_no_news():
    assert decided(ClearVerdictRequest()) == ([], State())


def test_the_last_verdict_that_an_identifier_may_have_is_given_and_no_other():
    most = VERDICTS_PER_IDENTIFIER_MAX

    assert decided(LinkIdentifiersRequest(), others=most - 1)[0] == [IdentifiersLinked]
    with pytest.raises(ResourceExhausted):
        decided(LinkIdentifiersRequest(), others=most)
    assert decided(ClearVerdictRequest(), State(Kind.CUT), most)[0] == [VerdictCleared]


def test_a_fact_and_its_stream_carry_no_value():
    event = Facts().cut(("email", "ada@x.com"), ("user_id", "u1"))

    assert b"ada" not in event.event.SerializeToString()
    assert event.stream == f"verdict-{pair_id(ONE, OTHER)}"
    assert event.event.one.node == ONE.node


def test_a_pair_is_the_same_whichever_of_both_the_rules_in_force_make_stronger():
    ranks = {"email": 4, "phone": 3}
    turned = Rules(
        tuple(replace(known, rank=ranks.get(known.name, known.rank)) for known in DEFAULT.types)
    )
    said = Named(type="email", value="ada@x.com"), Named(type="phone", value="+491701234567")

    one, other = pair_named(turned, "acme", *said)

    assert ["email", "phone"] == [one.type, other.type]
    assert pair_id(one, other) == pair_id(*pair_named(DEFAULT, "acme", *reversed(said)))


def test_the_last_of_several_verdicts_is_the_one_with_the_greatest_key():
    facts = Facts()
    pair = ("user_id", "u1"), ("email", "ada@x.com")
    linked, cut = facts.linked(*pair), facts.cut(*reversed(pair))

    [ruling] = last_rulings([cut, linked, facts.track(user_id="u1")]).values()

    assert (ruling.kind, ruling.pair) == (Kind.CUT, (OTHER.node, ONE.node))


@pytest.mark.parametrize(
    ("cut", "wanted"),
    [
        ([], Refusal(Rule.LIMIT, "user_id", ("u1", "u2"), (("u1", "u2"),))),
        ([("u1", "u2")], Refusal(Rule.CUT, nodes=("u1", "u2"))),
    ],
)
def test_a_rejected_edge_says_which_rule_refused_it_and_what_broke_it(cut, wanted):
    types = {"u1": "user_id", "u2": "user_id", "a": "anonymous_id"}
    edges = [Edge("a", "u1", b"1"), Edge("a", "u2", b"2")]

    found = resolve(DEFAULT, types, edges, cuts_of(cut), asked={("a", "u2")})

    assert found.refusals == {("a", "u2"): wanted}
