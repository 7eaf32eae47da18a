"""Claims: values that only one stream of a workspace holds, taken and released with its events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.kernel.errors import AlreadyExists
from services.kernel.log.sql import Tx, columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.command.work import Change, Work

_OWNERS = """
select c.workspace, c.scope, c.key, c.stream
from kernel.claims c
join unnest($1::text[], $2::text[], $3::text[]) asked(workspace, scope, key)
     using (workspace, scope, key)
"""

_RELEASE = """
delete from kernel.claims c
using unnest($1::text[], $2::text[], $3::text[], $4::text[]) released(workspace, scope, key, stream)
where (c.workspace, c.scope, c.key, c.stream)
    = (released.workspace, released.scope, released.key, released.stream)
"""

_TAKE = """
insert into kernel.claims (workspace, scope, key, stream)
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[])
"""

Key = tuple[str, str, str]
Owners = dict[Key, str | None]


async def load_owners(tx: Tx, changes: Sequence[Change]) -> Owners:
    """Which stream holds each value that the changes want to take."""
    wanted = [key for change in changes if change.taken for key in _keys(change, taken=True)]
    if not wanted:
        return {}
    rows = await tx.fetch(_OWNERS, *columns(wanted))
    return {(row["workspace"], row["scope"], row["key"]): row["stream"] for row in rows}


def settle(work: Work, changes: Sequence[Change], owners: Owners) -> None:
    """Move the claims of one work in `owners`, or raise AlreadyExists and leave it as it was."""
    moved: Owners = {}
    changes = [change for change in changes if change.taken or change.released]
    for change in changes:
        for key in _keys(change, taken=False):
            if owners.get(key) == change.append.stream:
                moved[key] = None
    for change in changes:
        for key in _keys(change, taken=True):
            owner = moved[key] if key in moved else owners.get(key)
            if owner not in {None, change.append.stream}:
                raise AlreadyExists(work.resource_name(str(owner)), key[1])
            moved[key] = change.append.stream
    owners.update(moved)


async def save_claims(tx: Tx, changes: Sequence[Change]) -> None:
    """Write what the accepted changes released and took, in one order for all processes."""
    changes = [change for change in changes if change.taken or change.released]
    released = sorted(_rows(changes, taken=False))
    if released:
        await tx.execute(_RELEASE, *columns(released))
    taken = sorted(_rows(changes, taken=True))
    if taken:
        await tx.execute(_TAKE, *columns(taken))


def _rows(changes: Sequence[Change], *, taken: bool) -> list[tuple[str, str, str, str]]:
    return [
        (*key, change.append.stream) for change in changes for key in _keys(change, taken=taken)
    ]


def _keys(change: Change, *, taken: bool) -> list[Key]:
    workspace = change.append.origin.workspace
    claims = change.taken if taken else change.released
    return sorted((workspace, claim.scope, claim.key) for claim in claims)
