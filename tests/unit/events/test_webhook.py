"""A webhook is made, configured, switched and given secrets; what is no news is no event."""

from dataclasses import replace

import pytest

from rapport.events.v1.events_pb2 import (
    WebhookConfigured,
    WebhookCreated,
    WebhookDisabled,
    WebhookEnabled,
    WebhookMapping,
    WebhookPreset,
    WebhookSecretIssued,
    WebhookSecretRotated,
    WebhookSignature,
)
from rapport.events.v1.webhooks_pb2 import (
    ConfigureWebhookRequest,
    CreateWebhookRequest,
    DisableWebhookRequest,
    EnableWebhookRequest,
    RotateWebhookSecretRequest,
)
from services.events.deciders.webhook import DECIDER, Issued, State, decide
from services.kernel.errors import AlreadyExists, InvalidArgument, NotFound

ISSUED = Issued("wh_1", "s-1", b"sealed")
SIGNATURE = WebhookSignature(preset=WebhookPreset.WEBHOOK_PRESET_GITHUB)
MAPPING = WebhookMapping(type="'identify'", user_id="body.id")
NAME = "webhooks/w"
CREATE = CreateWebhookRequest(
    webhook_id="w",
    display_name=" Forms ",
    source="sources/forms",
    signature=SIGNATURE,
    mapping=MAPPING,
)
CREATED = WebhookCreated(
    display_name="Forms",
    source="sources/forms",
    signature=SIGNATURE,
    mapping=MAPPING,
    address_id="wh_1",
    secret=WebhookSecretIssued(secret_id="s-1", sealed=b"sealed"),
)
EXISTING = DECIDER.fold([CREATED])
CONFIGURE = ConfigureWebhookRequest(
    name=NAME, display_name="Forms", signature=SIGNATURE, mapping=MAPPING
)


def test_a_new_webhook_has_an_address_and_a_secret():
    assert [CREATED] == decide(ISSUED, CREATE, State())
    assert ("wh_1", "s-1", True) == (
        EXISTING.address_id,
        EXISTING.secret_id,
        EXISTING.is_secret_given,
    )


def test_an_id_is_given_once():
    with pytest.raises(AlreadyExists):
        decide(ISSUED, CREATE, EXISTING)


@pytest.mark.parametrize("source", ["forms", "sources/", "sources/a/b", "sources/\0", "contacts/a"])
def test_a_webhook_sends_for_a_source(source):
    command = CreateWebhookRequest()
    command.CopyFrom(CREATE)
    command.source = source

    with pytest.raises(InvalidArgument) as caught:
        decide(ISSUED, command, State())

    assert ["source"] == [it.field for it in caught.value.violations]


def test_what_it_is_configured_to_already_is_no_news():
    changed = ConfigureWebhookRequest()
    changed.CopyFrom(CONFIGURE)
    changed.mapping.user_id = "body.user"

    [configured] = decide(ISSUED, changed, EXISTING)

    assert [] == decide(ISSUED, CONFIGURE, EXISTING)
    assert isinstance(configured, WebhookConfigured)
    assert configured.mapping == changed.mapping


def test_it_is_disabled_and_enabled_once():
    disabled = replace(EXISTING, is_disabled=True)

    assert [WebhookDisabled()] == decide(ISSUED, DisableWebhookRequest(name=NAME), EXISTING)
    assert [] == decide(ISSUED, DisableWebhookRequest(name=NAME), disabled)
    assert [WebhookEnabled()] == decide(ISSUED, EnableWebhookRequest(name=NAME), disabled)
    assert [] == decide(ISSUED, EnableWebhookRequest(name=NAME), EXISTING)
    assert disabled == DECIDER.fold([WebhookDisabled()], EXISTING)
    assert EXISTING == DECIDER.fold([WebhookEnabled()], disabled)


def test_a_new_secret_is_always_news():
    issued = Issued("wh_2", "s-2", b"")
    [rotated] = decide(issued, RotateWebhookSecretRequest(name=NAME, grace_s=5), EXISTING)

    after = DECIDER.fold([rotated], EXISTING)

    assert WebhookSecretRotated(secret=WebhookSecretIssued(secret_id="s-2"), grace_s=5) == rotated
    assert ("wh_1", "s-2", False) == (after.address_id, after.secret_id, after.is_secret_given)


@pytest.mark.parametrize(
    "command",
    [
        CONFIGURE,
        DisableWebhookRequest(name=NAME),
        EnableWebhookRequest(name=NAME),
        RotateWebhookSecretRequest(name=NAME),
    ],
)
def test_what_nobody_created_cannot_be_changed(command):
    with pytest.raises(NotFound):
        decide(ISSUED, command, State())
