"""Who was erased: nodes, each with the key up to which nothing that names it is heard any more.

They are kept for ever, as the facts that say so are. A node is a hash, and leads to nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.identity.erasures import Erased, Place
from services.kernel.log.sql import Tx, columns

TABLES = """
create table {schema}.erased_nodes (
    workspace text not null,
    node text collate "C" not null,
    key bytea not null,
    primary key (workspace, node)
);
"""

_FIND = """
select workspace, node, key
from {schema}.erased_nodes
join unnest($1::text[], $2::text[]) asked (workspace, node) using (workspace, node)
"""

_ERASING = """
select workspace from unnest($1::text[]) asked (workspace)
where exists (select from {schema}.erased_nodes e where e.workspace = asked.workspace)
"""

_SAVE = """
insert into {schema}.erased_nodes as known (workspace, node, key)
select * from unnest($1::text[], $2::text[], $3::bytea[])
on conflict (workspace, node) do update set key = excluded.key where known.key < excluded.key
returning workspace, node
"""


async def erasing_among(tx: Tx, schema: str, workspaces: Iterable[str]) -> set[str]:
    """Returns those of some workspaces in which anybody was ever erased."""
    found = await tx.fetch(_ERASING.format(schema=schema), sorted(workspaces))
    return {row["workspace"] for row in found}


async def keys_of(tx: Tx, schema: str, places: Iterable[Place]) -> dict[Place, bytes]:
    """Returns up to which key nodes are erased; those that are not are left out."""
    asked = sorted(places)
    if not asked:
        return {}
    rows = await tx.fetch(_FIND.format(schema=schema), *columns(asked))
    return {(workspace, node): key for workspace, node, key in rows}


async def erase_nodes(tx: Tx, schema: str, erased: Mapping[Place, Erased]) -> dict[Place, Erased]:
    """Keeps up to where nodes are erased; returns those that were not, or not as far."""
    rows = [(*place, erased[place].key) for place in sorted(erased)]
    if not rows:
        return {}
    found = await tx.fetch(_SAVE.format(schema=schema), *columns(rows))
    return {(workspace, node): erased[workspace, node] for workspace, node in found}
