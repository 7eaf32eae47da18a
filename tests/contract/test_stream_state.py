"""Stream states: a cache of the fold that may be lost, old or foreign without anybody noticing."""

from dataclasses import dataclass, replace

import msgspec
import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.kernel.clock import new_id
from services.kernel.command import stream_state
from services.kernel.command.decider import Decider
from services.kernel.errors import Aborted, Reason
from services.kernel.log.log import Append, NewEvent, Origin, read_stream
from services.kernel.log.recorded import EventTypes, UndecodableEventError
from services.kernel.rpc.caller import acting_as, own_caller
from tests.box import (
    BOX,
    EVENT_TYPES,
    BoxState,
    PutRequest,
    ThingPut,
    classes_of,
    events_pb2,
    make_file,
)
from tests.box_world import CLOCK, SteppingClock, answers, running_log

ORIGIN = Origin("acme", "tests", "", "")


@pytest.fixture
async def world(database):
    async with running_log(database, clock=SteppingClock()) as world:
        yield world
        await world.assert_whole()


async def stored_state(world, box, workspace="acme"):
    query = "select state from kernel.states where workspace = $1 and stream = $2"
    stored = await world.pool.fetchval(query, workspace, f"box-{box}")
    return msgspec.msgpack.decode(stored, type=BoxState)


async def folded_state(world, box, workspace="acme"):
    history = await read_stream(world.pool, workspace, f"box-{box}")
    return BOX.fold([EVENT_TYPES.decode(envelope).event for envelope in history])


@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_forgotten_state_changes_nothing(world, forgotten):
    async def maybe_forget():
        if forgotten:
            await world.pool.execute("delete from kernel.states")

    first = await world.put("1", "hat", label="winter")
    await maybe_forget()
    second = await world.put("1", "coat")
    await maybe_forget()
    third = await world.put("1")
    await maybe_forget()
    fourth = await world.empty("1")

    assert first.create_time == second.create_time == third.create_time == fourth.create_time
    assert first.create_time == first.update_time < second.update_time < fourth.update_time
    assert second.update_time == third.update_time
    assert ['"2"', '"3"', '"3"', '"4"'] == [b.etag for b in (first, second, third, fourth)]
    assert ["hat", "coat"] == list(third.things)
    assert await folded_state(world, "1") == await stored_state(world, "1")


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("12"), st.sampled_from(["", "hat", "cöat"])),
        st.tuples(st.just("label"), st.sampled_from("12"), st.sampled_from(["", "a", "b"])),
        st.tuples(st.just("empty"), st.sampled_from("12"), st.just("")),
        st.tuples(st.just("forget"), st.sampled_from("12"), st.just("")),
        st.tuples(st.just("reshape"), st.sampled_from("12"), st.just("")),
    ),
    max_size=12,
)


@given(operations=OPERATIONS)
@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_the_stored_state_is_the_fold_whatever_happened(world, operations):
    workspace = f"{new_id()}"
    decider = BOX
    times = {}
    for operation, box, what in operations:
        if operation == "forget":
            await world.pool.execute("delete from kernel.states where stream = $1", f"box-{box}")
        elif operation == "reshape":
            decider = replace(decider, shape=decider.shape + 1)
        elif operation == "empty":
            await answers([world.empty(box, workspace=workspace)])
        else:
            fields = {"label": what} if operation == "label" else {}
            things = [what] if operation == "put" and what else []
            (said,) = await answers(
                [world.put(box, *things, workspace=workspace, decider=decider, **fields)]
            )
            history = await read_stream(world.pool, workspace, f"box-{box}")
            if isinstance(said, Exception) or not history:
                continue
            folded = await folded_state(world, box, workspace)
            assert (list(folded.things), folded.label) == (list(said.things), said.label)
            assert f'"{len(history)}"' == said.etag
            assert said.create_time == times.setdefault(box, said.create_time)
            updated = history[-1].record_time.ToDatetime().isoformat()
            assert f"{updated}+00:00" == said.update_time


