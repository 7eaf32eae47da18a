"""A person decides about an identifier: once, by its hash, until somebody decides otherwise."""

import pytest

from rapport.identity.v1.events_pb2 import (
    IdentifierAllowed,
    IdentifierBlocked,
    IdentifierFlagCleared,
    JudgedIdentifier,
)
from rapport.identity.v1.flags_pb2 import (
    AllowIdentifierRequest,
    BlockIdentifierRequest,
    ClearIdentifierFlagRequest,
)
from services.identity.flags import Kind, State, decider_about, held_flags, last_flags
from services.identity.identifiers import identifier
from services.identity.rules import DEFAULT
from tests.identity_world import Facts

TABLET = identifier(DEFAULT, "acme", "anonymous_id", "tablet")
DECIDER = decider_about(TABLET)
FLAGGED = JudgedIdentifier(type="anonymous_id", node=TABLET.node)

BLOCK = BlockIdentifierRequest(reason="a\0 kiosk")
ALLOW, CLEAR = AllowIdentifierRequest(), ClearIdentifierFlagRequest()


@pytest.mark.parametrize(
    ("before", "command", "facts"),
    [
        (Kind.NONE, BLOCK, [IdentifierBlocked(identifier=FLAGGED, reason="a kiosk")]),
        (Kind.NONE, ALLOW, [IdentifierAllowed(identifier=FLAGGED)]),
        (Kind.BLOCK, ALLOW, [IdentifierAllowed(identifier=FLAGGED)]),
        (Kind.ALLOW, CLEAR, [IdentifierFlagCleared(identifier=FLAGGED)]),
        (Kind.BLOCK, BLOCK, []),
        (Kind.ALLOW, ALLOW, []),
        (Kind.NONE, CLEAR, []),
    ],
)
def test_deciding_twice_is_deciding_once(before, command, facts):
    decided = DECIDER.decide(command, State(before))

    assert facts == decided


def test_a_flag_is_what_was_decided_last():
    state = State()
    for command in (BLOCK, ALLOW, CLEAR, BLOCK):
        for fact in DECIDER.decide(command, state):
            state = DECIDER.evolve(state, fact)

    assert state == State(Kind.BLOCK, "a kiosk")


def test_a_flag_and_its_stream_carry_no_value():
    event = Facts().blocked(("anonymous_id", "tablet"))

    assert b"tablet" not in event.event.SerializeToString()
    assert event.stream == f"flag-{TABLET.node}"


def test_the_last_of_several_flags_is_the_one_with_the_greatest_key():
    facts = Facts()
    about = "anonymous_id", "tablet"
    blocked, allowed = facts.blocked(about), facts.allowed(about)

    last = last_flags([allowed, blocked, facts.track(user_id="u1")]).values()

    assert held_flags(last) == {TABLET.node: False}
    assert held_flags(last_flags([blocked, allowed, facts.flag_cleared(about)]).values()) == {}
