"""A filter means what AIP-160 says, and one that cannot be understood says where and why."""

from datetime import UTC, datetime, timedelta

import pytest

from services.kernel.errors import InvalidArgument, Reason
from services.kernel.lists.filter import Arguments, Field, Fields, InvalidFilter, Kind, Rule
from services.kernel.lists.filter_syntax import (
    FILTER_DEPTH_MAX,
    FILTER_LENGTH_MAX,
    FILTER_RESTRICTIONS_MAX,
    parse_filter,
)

FIELDS = Fields(
    {
        "name": Field("display_name", Kind.TEXT),
        "email": Field("email", Kind.TEXT),
        "amount": Field("amount_minor", Kind.INTEGER),
        "score": Field("score", Kind.NUMBER),
        "vip": Field("vip", Kind.BOOLEAN),
        "create_time": Field("create_time", Kind.TIMESTAMP),
        "wait": Field("wait", Kind.DURATION),
        "state": Field("state", Kind.ENUM, values={"OPEN": 1, "WON": 2}),
        "labels": Field("labels", Kind.TEXT_LIST),
        "tags": Field("tags", Kind.TEXT_MAP),
        "custom_fields": Field("custom_fields", Kind.STRUCT),
        "address.city": Field("address_city", Kind.TEXT),
    },
    searched=("name", "email"),
)
UNSEARCHED = Fields({"name": Field("name", Kind.TEXT)})

ANN = {
    "display_name": "Ann Lee",
    "email": "ann@example.com",
    "amount_minor": 4200,
    "score": 0.5,
    "vip": True,
    "create_time": datetime(2024, 5, 31, 10, tzinfo=UTC),
    "wait": timedelta(seconds=90),
    "state": 2,
    "labels": ["gold", "north"],
    "tags": {"tier": "gold", "no-go": "100%"},
    "custom_fields": {
        "tier": "gold",
        "seats": 42,
        "rate": 1.5,
        "signed": True,
        "since": "2024-05-01",
        "cleared": None,
        "plans": ["a", 7],
        "billing": {"currency": "EUR"},
    },
    "address_city": "Graz",
}
NOBODY: dict[str, object] = {}


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("a=1 AND b=2 OR c=3", "a=1 AND (b=2 OR c=3)"),
        ("a=1 b=2 AND c=3", "a=1 AND b=2 AND c=3"),
        ("New York Giants OR Yankees", "New AND York AND (Giants OR Yankees)"),
        ("-a=1", "NOT a=1"),
        ("-(a=1 OR b=2)", "NOT (a=1 OR b=2)"),
        ("NOT a=1 OR b=2", "(NOT a=1) OR b=2"),
        ("  a  =\n1\t", "a=1"),
        ("a='x'", 'a="x"'),
        ("a = jane@example.com", 'a="jane@example.com"'),
        ("a = -30", 'a="-30"'),
        ("t > 2012-04-21T11:30:00-04:00", 't > "2012-04-21T11:30:00-04:00"'),
        ("((a:*))", "a:*"),
        ("jane@example.com", '"jane@example.com"'),
        ('a."b c".AND = 1', 'a."b c"."AND" = 1'),
    ],
)
def test_two_ways_to_write_it_are_one_tree(text, same):
    assert parse_filter(text) == parse_filter(same)


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_an_empty_filter_matches_everything(text):
    wanted = FIELDS.filter(text)
    assert wanted.matches(NOBODY)
    assert wanted.sql(Arguments()) == "true"


