"""What one system cannot repeat keeps nobody else from being erased again."""

from dataclasses import dataclass, field

from rapport.common.v1.subjects_pb2 import FactKey
from rapport.identity.v1.erasure_state_pb2 import ERASURE_STATE_FINISHED
from services.identity.deciders.erasure import State, System
from services.identity.upkeep.erasure_register import _repeat
from services.kernel.errors import Unavailable

KEY = FactKey(event_id="0" * 32).SerializeToString()


@dataclass
class Row:
    aggregate_id: str
    workspace: str = "acme"
    state: State = field(
        default_factory=lambda: State(
            exists=True, key=KEY, systems={"contacts": System(ERASURE_STATE_FINISHED)}
        )
    )


class Systems:
    """Every one fails at the first erasure that it is asked for."""

    def __init__(self):
        self.asked = []

    async def erase(self, _workspace, _system, request):
        self.asked.append(request.erasure)
        if len(self.asked) == 1:
            raise Unavailable("contacts")


async def test_an_erasure_that_cannot_be_repeated_leaves_the_next_one_its_turn():
    systems = Systems()
    rows = {f"erasures/{number}": Row(f"{number}") for number in range(3)}
    await _repeat(systems, "contacts", rows, {})

    assert list(rows) == systems.asked
