"""A page has a bounded size and a total order, and its token continues this list and no other."""

import base64
import json
import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.errors import InvalidArgument, Reason
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.keyset import ORDER_LENGTH_MAX, InvalidOrder
from services.kernel.lists.page_token import InvalidPageToken, PageToken, fingerprint_of
from services.kernel.lists.paging import PAGE_SIZE_MAX, Listing, Positions, Table

FIELDS = Fields(
    {
        "id": Field("deal_id", Kind.TEXT, sortable=True, immutable=True, nullable=False),
        "name": Field("name", Kind.TEXT, sortable=True),
        "amount": Field("amount_minor", Kind.INTEGER, sortable=True),
        "create_time": Field(
            "create_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
        ),
        "labels": Field("labels", Kind.TEXT_LIST),
    }
)
DEALS = Listing(
    method="ListDeals",
    table=Table("deals.deals", key="deal_id", positions=Positions()),
    columns="deal_id, name",
    fields=FIELDS,
    default_order="create_time desc",
)
SORTED = [
    Field("a", Kind.TEXT, sortable=True),
    Field("b", Kind.INTEGER, sortable=True),
    Field("c", Kind.NUMBER, sortable=True),
    Field("d", Kind.BOOLEAN, sortable=True),
    Field("e", Kind.TIMESTAMP, sortable=True),
    Field("f", Kind.DURATION, sortable=True),
]


def ask(**changes):
    return DEALS.query(**{"workspace": "w1", "positions": (7,), **changes})


def rows(number, *, moved=False):
    born = datetime(2024, 5, 31, tzinfo=UTC)
    row = {"deal_id": "d1", "page_moved": moved, "page_key_1": born, "page_key_2": "d1"}
    return [row] * number


@pytest.mark.parametrize(("asked", "given_"), [(0, 50), (1, 1), (1000, 1000), (10**6, 1000)])
def test_a_page_size_is_defaulted_and_coerced(asked, given_):
    query = ask(page_size=asked)
    assert query.page_size == given_ <= PAGE_SIZE_MAX
    assert query.args[0] == given_ + 1


@pytest.mark.parametrize(("asked", "given_"), [(0, 20), (19, 19), (20, 20), (21, 20), (1000, 20)])
def test_a_list_of_large_rows_has_smaller_pages(asked, given_):
    large = replace(DEALS, page_size_max=20)

    assert given_ == large.query(workspace="w1", positions=(7,), page_size=asked).page_size


def test_a_subselect_knows_the_workspace_that_is_asked_about():
    shown = Table("(select {workspace} as workspace) as s", key="deal_id", positions=Positions())

    query = replace(DEALS, table=shown).query(workspace="w1", positions=(7,))

    assert "from (select $2::text as workspace) as s where workspace = $2::text" in query.sql
    assert "w1" == query.args[1]


def test_a_negative_page_size_is_refused():
    with pytest.raises(InvalidArgument) as caught:
        ask(page_size=-1)
    assert caught.value.violations[0].field == "page_size"


def test_the_default_order_is_total_and_bounded_by_where_the_walk_began():
    assert ask(page_size=2).sql == (
        "select deal_id, name, false as page_moved, create_time as page_key_1,"
        ' deal_id collate "C" as page_key_2 from deals.deals'
        " where workspace = $2::text and create_position <= $3::bigint"
        ' order by create_time desc nulls first, deal_id collate "C" desc nulls first'
        " limit $1::bigint"
    )


def test_an_order_by_a_field_that_changes_leaves_changed_rows_for_the_end():
    sql = ask(order_by="name").sql
    assert "update_position <= $" in sql
    assert "union all" in sql
    assert "update_position > $" in sql
    assert sql.endswith(
        "order by page_moved, page_key_1 asc nulls last, page_key_2 asc nulls last limit $1::bigint"
    )


@pytest.mark.parametrize(
    ("order_by", "same"),
    [
        (" name  desc ,amount ", "name desc, amount"),
        ("name asc", "name"),
        ("", "create_time desc"),
        ("id, name", "id"),
        ("name, id, amount", "name,id"),
    ],
)
def test_orders_that_mean_the_same_are_the_same_query(order_by, same):
    assert ask(order_by=order_by) == ask(order_by=same)


@pytest.mark.parametrize(
    "order_by",
    [
        "nickname",
        "labels",
        "name desc desc",
        "name,",
        ",",
        "name; drop table deals",
        "name, name desc",
        "id, nickname",
        "n" * (ORDER_LENGTH_MAX + 1),
    ],
)
def test_an_order_that_cannot_be_is_refused(order_by):
    with pytest.raises(InvalidOrder) as caught:
        ask(order_by=order_by)
    assert caught.value.reason == Reason.ORDER_BY_INVALID
    assert caught.value.violations[0].field == "order_by"