@pytest.mark.parametrize(
    "text",
    [
        'email = "ann@example.com"',
        "email = ann@*",
        "email = *@example.com",
        "email = a*@*.com",
        'email = "*"',
        "email != bob*",
        'name > "Ann"',
        "name:'Ann Lee'",
        "amount = 4200",
        "amount:4200",
        'amount >= "4200"',
        "score < 5e-1 OR score = 0.5",
        "vip = true",
        "create_time > 2024-05-31T11:59:59.999+02:00",
        "create_time = '2024-05-31T10:00:00Z'",
        "wait <= 90s AND wait > 89.9s",
        "state = WON",
        "state != OPEN",
        "labels:gold",
        "labels:no*",
        "labels:*",
        "tags:tier",
        "tags.tier = gold",
        "tags.tier:g*",
        "tags.tier:*",
        'tags."no-go" = "100%"',
        "tags:*",
        "custom_fields:tier",
        "custom_fields.tier = gold",
        "custom_fields.tier = g*d",
        "custom_fields.tier != silver",
        "custom_fields.seats = 42",
        "custom_fields.seats = 42.0",
        "custom_fields.seats > 9",
        "custom_fields.seats != gold",
        "custom_fields.rate < 1.50001",
        "custom_fields.signed = true",
        "custom_fields.since < 2024-06-01",
        "custom_fields.plans:a",
        "custom_fields.plans:7",
        "custom_fields.billing.currency = EUR",
        "custom_fields.billing:currency",
        "address.city = Graz",
        "ann",
        "LEE EXAMPLE",
        "NOT nobody",
        '"Ann Lee"',
    ],
)
def test_a_filter_matches_the_row_it_describes(text):
    assert FIELDS.filter(text).matches(ANN)


@pytest.mark.parametrize(
    "text",
    [
        "email = ANN@example.com",
        "email = nn@*",
        "name = '\\*'",
        "amount != 4200",
        "amount > 4200",
        "vip = false",
        "labels:golden",
        "tags:gold",
        "tags.tier = gold AND tags.tier = silver",
        "tags.other != gold",
        "custom_fields.cleared:*",
        "custom_fields.cleared != gold",
        "custom_fields.seats > 100",
        "custom_fields.seats < abc",
        "custom_fields.plans.a:*",
        "custom_fields.plans = a",
        "custom_fields.billing.other:*",
        "bob",
    ],
)
def test_a_filter_does_not_match_another_row(text):
    assert not FIELDS.filter(text).matches(ANN)


@pytest.mark.parametrize(
    "text",
    ["email != x", "email = '*'", "amount < 1", "state != WON", "labels:*", "tags.a != b"],
)
def test_an_unset_field_matches_nothing_not_even_a_difference(text):
    assert not FIELDS.filter(text).matches(NOBODY)
    assert FIELDS.filter(f"NOT {text}").matches(NOBODY)
    assert FIELDS.filter(f"-{text}").matches(NOBODY)


