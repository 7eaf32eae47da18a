"""Purposes and words on consent for the tests of identity."""

from __future__ import annotations

from rapport.identity.v1.consents_pb2 import LawfulBasis
from rapport.identity.v1.events_pb2 import (
    ConsentDenied,
    ConsentGranted,
    ConsentWithdrawn,
    IdentifierNode,
    PurposeCreated,
)
from services.identity.identifiers import identifier
from services.identity.projections.purposes import PurposesView
from services.identity.rules import DEFAULT
from services.kernel.log.recorded import timestamp_of
from tests.identity_world import Facts

CATEGORIES = ("marketing", "ads")
# By which categories each purpose is granted; what is by hand only has none.
PURPOSES = {"mail": {"marketing"}, "ads": {"marketing", "ads"}, "by-hand": set()}
CREATED = 15
BY_HAND = {ConsentGranted: "GRANTED", ConsentDenied: "DENIED", ConsentWithdrawn: "WITHDRAWN"}


def preferring(*categories):
    """A context of a customer event that grants these and refuses all others."""
    return {"consent": {"categoryPreferences": dict.fromkeys(categories, True)}}


def created(facts, purpose_id="mail", categories=("marketing",), **times):
    """A purpose came to be, a fact of the own log."""
    event = PurposeCreated(
        display_name="Mail",
        lawful_basis=LawfulBasis.LAWFUL_BASIS_CONSENT,
        categories=categories,
    )
    return facts.event(f"purpose-{purpose_id}", event, **times)


def consented(facts, fact, *pairs, purpose="mail", received=None, occurred=None, **fields):
    """A word on consent that was recorded by hand, under identifiers as type and value."""
    known = [identifier(DEFAULT, facts.workspace, *pair) for pair in pairs]
    said = fact(
        purpose=f"purposes/{purpose}",
        identifiers=[IdentifierNode(type=each.type, node=each.node) for each in known],
        **fields,
    )
    event = facts.event(f"consent-{known[0].node}", said, received=received, occurred=occurred)
    said.occur_time.CopyFrom(timestamp_of(event.occur_time))
    return event


async def have_purposes(connection, events):
    """Makes the view of purposes, which is read at once, with these."""
    await connection.execute("create schema purposes")
    await connection.execute(PurposesView().tables("purposes"))
    await PurposesView().apply(connection, "purposes", events)


def purposes_of(events):
    """All purposes came to be in the workspaces of some events, in the midst of these."""
    return [
        created(Facts(workspace), name, sorted(categories), received=CREATED)
        for workspace in sorted({event.workspace for event in events})
        for name, categories in PURPOSES.items()
    ]
