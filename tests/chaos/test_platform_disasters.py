"""Take away what many processes stand on, under load: it comes back, and all is as it was."""

import asyncpg
import pytest

from rapport.contacts.v1.service_pb2 import CreateContactRequest
from rapport.identity.v1.service_pb2 import GetProfileRequest
from services.kernel.feed.feed import stream_name
from services.kernel.testing import eventually
from services.kernel.views.projection import LEASE_S
from tests.chaos.platform_audit import Audit, carried_by_feeds
from tests.chaos.platform_load import Clients, under_load

pytestmark = pytest.mark.asyncio(loop_scope="session")

RESTART_WITHIN_S = 10.0

_LEASES = "select source, epoch, lease_until > now() as held from kernel.checkpoints"


async def test_the_lost_disk_of_nats_is_filled_again_with_the_same(chaos, chance):
    """NATS is killed and its data directory deleted, twice, at random moments under load.

    What the feeds held is there again: the same event at the same sequence number.
    """
    platform = chaos.platform
    async with under_load(platform.dev, chaos.acknowledged, chance, chaos.new_name()) as load:
        for _ in range(2):
            await load.go_on(chance.randrange(10, 60))
            before = await carried_by_feeds(platform)
            await platform.wipe_nats()

            async def refilled(before=before):
                after = await carried_by_feeds(platform)
                for name, held in before.items():
                    assert after[name][: len(held)] == held, stream_name(name, 0)

            await eventually(refilled, within_s=30)
        await load.go_on(20)

    await Audit(platform, chaos.acknowledged).assert_whole()


async def test_a_platform_killed_as_a_whole_goes_on_where_it_was(chaos, chance):
    """Every process, servers included, gets SIGKILL at one moment; then all start on their data."""
    dev, name = chaos.platform.dev, chaos.new_name()
    async with under_load(dev, chaos.acknowledged, chance, name) as load:
        await load.go_on(chance.randrange(20, 120))
        await chaos.kill_all_and_start_again()
        await load.go_on(20)

    await Audit(chaos.platform, chaos.acknowledged).assert_whole()


async def test_a_killed_workers_leases_end_and_the_next_one_goes_on(chaos):
    """Identity is killed while it holds its leases; who comes next takes them when they end."""
    platform = chaos.platform
    clients = Clients(platform.dev)
    leases = await leases_of(platform)
    assert all(held for _, held in leases.values()), leases
    platform.kill("identity")
    key = chaos.new_name()
    create = CreateContactRequest(contact_id=key, given_name="Ada", request_id=chaos.request_id())
    try:
        written = await clients.ask(clients.contacts.CreateContact, create)
        read = GetProfileRequest(name=f"profiles/contact_id:{key}", read_token=written.write_token)
        found = await clients.ask(
            clients.identity.GetProfile, read, within_s=LEASE_S + RESTART_WITHIN_S
        )
    finally:
        await clients.close()
    chaos.acknowledged.contacts[written.contact.name] = ("Ada", "", 1)

    assert found.profile.traits["given_name"].value == '"Ada"'
    taken = await leases_of(platform)
    assert taken["contacts"][0] > leases["contacts"][0]


async def leases_of(platform):
    """Epoch of each lease of identity, and whether somebody holds it."""
    connection = await asyncpg.connect(platform.database_url("identity"), timeout=10)
    try:
        rows = await connection.fetch(_LEASES)
    finally:
        await connection.close()
    return {row["source"]: (row["epoch"], row["held"]) for row in rows}