@pytest.mark.parametrize(
    ("text", "rule", "position"),
    [
        ("a" * (FILTER_LENGTH_MAX + 1), Rule.LIMIT, FILTER_LENGTH_MAX),
        (
            "(" * (FILTER_DEPTH_MAX + 1) + "name=a" + ")" * (FILTER_DEPTH_MAX + 1),
            Rule.LIMIT,
            FILTER_DEPTH_MAX + 1,
        ),
        ("name=a " * (FILTER_RESTRICTIONS_MAX + 1), Rule.LIMIT, 7 * FILTER_RESTRICTIONS_MAX),
        ("name = ", Rule.SYNTAX, 7),
        ("name = a AND", Rule.SYNTAX, 12),
        ("name = AND", Rule.SYNTAX, 7),
        ("name = 'a", Rule.SYNTAX, 7),
        ("name = 'a\\q'", Rule.SYNTAX, 9),
        ("name = a:b", Rule.SYNTAX, 8),
        ("name = a, email = b", Rule.SYNTAX, 8),
        ("name = (a OR b)", Rule.SYNTAX, 7),
        ("(name = a", Rule.SYNTAX, 9),
        ("name = a)", Rule.SYNTAX, 8),
        ("= a", Rule.SYNTAX, 0),
        ("--name = a", Rule.SYNTAX, 1),
        ("name = a and email = b", Rule.SYNTAX, 9),
        ("name = a OR OR email = b", Rule.SYNTAX, 12),
        ("name = 'a\0'", Rule.SYNTAX, 9),
        ("name = '\ud800'", Rule.SYNTAX, 8),
        ("vip = true regex(name)", Rule.FUNCTION, 11),
        ("vip = true nickname = a", Rule.FIELD_UNKNOWN, 11),
        ("name.first = a", Rule.FIELD_UNKNOWN, 0),
        ("tags.a.b = c", Rule.FIELD_UNKNOWN, 0),
        ("vip > true", Rule.OPERATOR, 0),
        ("state < WON", Rule.OPERATOR, 0),
        ("labels = gold", Rule.OPERATOR, 0),
        ("tags = gold", Rule.OPERATOR, 0),
        ("vip = yes", Rule.VALUE, 6),
        ("state = won", Rule.VALUE, 8),
        ("amount = 1.5", Rule.VALUE, 9),
        ("amount = 9223372036854775808", Rule.VALUE, 9),
        ("score = 1e999", Rule.VALUE, 8),
        ("score = nan", Rule.VALUE, 8),
        ("create_time > 2024-05-31", Rule.VALUE, 14),
        ("create_time > 2024-02-30T00:00:00Z", Rule.VALUE, 14),
        ("create_time > 0001-01-01T00:00:00+01:00", Rule.VALUE, 14),
        ("wait > 20", Rule.VALUE, 7),
        ("amount = 4*", Rule.WILDCARD, 9),
        ("name > a*", Rule.WILDCARD, 7),
        ("tags:t*", Rule.WILDCARD, 5),
    ],
)
def test_a_filter_that_breaks_a_rule_says_which_and_where(text, rule, position):
    with pytest.raises(InvalidFilter) as caught:
        FIELDS.filter(text)
    assert (caught.value.rule, caught.value.position) == (rule, position)


def test_an_invalid_filter_is_an_invalid_argument_a_program_can_read():
    with pytest.raises(InvalidArgument) as caught:
        FIELDS.filter("name = a AND amount = many")
    assert caught.value.reason == Reason.FILTER_INVALID
    assert caught.value.metadata == {
        "filter_field": "amount",
        "filter_position": "22",
        "filter_rule": "FILTER_VALUE",
    }
    (violation,) = caught.value.violations
    assert violation.field == "filter"
    assert violation.reason == "FILTER_VALUE"


def test_bare_words_are_refused_where_nothing_is_searched():
    with pytest.raises(InvalidFilter) as caught:
        UNSEARCHED.filter("hugo")
    assert caught.value.rule == Rule.SEARCH


def test_what_the_caller_wrote_reaches_sql_only_as_a_parameter():
    arguments = Arguments(["workspace-1"])
    evil = "x'; drop table contacts; --%_\\\\"
    text = f'name = "{evil}" OR name = "*{evil}" OR tags."{evil}":* OR "{evil}"'
    sql = FIELDS.filter(text).sql(arguments)
    assert sql == (
        "(display_name = $2::text or display_name like $3::text or tags ? $4::text"
        " or (display_name ilike $5::text or email ilike $6::text))"
    )
    assert arguments.values[2] == "%x'; drop table contacts; --\\%\\_\\\\"


def test_equal_filters_have_one_canonical_text():
    assert FIELDS.filter("vip=true  name:'x'").text == "vip = true AND name:x"
    assert FIELDS.filter("vip = true AND (name:x)").text == "vip = true AND name:x"


def test_a_driver_that_gives_jsonb_as_text_changes_nothing():
    assert FIELDS.filter("custom_fields.seats = 42").matches({"custom_fields": '{"seats": 42}'})
    assert not FIELDS.filter("tags:*").matches({"tags": "null"})


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Field("email; drop table contacts", Kind.TEXT),
        lambda: Field("labels", Kind.TEXT_LIST, sortable=True),
        lambda: Field("state", Kind.ENUM),
        lambda: Fields({"amount": Field("amount", Kind.INTEGER)}, searched=("amount",)),
    ],
)
def test_a_field_that_makes_no_sense_cannot_be_declared(wrong):
    with pytest.raises(ValueError):
        wrong()
