"""What may be decided about a source and about a suppression, and what follows."""

import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.events_pb2 import (
    IdentifierSuppressed,
    IdentifierUnsuppressed,
    SourceConfigured,
    SourceCreated,
    SourceDisabled,
    SourceEnabled,
    SourceSettings,
    SourceWriteKeyRevoked,
    SourceWriteKeyRotated,
)
from rapport.events.v1.sources_pb2 import (
    ConfigureSourceRequest,
    CreateSourceRequest,
    DisableSourceRequest,
    EnableSourceRequest,
    RevokeWriteKeyRequest,
    RotateWriteKeyRequest,
)
from rapport.events.v1.suppressions_pb2 import (
    SuppressIdentifierRequest,
    UnsuppressIdentifierRequest,
)
from services.events.deciders import suppression
from services.events.deciders.source import WRITE_KEYS_MAX, NewWriteKey, decider_with
from services.kernel.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from services.kernel.testing import Spec

TRACK = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
PAGE = CustomerEventType.CUSTOMER_EVENT_TYPE_PAGE
SHOP = "sources/shop"
KEY = NewWriteKey("k-new", b"\1" * 32)
CREATED = SourceCreated(
    display_name="Shop", settings=SourceSettings(), write_key_id="k-1", write_key_hash=b"\0" * 32
)
CONFIGURE = ConfigureSourceRequest(name=SHOP, display_name="Shop")


def source():
    return Spec(decider_with(KEY))


def settings(**fields):
    return ConfigureSourceRequest(name=SHOP, display_name="Shop", settings=SourceSettings(**fields))


def configured(**fields):
    return SourceConfigured(display_name="Shop", settings=SourceSettings(**fields))


def test_a_new_source_has_a_name_and_its_first_write_key():
    create = CreateSourceRequest(source_id="shop", display_name="  Shop ")

    state = (
        source()
        .when(create)
        .then(
            SourceCreated(
                display_name="Shop",
                settings=SourceSettings(),
                write_key_id="k-new",
                write_key_hash=b"\1" * 32,
            )
        )
    )

    assert ("k-new",) == state.key_ids
    assert not state.is_disabled


def test_a_taken_id_names_who_has_it():
    create = CreateSourceRequest(source_id="shop", display_name="Another")

    error = source().given(CREATED).when(create).then_refused(AlreadyExists)

    assert {"existing_name": SHOP, "field": "source_id"} == error.metadata


@pytest.mark.parametrize("name", [" ", "a\0b"])
def test_a_name_that_nobody_can_read_is_none(name):
    source().when(CreateSourceRequest(display_name=name)).then_refused(InvalidArgument)
    configure = ConfigureSourceRequest(name=SHOP, display_name=name)
    source().given(CREATED).when(configure).then_refused(InvalidArgument)


@pytest.mark.parametrize(
    "command",
    [
        CONFIGURE,
        DisableSourceRequest(name=SHOP),
        EnableSourceRequest(name=SHOP),
        RotateWriteKeyRequest(name=SHOP),
        RevokeWriteKeyRequest(name=SHOP, key_id="k-1"),
    ],
)
def test_what_nobody_created_is_not_found(command):
    error = source().when(command).then_refused(NotFound)

    assert {"resource": SHOP} == error.metadata


def test_what_a_source_is_already_is_no_news():
    source().given(CREATED).when(CONFIGURE).then()
    source().given(CREATED).when(EnableSourceRequest(name=SHOP)).then()
    source().given(CREATED, SourceDisabled()).when(DisableSourceRequest(name=SHOP)).then()


def test_a_source_is_disabled_and_enabled():
    disable, enable = DisableSourceRequest(name=SHOP), EnableSourceRequest(name=SHOP)

    assert source().given(CREATED).when(disable).then(SourceDisabled()).is_disabled
    state = source().given(CREATED, SourceDisabled()).when(enable).then(SourceEnabled())
    assert not state.is_disabled


def test_settings_have_one_form():
    said = settings(allowed_types=[PAGE, TRACK, PAGE], sampled_millionths=1_000_000)
    kept = configured(allowed_types=[TRACK, PAGE])

    source().given(CREATED).when(said).then(kept)
    source().given(CREATED, kept).when(said).then()


@pytest.mark.parametrize(
    "wrong",
    [
        {"allowed_types": [0]},
        {"allowed_types": [99]},
        {"sampled_millionths": 1_000_001},
        {"tracking_plan": "shop"},
        {"tracking_plan": "trackingPlans/shop/x"},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong):
    source().given(CREATED).when(settings(**wrong)).then_refused(InvalidArgument)


def test_a_new_key_comes_first_and_the_others_stay():
    rotate = RotateWriteKeyRequest(name=SHOP, grace_s=60)
    rotated = SourceWriteKeyRotated(write_key_id="k-new", write_key_hash=b"\1" * 32, grace_s=60)

    state = source().given(CREATED).when(rotate).then(rotated)

    assert ("k-new", "k-1") == state.key_ids


def test_a_source_has_as_many_keys_as_the_limit_says_and_not_one_more():
    several = [SourceWriteKeyRotated(write_key_id=f"k-{n}") for n in range(2, WRITE_KEYS_MAX)]
    rotate = RotateWriteKeyRequest(name=SHOP)
    rotated = SourceWriteKeyRotated(write_key_id="k-new", write_key_hash=b"\1" * 32)

    state = source().given(CREATED, *several).when(rotate).then(rotated)
    assert WRITE_KEYS_MAX == len(state.key_ids)

    error = source().given(CREATED, *several, rotated).when(rotate).then_refused(ResourceExhausted)
    assert "WRITE_KEYS_MAX" == error.metadata["limit"]
    revoked = SourceWriteKeyRevoked(write_key_id="k-1")
    source().given(CREATED, *several, rotated, revoked).when(rotate).then(rotated)


def test_a_key_is_revoked_once():
    revoke = RevokeWriteKeyRequest(name=SHOP, key_id="k-1")
    revoked = SourceWriteKeyRevoked(write_key_id="k-1")

    assert () == source().given(CREATED).when(revoke).then(revoked).key_ids
    source().given(CREATED, revoked).when(revoke).then_refused(NotFound)


def test_suppressing_twice_is_suppressing_once():
    suppress = SuppressIdentifierRequest(type="email", value="ada@x.org")
    suppressed = IdentifierSuppressed(type="email")

    assert Spec(suppression.DECIDER).when(suppress).then(suppressed).is_suppressed
    Spec(suppression.DECIDER).given(suppressed).when(suppress).then()


def test_what_is_taken_back_can_be_said_again():
    suppress = SuppressIdentifierRequest(type="email", value="ada@x.org")
    unsuppress = UnsuppressIdentifierRequest(type="email", value="ada@x.org")
    suppressed, taken_back = IdentifierSuppressed(type="email"), IdentifierUnsuppressed()

    Spec(suppression.DECIDER).when(unsuppress).then()
    state = Spec(suppression.DECIDER).given(suppressed).when(unsuppress).then(taken_back)
    assert ("email", False) == (state.type, state.is_suppressed)
    Spec(suppression.DECIDER).given(suppressed, taken_back).when(suppress).then(suppressed)
