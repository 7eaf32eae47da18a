"""Which contact a deal is made with.

Later facts of a deal do not always say so. Facts of one deal are one stream, which every consumer
reads in order, so the fact that opened the deal was always there before.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.identity.facts import Deal, deal_without_contact, opened_with
from services.kernel.log.recorded import Recorded
from services.kernel.log.sql import Tx, columns

TABLES = """
create table {schema}.deal_contacts (
    workspace text not null,
    deal text collate "C" not null,
    contact text not null,
    primary key (workspace, deal)
);
"""

_ADD = """
insert into {schema}.deal_contacts (workspace, deal, contact)
select * from unnest($1::text[], $2::text[], $3::text[])
on conflict do nothing
"""

_FIND = """
select workspace, deal, contact
from {schema}.deal_contacts
join unnest($1::text[], $2::text[]) asked (workspace, deal) using (workspace, deal)
"""


async def find_deal_contacts(tx: Tx, schema: str, events: Sequence[Recorded]) -> dict[Deal, str]:
    """Keeps the contacts of deals that events open, and returns those that events ask for."""
    opened = dict(found for event in events if (found := opened_with(event)) is not None)
    if opened:
        rows = [(*deal, contact) for deal, contact in sorted(opened.items())]
        await tx.execute(_ADD.format(schema=schema), *columns(rows))
    asked = {deal for event in events if (deal := deal_without_contact(event)) is not None}
    known = dict(opened)
    if asked:
        records = await tx.fetch(_FIND.format(schema=schema), *columns(sorted(asked)))
        known |= {(record[0], record[1]): record[2] for record in records}
    return known
