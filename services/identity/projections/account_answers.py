"""The questions about accounts, and about who is and was in them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from asyncpg import Pool

from rapport.identity.v1.accounts_pb2 import (
    Account,
    ListAccountsRequest,
    ListAccountsResponse,
    ListMembershipsRequest,
    ListMembershipsResponse,
    Membership,
)
from services.identity.changes import name_of
from services.identity.facts import received_at
from services.identity.identifiers import GROUP_ID, account_name, group
from services.identity.projections.profile_answers import trait
from services.identity.projections.profiles import find_profile_id
from services.kernel.errors import InvalidArgument, NotFound
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Table
from services.kernel.log.database import one_moment
from services.kernel.log.recorded import timestamp_of
from services.kernel.log.sql import Tx

_SHOWN = "account, group_id, create_time"

_ROW = f"select {_SHOWN} from profiles.accounts where workspace = $1 and account = $2"

# Who said it is found among the words, as the last one is one of them.
_TRAITS = """
select t.account, t.trait, t.value, t.occur_time,
    w.source, encode(substr(t.key, 9), 'hex')::uuid, w.resource, w.key
from profiles.account_traits t
join profiles.account_words w on w.workspace = t.workspace and w.key = t.key
where t.workspace = $1 and t.account = any($2::text[]) and t.value is not null
"""

_GROUPS = """
select account, group_id from profiles.accounts where workspace = $1 and account = any($2::text[])
"""

ACCOUNTS = Listing(
    method="ListAccounts",
    # No positions: the id is never changed, so a walk along it needs none.
    table=Table("profiles.accounts", key="account", positions=None),
    columns=_SHOWN,
    fields=Fields(
        {
            "traits": Field("traits", Kind.STRUCT),
            "group_id": Field("group_id", Kind.TEXT, nullable=False),
            "create_time": Field("create_time", Kind.TIMESTAMP, nullable=False),
        }
    ),
)

MEMBERSHIPS = Listing(
    method="ListMemberships",
    # No positions: what begins a period is never changed, so a walk along it needs none.
    table=Table("profiles.memberships", key="start_key", positions=None),
    columns="account, profile, start_key, start_time, end_key, end_time",
    fields=Fields(
        {
            "start_time": Field(
                "start_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
            ),
            "end_time": Field("end_time", Kind.TIMESTAMP),
        }
    ),
    default_order="start_time desc",
)

_COLLECTION = "accounts/"
_ID = re.compile(r"[0-9a-f]{32}")


async def get_account(pool: Pool, workspace: str, name: str) -> Account:
    """Returns the account that a name leads to; raises InvalidArgument or NotFound."""
    account = account_named(workspace, name, "name")
    async with one_moment(pool) as connection:
        row = await connection.fetchrow(_ROW, workspace, account)
        if row is None:
            raise NotFound(name)
        return (await _filled(connection, workspace, [row]))[0]


async def list_accounts(
    pool: Pool, workspace: str, request: ListAccountsRequest
) -> ListAccountsResponse:
    """Returns a page of accounts, by id."""
    query = ACCOUNTS.query(
        workspace=workspace,
        filter=request.filter,
        page_size=request.page_size,
        page_token=request.page_token,
    )
    async with one_moment(pool) as connection:
        page = query.page(await connection.fetch(query.sql, *query.args))
        found = await _filled(connection, workspace, page.rows)
    return ListAccountsResponse(accounts=found, next_page_token=page.next_page_token)


async def list_memberships(
    pool: Pool, workspace: str, request: ListMembershipsRequest
) -> ListMembershipsResponse:
    """Returns a page of the memberships of an account or a profile, the latest to begin first."""
    query = MEMBERSHIPS.query(
        workspace=workspace,
        filter=request.filter,
        page_size=request.page_size,
        page_token=request.page_token,
        where=await _parent(pool, workspace, request.parent),
    )
    async with one_moment(pool) as connection:
        page = query.page(await connection.fetch(query.sql, *query.args))
        asked = sorted({row["account"] for row in page.rows})
        found = await connection.fetch(_GROUPS, workspace, asked)
    groups = {row["account"]: row["group_id"] for row in found}
    return ListMembershipsResponse(
        memberships=[_membership(row, groups[row["account"]]) for row in page.rows],
        next_page_token=page.next_page_token,
    )


def account_named(workspace: str, name: str, field: str) -> str:
    """Returns the id of the account that a name means."""
    named = name.removeprefix(_COLLECTION)
    if named == name:
        raise InvalidArgument.of(field, "begins with accounts/")
    if _ID.fullmatch(named):
        return named
    type_name, _, value = named.partition(":")
    if type_name != GROUP_ID or not value:
        raise InvalidArgument.of(field, "is accounts/ID or accounts/group_id:VALUE")
    found = group(workspace, value)
    if found is None:
        raise NotFound(name)
    return found.account


async def _parent(pool: Pool, workspace: str, parent: str) -> dict[str, str]:
    """Returns what the memberships of an account, or of a profile, have in common."""
    if parent.startswith(_COLLECTION):
        account = account_named(workspace, parent, "parent")
        if await pool.fetchrow(_ROW, workspace, account) is None:
            raise NotFound(parent)
        return {"account": account}
    if parent.startswith("profiles/"):
        return {"profile": await find_profile_id(pool, workspace, parent)}
    raise InvalidArgument.of("parent", "begins with accounts/ or profiles/")


async def _filled(connection: Tx, workspace: str, rows: Sequence[Any]) -> list[Account]:
    """Returns the accounts of rows, with their traits."""
    traits: dict[str, dict[str, Any]] = defaultdict(dict)
    for account, name, *said, key in await connection.fetch(
        _TRAITS, workspace, [row["account"] for row in rows]
    ):
        traits[account][name] = trait(said, received_at(key))
    return [
        Account(
            name=account_name(row["account"]),
            group_id=row["group_id"],
            traits=traits[row["account"]],
            create_time=timestamp_of(row["create_time"]),
        )
        for row in rows
    ]


def _membership(row: Any, group_id: str) -> Membership:
    ended = row["end_time"] is not None
    return Membership(
        account=account_name(row["account"]),
        group_id=group_id,
        profile=name_of(row["profile"]),
        start_time=timestamp_of(row["start_time"]),
        end_time=timestamp_of(row["end_time"]) if ended else None,
        start_activity_id=_activity_id(row["start_key"]),
        end_activity_id=_activity_id(row["end_key"]) if ended else "",
    )


def _activity_id(key: str) -> str:
    """Returns the id of the fact with a key, of which it is all behind the time."""
    return str(UUID(hex=key[16:]))
