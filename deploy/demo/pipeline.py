"""What the pipeline says of the cases that were imported; every number is compared with the file.

The board and the list say how it is. How it was on a day of 2024 is told by the history that the
platform exports: it was recorded today, but says when each thing occurred.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from deploy.demo.b2b_deals import FILTER
from deploy.demo.b2b_history import LOST, WON
from deploy.demo.door import Door
from deploy.demo.freight import READ_WITHIN_S, listed_deals
from deploy.demo.story import hold
from deploy.demo.telling import Teller, number, pieces
from rapport.deals.v1.exports_pb2 import DEAL_EXPORT_LAYOUT_CHANGES, ExportDealsRequest
from rapport.deals.v1.imports_pb2 import ImportedDeal
from rapport.deals.v1.service_pb2 import DealState, GetDealBoardRequest
from services.kernel.log.recorded import utc

DAY: Final = datetime(2024, 7, 1, tzinfo=UTC)
PAGE_SIZE: Final = 500
_CENTS: Final = 100


async def show_pipeline(door: Door, teller: Teller, cases: Sequence[ImportedDeal]) -> None:
    """Tells how the pipeline is, and how it was, of these cases."""
    teller.heading("What the pipeline says of the cases (their dates and amounts are made up)")
    ours = {case.deal_id for case in cases}
    expected = Counter("won" if case.changes[-1].stage == WON else "lost" for case in cases)
    found: Counter[str] = Counter()
    async for key, deal in listed_deals(door, FILTER):
        if key in ours:
            found[DealState.Name(deal.state).removeprefix("DEAL_STATE_").lower()] += 1
    hold(found == expected, f"the list has {dict(expected)}, not {dict(found)}")
    board = await door.ask(door.deals.GetDealBoard, GetDealBoardRequest(filter=FILTER))
    open_now = sum(stage.deal_count for stage in board.stages)
    hold(open_now == 0, f"no case is open any more, not {open_now}")
    share = 100 * found["won"] / max(1, found.total())
    teller.step(
        "now", f"{found['won']} won, {found['lost']} lost, none open: {share:.1f} % are won"
    )
    rows = await _changes(door)
    was = standing([row for row in rows if row[0] in ours], DAY)
    hold(was == expected_standing(cases, DAY), f"{DAY:%Y-%m-%d} is told as it was in the file")
    teller.step("history", f"{pieces(len(rows), 'rows')} of CSV, each with when it occurred")
    for stage, (count, cents) in sorted(was.items()):
        label = f"{DAY:%Y-%m-%d}" if stage == min(was) else ""
        said = f"{pieces(count, 'deals')} in {stage} over {number(cents // _CENTS)} EUR"
        teller.step(label, said)


async def _changes(door: Door) -> list[list[str]]:
    """The history of the cases as rows: deal, time, field, value."""
    request = ExportDealsRequest(
        layout=DEAL_EXPORT_LAYOUT_CHANGES, page_size=PAGE_SIZE, filter=FILTER
    )
    text = ""
    while True:
        page = await door.ask(door.deal_exports.ExportDeals, request, within_s=READ_WITHIN_S)
        text += page.csv
        if not page.next_page_token:
            return list(csv.reader(io.StringIO(text, newline="")))[1:]
        request.page_token = page.next_page_token
        request.read_time.CopyFrom(page.read_time)


Standing = dict[str, tuple[int, int]]


def standing(rows: Iterable[Sequence[str]], moment: datetime) -> Standing:
    """How many deals were open in each stage at a moment, over how many cents, by their history."""
    values: dict[str, dict[str, str]] = {}
    for deal_id, time, field, value in rows:
        if datetime.fromisoformat(time) <= moment:
            values.setdefault(deal_id, {})[field] = value
    were_open = [each for each in values.values() if each["state"] == "OPEN"]
    return _added((each["stage"], int(Decimal(each["amount"]) * _CENTS)) for each in were_open)


def expected_standing(cases: Sequence[ImportedDeal], moment: datetime) -> Standing:
    """The same, by the cases as they were made."""
    found = []
    for case in cases:
        if utc(case.open_time) > moment:
            continue
        stage, amount = case.stage, case.details.amount.amount_minor
        for change in case.changes:
            if utc(change.occur_time) <= moment:
                stage = change.stage or stage
                if change.details.HasField("amount"):
                    amount = change.details.amount.amount_minor
        if stage not in {WON, LOST}:
            found.append((stage, amount))
    return _added(found)


def _added(deals: Iterable[tuple[str, int]]) -> Standing:
    sums: Standing = {}
    for stage, cents in deals:
        name = stage.rpartition("/")[2]
        count, before = sums.get(name, (0, 0))
        sums[name] = count + 1, before + cents
    return sums
