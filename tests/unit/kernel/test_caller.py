"""A caller is believed when we signed it, as it was signed, and only for a while."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.kernel.clock import FixedClock
from services.kernel.errors import Bug, PermissionDenied, Unauthenticated
from services.kernel.rpc.caller import (
    CALLER_LIFETIME,
    CALLER_LIFETIME_MAX,
    CallerSigner,
    acting_as,
    current_caller,
    current_caller_or_none,
    own_caller,
)

SECRET = b"a secret that only parts of the platform know"


@pytest.fixture
def clock():
    return FixedClock()


@pytest.fixture
def signer(clock):
    return CallerSigner(SECRET, clock)


@pytest.fixture
def caller(clock):
    scopes = frozenset({"contacts.read", "deals.*"})
    return own_caller("api_keys/k1", clock=clock, scopes=scopes, workspace="acme")


def test_a_signed_caller_is_read_as_it_was_written(signer, caller):
    assert signer.verify(signer.sign(caller)) == caller


def test_the_same_caller_is_signed_the_same(signer, caller):
    assert signer.sign(caller) == signer.sign(caller)


def test_no_byte_of_a_signed_caller_can_be_changed(signer, caller):
    signed = signer.sign(caller)

    for place in range(len(signed)):
        forged = bytearray(signed)
        forged[place] ^= 1
        with pytest.raises(Unauthenticated):
            signer.verify(bytes(forged))


def test_a_caller_is_believed_until_its_time_is_over(signer, caller, clock):
    signed = signer.sign(caller)

    clock.advance(CALLER_LIFETIME - timedelta(microseconds=1))
    signer.verify(signed)
    clock.advance(timedelta(microseconds=1))
    with pytest.raises(Unauthenticated):
        signer.verify(signed)


def test_a_caller_that_claims_to_live_for_ever_is_not_believed(signer, clock):
    with_long_life = own_caller("x", clock=clock, scopes=frozenset())
    signed = signer.sign(with_long_life)

    clock.advance(-CALLER_LIFETIME_MAX)

    with pytest.raises(Unauthenticated):
        signer.verify(signed)


@pytest.mark.parametrize(
    ("scopes", "scope", "allowed"),
    [
        ({"contacts.read"}, "contacts.read", True),
        ({"contacts.read"}, "contacts.write", False),
        ({"contacts.*"}, "contacts.write", True),
        ({"contacts.*"}, "deals.write", False),
        ({"contact.*"}, "contacts.write", False),
        ({"*"}, "deals.write", True),
        ({"*", "internal.*"}, "internal", False),
        ({"internal"}, "internal", True),
        ({"internal"}, "contacts.read", False),
    ],
)
def test_scopes_cover_what_they_say(clock, scopes, scope, allowed):
    caller = own_caller("x", clock=clock, scopes=frozenset(scopes))

    assert caller.may(scope) is allowed
    if not allowed:
        with pytest.raises(PermissionDenied):
            caller.require(scope)


def test_outside_a_call_nobody_asks():
    assert current_caller_or_none() is None
    with pytest.raises(Bug):
        current_caller()


def test_a_policy_acts_as_somebody_and_then_no_more(caller):
    with acting_as(caller):
        assert current_caller() is caller

    assert current_caller_or_none() is None