def test_the_last_page_has_an_empty_token_and_no_other_has():
    query = ask(page_size=2)
    assert query.page(rows(0)).next_page_token == ""
    assert query.page(rows(2)).next_page_token == ""
    page = query.page(rows(3))
    assert len(page.rows) == 2
    assert page.next_page_token != ""


def test_a_token_brings_the_position_at_which_the_walk_began():
    token = ask(page_size=1).next_token(rows(2))
    assert ask(page_token=token, positions=(9,), page_size=3).positions == (7,)


@pytest.mark.parametrize(
    "changes",
    [
        {"workspace": "w2"},
        {"filter": "amount > 1"},
        {"order_by": "create_time"},
        {"order_by": "name"},
        {"where": {"pipeline_id": "p1"}},
    ],
)
def test_a_token_of_another_list_is_refused(changes):
    token = ask().next_token(rows(51))
    with pytest.raises(InvalidPageToken) as caught:
        ask(page_token=token, **changes)
    assert caught.value.reason == Reason.PAGE_TOKEN_MISMATCH


def test_a_token_of_another_method_is_refused():
    token = ask().next_token(rows(51))
    other = Listing(
        method="SearchDeals",
        table=DEALS.table,
        columns=DEALS.columns,
        fields=FIELDS,
        default_order="create_time desc",
    )
    with pytest.raises(InvalidPageToken) as caught:
        other.query(workspace="w1", positions=(7,), page_token=token)
    assert caught.value.reason == Reason.PAGE_TOKEN_MISMATCH


def test_a_filter_written_differently_keeps_the_token():
    token = ask(filter="amount>1").next_token(rows(51))
    assert ask(filter=" (amount > 1)", page_token=token).positions == (7,)


def _forged(change):
    """A token whose checksum is right and whose content is not."""
    token = ask().next_token(rows(51))
    content = json.loads(base64.urlsafe_b64decode(token + "==")[5:])
    change(content)
    body = json.dumps(content).encode()
    forged = b"\x01" + zlib.crc32(body).to_bytes(4, "big") + body
    return base64.urlsafe_b64encode(forged).decode()


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "é",
        "AAAA" * 10_000,
        ask().next_token(rows(51))[:-4],
        "B" + ask().next_token(rows(51))[1:],
        _forged(lambda content: content.pop()),
        _forged(lambda content: content.__setitem__(0, 5)),
        _forged(lambda content: content.__setitem__(1, [])),
        _forged(lambda content: content.__setitem__(1, [-1])),
        _forged(lambda content: content.__setitem__(1, [7, 7])),
        _forged(lambda content: content.__setitem__(1, [True])),
        _forged(lambda content: content.__setitem__(1, [10**30])),
        _forged(lambda content: content.__setitem__(2, 1)),
        _forged(lambda content: (content.__setitem__(2, True), content[3].pop())),
        _forged(lambda content: content[3].pop()),
        _forged(lambda content: content[3].__setitem__(0, None)),
        _forged(lambda content: content[3].__setitem__(0, "2024")),
        _forged(lambda content: content[3].__setitem__(0, 10**30)),
        _forged(lambda content: content[3].__setitem__(1, "a\0")),
        _forged(lambda content: content[3].__setitem__(1, "\ud800")),
    ],
)
def test_a_token_that_is_none_is_refused(token):
    with pytest.raises(InvalidPageToken) as caught:
        ask(page_token=token)
    assert caught.value.reason == Reason.PAGE_TOKEN_INVALID


@given(st.one_of(st.text(min_size=1), st.binary(min_size=1).map(base64.urlsafe_b64encode)))
def test_any_text_is_refused_as_a_token(text):
    with pytest.raises(InvalidPageToken):
        ask(page_token=text if isinstance(text, str) else text.decode())


values = st.tuples(
    st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.floats(allow_nan=False),
    st.none() | st.booleans(),
    st.none() | st.datetimes(timezones=st.just(UTC)),
    st.none() | st.timedeltas(timedelta(days=-999_999), timedelta(days=999_999)),
)


@given(values, st.booleans(), st.lists(st.integers(0, 2**63 - 1), max_size=3))
def test_a_token_keeps_every_value_exactly(values, is_moved, positions):
    token = PageToken(fingerprint_of("a"), tuple(positions), False, values)
    assert PageToken.decoded(token.encoded(SORTED), fingerprint_of("a"), SORTED) == token


def test_a_view_without_positions_is_not_sorted_by_what_changes():
    with pytest.raises(ValueError, match="needs positions"):
        Listing(
            method="ListDeals",
            table=Table("deals.deals", key="deal_id", positions=None),
            columns="deal_id",
            fields=FIELDS,
        )


def test_a_walk_without_the_checkpoint_of_its_view_is_a_mistake_of_the_service():
    with pytest.raises(ValueError, match="checkpoint"):
        DEALS.query(workspace="w1")
