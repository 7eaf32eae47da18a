"""The rules of an erasure: created once, ended system by system, begun again where it failed."""

from rapport.common.v1.subjects_pb2 import FactKey
from rapport.identity.v1.erasure_state_pb2 import (
    ERASURE_STATE_FAILED,
    ERASURE_STATE_FINISHED,
    ERASURE_STATE_INITIALIZED,
    ERASURE_STATE_NOT_SUPPORTED,
    ERASURE_STATE_RUNNING,
)
from rapport.identity.v1.erasures_pb2 import CreateErasureRequest, RetryErasureRequest
from rapport.identity.v1.events_pb2 import (
    ErasureCreated,
    ErasureExtended,
    ErasureRetried,
    JudgedIdentifier,
    SystemErasureEnded,
)
from services.identity.deciders.erasure import Asked, created, decider_about, extended
from services.kernel.errors import AlreadyExists, NotFound
from services.kernel.testing import Spec

NAME = "erasures/e1"
KEY = FactKey(event_id="2a6a3c0e-6a3f-4c5e-9d2f-0d8d1f2f8a11")
ASKED = Asked(NAME, [("email", "n1")], ["h1"], KEY, ["contacts", "events"])
CREATED = created(ASKED)
RETRY = RetryErasureRequest(name=NAME)


def erasure():
    return Spec(decider_about(ASKED))


def ended(system, state):
    return SystemErasureEnded(erasure=NAME, system=system, state=state)


def state_after(*events):
    return decider_about(ASKED).fold([CREATED, *events])


def test_an_erasure_is_about_nodes_and_hashes_and_holds_no_value():
    command = CreateErasureRequest(suppress=True, anonymise=True)
    state = (
        erasure()
        .when(command)
        .then(
            ErasureCreated(
                erasure=NAME,
                key=KEY,
                subjects=[JudgedIdentifier(type="email", node="n1")],
                hashes=["h1"],
                systems=["contacts", "events"],
                suppress=True,
                anonymise=True,
            )
        )
    )

    assert (KEY, ERASURE_STATE_INITIALIZED) == (state.fact_key(), state.state)
    assert ["contacts", "events"] == state.open_systems


def test_an_id_is_taken_once():
    error = erasure().given(CREATED).when(CreateErasureRequest()).then_refused(AlreadyExists)

    assert NAME == error.metadata["existing_name"]


def test_it_is_as_far_as_its_systems_are():
    finished = ended("contacts", ERASURE_STATE_FINISHED)
    not_supported = ended("events", ERASURE_STATE_NOT_SUPPORTED)
    failed = ended("events", ERASURE_STATE_FAILED)
    told = [state_after(*so_far).state for so_far in ([finished], [finished, not_supported])]

    assert [ERASURE_STATE_RUNNING, ERASURE_STATE_FINISHED] == told
    assert ERASURE_STATE_FAILED == state_after(finished, failed).state
    assert ERASURE_STATE_RUNNING == state_after(failed).state


def test_what_failed_and_what_could_not_is_tried_again():
    given = [ended("contacts", ERASURE_STATE_FINISHED), ended("events", ERASURE_STATE_FAILED)]
    spec = erasure().given(CREATED, *given)
    state = spec.when(RETRY).then(ErasureRetried(erasure=NAME, systems=["events"]))

    assert ["events"] == state.open_systems
    erasure().given(CREATED).when(RETRY).then(ErasureRetried(erasure=NAME))
    erasure().when(RETRY).then_refused(NotFound)


def test_what_is_added_begins_everywhere_once_more():
    state = state_after(ended("contacts", ERASURE_STATE_FINISHED))
    more = extended(NAME, state, {("contact_id", "n2"): "h2", ("email", "n1"): "h1"})
    after = decider_about(ASKED).fold([more], state)

    assert more == ErasureExtended(
        erasure=NAME,
        key=KEY,
        subjects=[JudgedIdentifier(type="contact_id", node="n2")],
        hashes=["h2"],
    )
    assert ["contacts", "events"] == after.open_systems
    assert extended(NAME, after, {("contact_id", "n2"): "h2"}) is None
