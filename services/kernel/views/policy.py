"""Policies: whenever these facts then those of ours.

A policy runs in the checkpoint transaction of a consumer, after its view, and what it answers is
appended to the service's own log in that transaction: once, whatever crashes. A rebuild runs no
policy, so nothing is said twice; if its outcome differs from what was live, and that is accepted,
the difference is told in the swap's transaction: then `events` are none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.log.log import Append
    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

T_contra = TypeVar("T_contra", contravariant=True)


class Policy(Protocol[T_contra]):
    """Whenever facts arrive, says what follows; `applied` is what the view's apply answered."""

    async def react(
        self, tx: Tx, events: Sequence[Recorded], applied: T_contra
    ) -> Sequence[Append]:
        """The events to append to our own log."""
        ...
