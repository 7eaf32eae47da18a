"""What currencies are worth is told for every day, as it is known now or was at any moment."""

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from rapport.deals.v1.currencies_pb2 import (
    GetBaseCurrencyRequest,
    GetExchangeRateRequest,
    ListExchangeRatesRequest,
    RemoveExchangeRateRequest,
    SetBaseCurrencyRequest,
    SetExchangeRateRequest,
)
from rapport.deals.v1.currencies_pb2_grpc import CurrenciesServiceStub
from services.deals.deciders import exchange_rate
from services.deals.exchange import UnknownRate
from services.deals.projections.currencies import CurrenciesView
from services.deals.projections.exchange_rates import load_rates
from services.kernel.errors import Aborted, InvalidArgument, NotFound, ResourceExhausted
from services.kernel.log.log import read_partition
from services.kernel.log.recorded import timestamp_of
from services.kernel.views.rebuild import Rebuild

FROM, TO = "USD", "EUR"


@pytest.fixture
def currencies(asked):
    """Currencies as the workspace `acme` sees them."""
    return asked.stub(CurrenciesServiceStub)


def setting(day, rate, source=FROM, target=TO, **said):
    return SetExchangeRateRequest(
        from_currency=source, to_currency=target, effective_date=day, rate=rate, **said
    )


def removing(day, source=FROM, target=TO):
    return RemoveExchangeRateRequest(name=f"exchangeRates/{source}-{target}-{day}")


async def rate_on(currencies, day, moment=None, source=FROM, target=TO):
    """The rate that counts on a day, None when there is none."""
    read_time = None if moment is None else timestamp_of(moment)
    asked = {"from_currency": source, "to_currency": target, "date": day}
    request = GetExchangeRateRequest(**asked, read_time=read_time)
    try:
        return (await currencies.GetExchangeRate(request)).exchange_rate.rate
    except NotFound:
        return None


async def listed(currencies, moment=None, **said):
    """Every page of a list, as texts."""
    read_time = None if moment is None else timestamp_of(moment)
    found, page_token = [], ""
    while True:
        request = ListExchangeRatesRequest(read_time=read_time, page_token=page_token, **said)
        response = await currencies.ListExchangeRates(request)
        found += [f"{rate.name.partition('/')[2]} {rate.rate}" for rate in response.exchange_rates]
        page_token = response.next_page_token
        if not page_token:
            return found


async def test_a_base_currency_is_told_as_it_is_and_as_it_was(asked, currencies):
    with pytest.raises(NotFound):
        await currencies.GetBaseCurrency(GetBaseCurrencyRequest())
    before = asked.kernel.clock.now()
    first = await currencies.SetBaseCurrency(SetBaseCurrencyRequest(currency="EUR"))
    between = asked.kernel.clock.now()
    await currencies.SetBaseCurrency(
        SetBaseCurrencyRequest(currency="USD", etag=first.base_currency.etag)
    )

    now = (await currencies.GetBaseCurrency(GetBaseCurrencyRequest())).base_currency
    assert ("currencies/base", "USD", '"2"') == (now.name, now.currency, now.etag)
    then = GetBaseCurrencyRequest(read_time=timestamp_of(between))
    assert first.base_currency == (await currencies.GetBaseCurrency(then)).base_currency
    too_early = GetBaseCurrencyRequest(read_time=timestamp_of(before))
    with pytest.raises(NotFound):
        await currencies.GetBaseCurrency(too_early)
    stale = SetBaseCurrencyRequest(currency="GBP", etag=first.base_currency.etag)
    with pytest.raises(Aborted):
        await currencies.SetBaseCurrency(stale)