async def test_a_state_of_another_shape_is_folded_anew(world):
    @dataclass(frozen=True, slots=True)
    class Count:
        things: int = 0
        label: str = ""

    counting = Decider(
        category="box",
        collection="boxes",
        initial=Count(),
        decide=lambda command, _: [ThingPut(thing=thing) for thing in command.things],
        evolve=lambda state, _: Count(state.things + 1),
        shape=2,
    )
    await world.put("1", "hat", "coat")

    def count(command):
        return world.commands.execute(
            counting, "1", command, lambda decided: StringValue(value=f"{decided.state.things}")
        )

    with acting_as(own_caller("tests", clock=CLOCK, scopes=frozenset(), workspace="acme")):
        told = await count(PutRequest(name="boxes/1", things=["scarf"]))
        again = await count(PutRequest(name="boxes/1", things=["glove"]))

    assert ["3", "4"] == [told.value, again.value]
    # The older code is still running beside and folds anew, too.
    assert ["hat", "coat", "scarf", "glove", "x"] == list((await world.put("1", "x")).things)


async def test_a_state_behind_the_log_is_folded_anew(world):
    """A policy may append to a stream without knowing its state."""
    await world.put("1", "hat")
    async with world.pool.acquire() as connection, connection.transaction():
        event = NewEvent(ThingPut(thing="coat"))
        landed = await world.log.append(connection, [Append(ORIGIN, "box-1", [event])])
        await world.group_commit.views[0].apply(connection, "things", landed.events)

    box = await world.put("1", "scarf")
    assert (["hat", "coat", "scarf"], '"3"') == (list(box.things), box.etag)
    assert await folded_state(world, "1") == await stored_state(world, "1")


async def test_a_long_history_is_folded_whole(world, monkeypatch):
    monkeypatch.setattr(stream_state, "READ_BATCH_SIZE", 3)
    monkeypatch.setattr("services.kernel.command.stream_state.read_stream", _small_batches)
    things = [f"{number}" for number in range(9)]
    await world.put("1", *things)
    await world.pool.execute("delete from kernel.states")

    assert things == list((await world.put("1")).things)


async def _small_batches(tx, workspace, stream, *, after_version):
    return await read_stream(tx, workspace, stream, after_version=after_version, limit=3)


async def test_a_command_that_changes_nothing_leaves_no_event_and_tells_the_stored_times(world):
    made = await world.put("1", "hat", label="winter")
    same = await world.put("1", label="winter")

    assert 2 == len(await world.logged())
    assert (made.create_time, made.update_time, made.etag) == (
        same.create_time,
        same.update_time,
        same.etag,
    )
    assert "" == same.write_token


async def test_the_etag_of_a_resource_is_the_version_of_its_stream(world):
    box = await world.put("1", "hat")
    box = await world.put("1", "coat", etag=box.etag)
    assert '"2"' == box.etag

    with pytest.raises(Aborted) as refusal:
        await world.put("1", "scarf", etag='"1"')

    assert Reason.ETAG_MISMATCH == refusal.value.reason
    assert {"resource": "boxes/1", "etag": '"2"'} == refusal.value.metadata
    assert 2 == len(await world.logged())


async def test_of_two_who_hold_the_same_etag_one_wins(world):
    etag = (await world.put("1", "hat")).etag

    found = await answers(world.put("1", f"{number}", etag=etag) for number in range(5))
    assert [False] + [True] * 4 == [isinstance(refusal, Aborted) for refusal in found]


async def test_what_does_not_exist_is_not_found_whatever_its_etag(world):
    (refusal,) = await answers([world.empty("1", etag='"7"')])

    assert Reason.RESOURCE_NOT_FOUND == refusal.reason


OLD = classes_of(make_file("old", {"HatPut": {"size": "int"}}))


def from_hat(hat):
    """A hat of old is a thing of today."""
    return ThingPut(thing=f"hat of size {hat.size}")


async def test_an_old_shape_of_an_event_is_folded_as_todays(world, database):
    today = EventTypes(OLD, events_pb2, upcasters={"rapport.box.v1.HatPut": from_hat})
    async with world.pool.acquire() as connection, connection.transaction():
        event = NewEvent(OLD.HatPut(size=56))
        landed = await world.log.append(connection, [Append(ORIGIN, "box-1", [event])])
        assert "rapport.box.v1.HatPut" == landed.events[0].type
    async with running_log(database, event_types=today) as later:
        assert ["hat of size 56", "coat"] == list((await later.put("1", "coat")).things)


async def test_an_event_nobody_knows_fails_its_own_stream_only(world):
    async with world.pool.acquire() as connection, connection.transaction():
        event = NewEvent(Struct())
        await world.log.append(connection, [Append(ORIGIN, "box-1", [event])])

    unknown, known = await answers([world.put("1", "hat"), world.put("2", "hat")])
    assert isinstance(unknown, UndecodableEventError)
    assert ["hat"] == list(known.things)
