"""Write tokens: opaque, short, and nothing else is taken for one."""

import pytest

from services.kernel.errors import InvalidArgument, Reason
from services.kernel.log.tokens import decode_write_token, encode_write_token


def test_a_token_says_where_a_write_landed():
    token = encode_write_token("deals", {2: 7, 0: 300})

    assert [("deals", 0, 300), ("deals", 2, 7)] == [
        (landing.service, landing.partition, landing.position)
        for landing in decode_write_token(token)
    ]


def test_tokens_of_yesterday_are_understood():
    assert [("contacts", 0, 42)] == [
        (landing.service, landing.partition, landing.position)
        for landing in decode_write_token("CgwKCGNvbnRhY3RzGCo")
    ]


def test_a_token_travels_in_urls_and_headers():
    token = encode_write_token("contacts", dict.fromkeys(range(64), 2**60 + 1))

    assert token.replace("-", "").replace("_", "").isalnum()
    assert token.isascii()


def test_no_place_is_the_empty_token():
    assert "" == encode_write_token("contacts", {})
    assert [] == decode_write_token("")


@pytest.mark.parametrize(
    "token", ["!!!!", "A", "AAAAA", "CgwK", "ü", "CgwKCGNvbnRhY3RzGCo!", "Zm9v", " ", "CgA=CgA="]
)
def test_what_no_write_returned_is_refused(token):
    with pytest.raises(InvalidArgument) as refusal:
        decode_write_token(token)

    assert Reason.READ_TOKEN_INVALID == refusal.value.reason
    assert ["read_token"] == [violation.field for violation in refusal.value.violations]
