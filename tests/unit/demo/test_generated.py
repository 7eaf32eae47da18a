"""The generated world is the same for the same seed, and of a kind the platform takes."""

from collections import Counter

import pytest

from deploy.demo.cargo import total
from deploy.demo.freight import BATCH_BYTES_MAX, BATCH_EVENTS_MAX, batches_of
from deploy.demo.generated import measure_customer_event, world
from rapport.deals.v1.service_pb2 import LoseDealRequest, WinDealRequest
from services.events.schema import refusal_of
from services.kernel.rpc.validation import validate


@pytest.fixture(scope="module")
def cargoes():
    return world()


def test_the_same_seed_is_the_same_world(cargoes):
    assert [cargo.items for cargo in cargoes] == [cargo.items for cargo in world()]


def test_another_seed_is_another_world(cargoes):
    keys = {item.key for cargo in cargoes for item in cargo.items}
    others = {item.key for cargo in world("meadow") for item in cargo.items}

    assert not keys & others


def test_every_item_has_its_own_key(cargoes):
    for cargo in cargoes:
        assert len(cargo.items) == len({item.key for item in cargo.items})


def test_the_platform_takes_every_customer_event(cargoes):
    assert {None} == {refusal_of(item.message) for item in cargoes[0].items}


def test_the_platform_takes_every_contact_and_deal(cargoes):
    for item in cargoes[1].items:
        validate(item.message)
    for item in cargoes[2].items:
        for command in (item.message.opening, *item.message.steps):
            validate(command)


def test_there_are_people_of_every_kind(cargoes):
    customer_events, contacts, deals = cargoes
    endings = Counter(type(item.message.steps[-1]) for item in deals.items if item.message.steps)

    assert 2_000 < len(customer_events.items) < 5_000
    assert 100 < len(contacts.items) < 300
    assert {WinDealRequest, LoseDealRequest} < endings.keys()
    assert total(item.tally for item in customer_events.items) == total(
        measure_customer_event(item.message) for item in customer_events.items
    )


def test_batches_are_bounded_and_lose_nothing(cargoes):
    items = cargoes[0].items

    batches = list(batches_of(items))

    assert list(items) == [item for batch in batches for item in batch]
    assert BATCH_EVENTS_MAX == max(map(len, batches))
    sizes = [sum(item.message.ByteSize() for item in batch) for batch in batches]
    assert BATCH_BYTES_MAX >= max(sizes)