async def test_the_rate_of_a_day_is_the_newest_up_to_it_and_for_its_direction_only(
    asked, currencies
):
    tomorrow = (asked.kernel.clock.now() + timedelta(days=1)).date().isoformat()
    for day, rate in (("2026-01-01", "0.90"), ("2026-02-01", "0.91"), (tomorrow, "2")):
        await currencies.SetExchangeRate(setting(day, rate))

    days = ("2025-12-31", "2026-01-01", "2026-01-31", "2026-02-01", "", tomorrow)
    assert [None, "0.9", "0.9", "0.91", "0.91", "2"] == [
        await rate_on(currencies, day) for day in days
    ]
    assert await rate_on(currencies, "2026-02-01", source=TO, target=FROM) is None
    others = asked.stub(CurrenciesServiceStub, workspace="globex")
    assert await rate_on(others, "2026-02-01") is None
    with pytest.raises(InvalidArgument) as caught:
        await rate_on(currencies, "2026-02-30")
    assert ["date"] == [violation.field for violation in caught.value.violations]
    with pytest.raises(InvalidArgument) as caught:
        await rate_on(currencies, "2026-02-01", source=TO)
    assert ["to_currency"] == [violation.field for violation in caught.value.violations]


async def test_no_moment_is_read_before_it_has_come(asked, currencies):
    future = asked.kernel.clock.now() + timedelta(minutes=1)

    for asking in (listed(currencies, future), rate_on(currencies, "2026-01-01", future)):
        with pytest.raises(InvalidArgument) as caught:
            await asking
        assert ["read_time"] == [violation.field for violation in caught.value.violations]


async def test_a_list_is_by_pair_and_day_and_hides_what_was_removed(asked, currencies):
    for source, target in (("USD", "EUR"), ("EUR", "USD"), ("JPY", "EUR")):
        for day in ("2026-02-01", "2026-01-01"):
            await currencies.SetExchangeRate(setting(day, "1.50", source, target))
    everything = await listed(currencies)
    moment = asked.kernel.clock.now()
    await currencies.RemoveExchangeRate(removing("2026-01-01"))

    assert "EUR-USD-2026-01-01 1.5" == everything[0]
    assert sorted(everything) == everything
    assert 6 == len(everything)
    assert everything == await listed(currencies, moment, page_size=4)
    assert [one for one in everything if one != "USD-EUR-2026-01-01 1.5"] == await listed(
        currencies, page_size=2
    )
    recent = 'to_currency = "EUR" AND effective_date >= "2026-02-01"'
    assert ["USD-EUR-2026-02-01 1.5", "JPY-EUR-2026-02-01 1.5"] == await listed(
        currencies, filter=recent, order_by="from_currency desc"
    )


async def test_rates_are_loaded_as_they_were_known_for_the_days_that_are_asked(asked, currencies):
    pool = asked.kernel.pool
    for day, rate in (("2026-01-01", "1"), ("2026-02-01", "2"), ("2026-03-01", "3")):
        await currencies.SetExchangeRate(setting(day, rate))
    await currencies.SetExchangeRate(setting("2026-02-15", "150", "JPY"))
    await currencies.SetExchangeRate(setting("2026-01-01", "7", TO, FROM))
    known = asked.kernel.clock.now()
    await currencies.SetExchangeRate(setting("2026-02-01", "20"))

    then = await load_rates(pool, "acme", TO, known)
    assert [Decimal(1), Decimal(2), Decimal(3)] == [
        then.on(FROM, TO, date(2026, month, 10)) for month in (1, 2, 3)
    ]
    now = await load_rates(pool, "acme", TO, asked.kernel.clock.now(), first_date=date(2026, 2, 10))
    assert 2_000 == now.convert(100, FROM, TO, date(2026, 2, 10))
    assert Decimal(150) == now.on("JPY", TO, date(2026, 2, 15))
    for source, day in ((FROM, date(2026, 1, 10)), ("JPY", date(2026, 2, 14))):
        with pytest.raises(UnknownRate):
            now.on(source, TO, day)
    with pytest.raises(UnknownRate):
        then.on(TO, FROM, date(2026, 3, 1))
    # A day that has not come has no rate yet.
    early = await load_rates(pool, "acme", TO, datetime(2026, 2, 1, tzinfo=UTC))
    with pytest.raises(UnknownRate):
        early.on(FROM, TO, date(2026, 3, 1))


