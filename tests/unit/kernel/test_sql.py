"""Statements sent in one round trip do what they would do alone, one argument list for all."""

from services.kernel.log.sql import Statement, send


class Heard:
    """Keeps what is sent."""

    def __init__(self):
        self.sent = []

    async def execute(self, text, *args):
        self.sent.append((text, args))


async def sent(*statements):
    heard = Heard()
    await send(heard, statements)
    return heard.sent


async def test_nothing_to_write_is_no_round_trip():
    assert [] == await sent()


async def test_a_statement_alone_is_sent_as_it_is():
    assert [("insert $1", ("a",))] == await sent(Statement("insert $1", ["a"]))


async def test_arguments_are_counted_on_and_the_last_statement_answers():
    found = await sent(
        Statement("insert $2 $1", ["a", "b"]),
        Statement("delete $1", ["c"]),
        Statement("update $1 $2 $1", ["d", "e"]),
    )

    text = "with step_0 as (insert $2 $1), step_1 as (delete $3) update $4 $5 $4"
    assert [(text, ("a", "b", "c", "d", "e"))] == found
