"""Laws of the log's pure parts: folds, tokens, claims, partitions, and who may share a group."""

import asyncio
import contextlib
from types import SimpleNamespace

import msgspec
from google.protobuf import wrappers_pb2
from hypothesis import given
from hypothesis import strategies as st

from rapport.common.v1.envelope_pb2 import Envelope
from services.kernel.command import claims, group_commit
from services.kernel.command.group_commit import GroupCommit
from services.kernel.command.work import Change, Claim, Request, Work
from services.kernel.errors import AlreadyExists, InvalidArgument
from services.kernel.log.log import Append, Origin, partition_of
from services.kernel.log.recorded import EventTypes, UndecodableEventError
from services.kernel.log.tokens import decode_write_token, encode_write_token
from tests.box import BOX, BoxEmptied, BoxLabelled, BoxState, PutRequest, ThingPut

EVENTS = st.lists(
    st.one_of(
        st.builds(ThingPut, thing=st.text(max_size=3)),
        st.builds(BoxLabelled, label=st.sampled_from("abc")),
        st.just(BoxEmptied()),
    ),
    max_size=10,
)


@given(events=EVENTS, cut=st.integers(0, 10))
def test_a_fold_may_be_cut_anywhere_and_stored_there(events, cut):
    stored = msgspec.msgpack.encode(BOX.fold(events[:cut]))

    half = msgspec.msgpack.decode(stored, type=BoxState)

    assert BOX.fold(events) == BOX.fold(events[cut:], half)


@given(events=EVENTS, things=st.lists(st.text(max_size=3), max_size=3), label=st.text(max_size=1))
def test_to_decide_twice_is_to_decide_once(events, things, label):
    state = BOX.fold(events)
    command = PutRequest(things=things, label=label)

    assert BOX.decide(command, state) == BOX.decide(command, state)
    assert BOX.fold(events) == state


@given(
    service=st.sampled_from(["contacts", "deals"]),
    positions=st.dictionaries(st.integers(0, 1023), st.integers(1, 2**63 - 1), max_size=5),
)
def test_a_token_says_exactly_what_was_put_in(service, positions):
    landings = decode_write_token(encode_write_token(service, positions))

    assert positions == {landing.partition: landing.position for landing in landings}
    assert {service} >= {landing.service for landing in landings}


@given(token=st.text(max_size=40))
def test_any_text_is_a_token_or_is_refused(token):
    with contextlib.suppress(InvalidArgument):
        decode_write_token(token)


@given(data=st.binary(max_size=40), event_id=st.sampled_from(["", "x", f"{0:032x}"]))
def test_any_bytes_are_an_event_or_undecodable(data, event_id):
    envelope = Envelope(type="google.protobuf.StringValue", data=data, event_id=event_id)
    try:
        EventTypes(wrappers_pb2).decode(envelope)
    except UndecodableEventError:
        return
    assert f"{0:032x}" == event_id


@given(workspace=st.text(), stream=st.text(), partitions=st.integers(1, 1024))
def test_a_stream_has_one_partition(workspace, stream, partitions):
    partition = partition_of(workspace, stream, partitions)

    assert 0 <= partition < partitions
    assert partition == partition_of(workspace, stream, partitions)


def change(workspace, stream, released, taken):
    return Change(
        Append(Origin(workspace, "", "", ""), stream, []),
        released=frozenset(Claim("label", key) for key in released),
        taken=frozenset(Claim("label", key) for key in taken),
    )


KEYS = st.frozensets(st.sampled_from("abc"), max_size=2)
CHANGES = st.builds(change, st.sampled_from("WV"), st.sampled_from("123"), KEYS, KEYS)


@given(works=st.lists(st.lists(CHANGES, min_size=1, max_size=2), max_size=8))
def test_claims_are_settled_as_if_one_after_another(works):
    """Against the slow and obvious way: copy, release, take, keep only what succeeded."""
    owners, slow = {}, {}
    for changes in works:
        work = SimpleNamespace(resource_name=str)
        before, expected = dict(owners), settle_slowly(changes, slow)
        try:
            claims.settle(work, changes, owners)
        except AlreadyExists:
            assert expected is None
            assert before == owners
            continue
        assert expected is not None
        slow = expected
        assert slow == {key: stream for key, stream in owners.items() if stream is not None}


def settle_slowly(changes, owners):
    after = dict(owners)
    for each in changes:
        for claim in each.released:
            key = (each.append.origin.workspace, claim.scope, claim.key)
            if owners.get(key) == each.append.stream:
                after.pop(key, None)
    for each in changes:
        for claim in each.taken:
            key = (each.append.origin.workspace, claim.scope, claim.key)
            if after.setdefault(key, each.append.stream) != each.append.stream:
                return None
    return after


def work(workspace, streams, request_id):
    return Work(
        origin=Origin(workspace, "", "", ""),
        decide=lambda _: [],
        respond=lambda _: Envelope(),
        request=Request(request_id, "", b"") if request_id else None,
        shapes=dict.fromkeys(streams, 1),
    )


WORKS = st.lists(
    st.builds(
        work,
        st.sampled_from("WV"),
        st.sets(st.sampled_from("1234"), min_size=1, max_size=2),
        st.sampled_from(["", "", "", "r", "s"]),
    ),
    max_size=20,
)


@given(works=WORKS, given_up=st.sets(st.integers(0, 19)), size=st.integers(1, 5))
def test_groups_lose_nobody_mix_no_streams_and_keep_the_order_of_each(works, given_up, size):
    waiting = [work for place, work in enumerate(works) if place not in given_up]

    groups = asyncio.run(grouped(works, given_up, size))

    assert sorted(map(id, waiting)) == sorted(id(work) for group in groups for work in group)
    for group in groups:
        keys = [key for work in group for key in group_commit._keys(work)]
        assert 1 <= len(group) <= size
        assert len(keys) == len(set(keys))
    served = [id(work) for group in groups for work in group]
    for place, work in enumerate(waiting):
        for later in waiting[place + 1 :]:
            if not group_commit._keys(work).isdisjoint(group_commit._keys(later)):
                assert served.index(id(work)) < served.index(id(later))


def test_large_works_share_a_group_up_to_the_limit(monkeypatch):
    monkeypatch.setattr(group_commit, "GROUP_STREAMS_MAX", 400)
    works = [work("W", {f"{number}-{place}" for place in range(200)}, "") for number in range(5)]
    works.append(work("W", {f"{place}" for place in range(401)}, ""))

    groups = asyncio.run(grouped(works, set(), 10))

    assert [2, 2, 1, 1] == [len(group) for group in groups]


async def grouped(works, given_up, size):
    """The groups in which works are served, when some callers gave up before."""
    loop = asyncio.get_running_loop()
    queue = GroupCommit(pool=None, log=None)
    for place, work in enumerate(works):
        pending = group_commit._Pending(work, loop.create_future())
        queue._queue.append(pending)
        if place in given_up:
            pending.answer.cancel()
    queue._group_size = size
    groups = []
    while queue._queue:
        group = queue._next_group()
        if group:
            groups.append([pending.work for pending in group])
    return groups