async def test_there_is_an_end_to_rates(monkeypatch, currencies):
    monkeypatch.setattr(exchange_rate, "EXCHANGE_RATES_MAX", 2)
    await currencies.SetExchangeRate(setting("2026-01-01", "1"))
    await currencies.SetExchangeRate(setting("2026-01-02", "1"))

    with pytest.raises(ResourceExhausted):
        await currencies.SetExchangeRate(setting("2026-01-03", "1"))
    await currencies.SetExchangeRate(setting("2026-01-02", "2"))
    await currencies.RemoveExchangeRate(removing("2026-01-01"))
    await currencies.SetExchangeRate(setting("2026-01-03", "1"))
    assert ["USD-EUR-2026-01-02 2", "USD-EUR-2026-01-03 1"] == await listed(currencies)


async def test_whatever_happened_each_moment_is_told_as_it_was_live_and_so_by_a_rebuilt_view(asked):
    chosen = random.Random(26)
    days = ["2026-01-01", "2026-01-02", "2026-01-03"]
    kernel = asked.kernel
    for workspace in ("acme", "globex", "initech"):
        currencies = asked.stub(CurrenciesServiceStub, workspace=workspace)
        seen = [await everything(currencies, days, kernel.clock.now())]
        for _ in range(15):
            await something(currencies, chosen, days)
            seen.append(await everything(currencies, days, kernel.clock.now()))
        told = [await everything(currencies, days, moment, moment) for moment, *_ in seen]

        assert seen == told

    rebuild = Rebuild(kernel.pool, kernel.log, CurrenciesView(), kernel.event_types, {})
    async for _ in rebuild.build():
        pass
    comparison = await rebuild.compare()
    assert 0 < comparison.live["exchange_rates"][0] < comparison.live["exchange_rates_versions"][0]
    assert comparison.equal


async def test_one_batch_or_one_by_one_gives_the_same_rows(asked, currencies):
    for rate in ("1", "2", "3"):
        await currencies.SetExchangeRate(setting("2026-01-01", rate))
    await currencies.RemoveExchangeRate(removing("2026-01-01"))
    for currency in ("EUR", "USD"):
        await currencies.SetBaseCurrency(SetBaseCurrencyRequest(currency=currency))
    pool, view = asked.kernel.pool, CurrenciesView()
    events = [asked.kernel.event_types.decode(e) for e in await read_partition(pool, 0, after=0)]
    tables = "base_currencies", "base_currencies_versions", "exchange_rates_versions"
    async with pool.acquire() as tx:
        for schema in ("at_once", "one_by_one"):
            await tx.execute(f"create schema {schema}")
            await tx.execute(view.tables(schema))
        await view.apply(tx, "at_once", events)
        for event in events:
            await view.apply(tx, "one_by_one", [event])
        at_once, one_by_one, live = [
            [
                await tx.fetch(f"select * from {schema}.{table} order by version")
                for table in (*tables, "exchange_rates")
            ]
            for schema in ("at_once", "one_by_one", "currencies")
        ]

    assert live == at_once == one_by_one
    assert [1, 2, 4, 1] == [len(rows) for rows in live]


async def everything(currencies, days, moment, read_time=None):
    """The moment, and every answer: now, or as of a time of reading."""
    on_days = [await rate_on(currencies, day, read_time) for day in days]
    try:
        asking = GetBaseCurrencyRequest()
        if read_time is not None:
            asking.read_time.CopyFrom(timestamp_of(read_time))
        base = (await currencies.GetBaseCurrency(asking)).base_currency
    except NotFound:
        base = None
    return moment, on_days, await listed(currencies, read_time), base


async def something(currencies, chosen, days):
    """One of the commands, by chance."""
    day = chosen.choice(days)
    match chosen.randrange(5):
        case 0:
            currency = chosen.choice(["EUR", "USD"])
            await currencies.SetBaseCurrency(SetBaseCurrencyRequest(currency=currency))
        case 1:
            try:
                await currencies.RemoveExchangeRate(removing(day))
            except NotFound:
                return
        case _:
            await currencies.SetExchangeRate(setting(day, str(chosen.randrange(1, 4))))
