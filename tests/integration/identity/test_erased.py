"""People who were erased, told as stories: what names them is gone, whoever else it names."""

import pytest

from rapport.identity.v1.events_pb2 import ConsentDenied, ConsentGranted
from services.identity.consents import Status
from services.identity.facts import ERASED
from services.identity.rules import DEFAULT
from services.kernel.errors import NotFound
from services.kernel.log.database import transaction
from tests.consents_world import consented, created, have_purposes
from tests.erasures_world import contact_erased, erased, events_erased
from tests.identity_world import Facts, view_of

MARKER = "valparaiso"
EMAIL = f"{MARKER}@x.com"
# In which column of which table a text is.
COLUMNS = """
select format('%I.%I', table_schema, table_name) as name, string_agg(column_name, ',') as columns
from information_schema.columns where table_schema = 'profiles' group by 1
"""


@pytest.fixture
def facts():
    return Facts()


async def tables_with(people, text):
    """The tables with a row that holds a text, in bytes too."""
    found = []
    for table in await people.pool.fetch(COLUMNS):
        rows = await people.pool.fetch(f"select t::text as row from {table['name']} t")
        forms = text, text.encode().hex()
        if any(form in row["row"] for row in rows for form in forms):
            found.append(table["name"])
    return found


async def test_nothing_of_an_erased_person_is_in_any_table(people, facts):
    told = (
        facts.identify(user_id="u1", traits={"email": EMAIL, "city": MARKER}),
        facts.track(MARKER, user_id="u1", anonymous_id=MARKER, properties={"seen": MARKER}),
        facts.sent("group", user_id="u1", group_id="g", traits={"of": MARKER}),
        facts.contact_created("c1", given_name=MARKER, email=EMAIL),
        facts.contact_email_changed("c1", "other@x.com"),
        facts.linked(("user_id", "u1"), ("contact_id", "c1"), reason=MARKER),
        facts.deal_opened("d1", MARKER),
    )
    known = ("user_id", "u1"), ("email", EMAIL), ("anonymous_id", MARKER), ("contact_id", MARKER)
    await people.happens(*told)
    assert await tables_with(people, MARKER)

    await people.happens(erased(facts, *known, until=told[-1]))

    assert await tables_with(people, MARKER) == []
    for name in ("user_id:u1", f"email:{EMAIL}", f"contact_id:{MARKER}"):
        with pytest.raises(NotFound):
            await people.profile(name)


async def test_what_comes_late_is_not_heard_and_what_comes_later_is_somebody_new(people, facts):
    early, late = facts.track(user_id="u1", anonymous_id="a1"), facts.track(user_id="u1")
    await people.happens(early)
    gone = erased(facts, ("user_id", "u1"), until=late)
    await people.happens(gone)

    assert await people.happens(early, late, gone) == []

    again = facts.track("Order Completed", user_id="u1")
    await people.happens(again)
    assert await people.activities("user_id:u1") == ["Order Completed"]


async def test_a_fact_that_names_an_erased_person_is_gone_for_the_other_too(people, facts):
    both = facts.identify(user_id="u1", traits={"email": EMAIL, "city": "Rome"})
    await people.happens(facts.track(user_id="u1"), both)

    told = await people.happens(erased(facts, ("email", EMAIL), until=both))

    assert await people.activities("user_id:u1") == ["Product Viewed"]
    assert await people.traits("user_id:u1") == {}
    assert await people.identifiers("user_id:u1") == {"user_id:u1"}
    assert [event.DESCRIPTOR.name for event in told] == [
        "ProfileActivityRetracted",
        "ProfileIdentifiersChanged",
        "ProfileRecounted",
        "ProfileTraitsChanged",
    ]


async def test_another_workspace_keeps_its_people(people, facts):
    theirs = Facts("theirs")
    await people.happens(theirs.identify(user_id="u1", traits={"city": MARKER}))
    ours = facts.identify(user_id="u1", traits={"city": MARKER})

    await people.happens(ours, erased(facts, ("user_id", "u1"), until=ours))

    kept = await people.profile("user_id:u1", workspace="theirs")
    assert kept.traits["city"].value == f'"{MARKER}"'


async def test_a_cut_that_is_erased_keeps_nobody_apart(people, facts):
    pair = ("user_id", "u1"), ("anonymous_id", "a1")
    cut = facts.cut(*pair)
    await people.happens(cut, erased(facts, ("user_id", "u1"), until=cut))

    await people.happens(facts.track(user_id="u1", anonymous_id="a1"))

    assert await people.identifiers("user_id:u1") == {"user_id:u1", "anonymous_id:a1"}


async def test_what_people_said_is_gone_up_to_the_last_word_and_stays_from_then_on(people, facts):
    known = ("user_id", "u1")
    async with people.pool.acquire() as connection:
        await have_purposes(connection, [created(facts)])
    last = consented(facts, ConsentDenied, known)
    await people.happens(last, consented(facts, ConsentGranted, known))

    await people.happens(erased(facts, known, until=last))

    rows = await people.pool.fetch("select status from profiles.consent_words")
    assert [row["status"] for row in rows] == [Status.GRANTED]


async def test_a_record_that_went_as_a_whole_says_nothing(people, facts):
    await people.happens(
        facts.contact_created("c1", given_name=MARKER, email=EMAIL),
        facts.track(anonymous_id="a1", properties={"email": EMAIL}),
    )

    await people.happens(contact_erased(facts, "c1"))

    assert await people.identifiers("anonymous_id:a1") == {"anonymous_id:a1", f"email:{EMAIL}"}
    assert await people.traits("anonymous_id:a1") == {}


async def test_a_deal_goes_on_without_its_erased_contact(people, facts):
    contacts = facts.contact_created("c1"), facts.contact_created("c2")
    opened = facts.deal_opened("d1", "c1")
    await people.happens(*contacts, opened)

    await people.happens(
        erased(facts, ("contact_id", "c1"), until=opened),
        facts.deal_moved("d1", "s"),
        facts.deal_contacts_changed("d1", "c2"),
    )

    with pytest.raises(NotFound):
        await people.profile("contact_id:c1")
    assert await people.activities("contact_id:c2") == ["Deal Contacts Changed", "Contact Created"]
    assert (await people.traits("contact_id:c2"))["deal_stages"] == '["s"]'


async def test_a_deal_that_went_to_an_erased_contact_leaves_the_other_though_that_comes_late(
    people, facts
):
    await people.happens(facts.contact_created("c1"), facts.deal_opened("d1", "c1"))
    late = facts.deal_contacts_changed("d1", "c2")
    await people.happens(erased(facts, ("contact_id", "c2"), until=late))

    told = await people.happens(late)

    assert (await people.traits("contact_id:c1"))["open_deal_count"] == "0"
    assert [event.DESCRIPTOR.name for event in told] == ["ProfileTraitsChanged"]


@pytest.mark.parametrize("contact", [f"erased-{'0af' * 10}12", ERASED])
async def test_who_is_named_instead_of_an_erased_contact_is_nobody(people, facts, contact):
    await people.happens(facts.deal_opened("d1", contact), facts.deal_moved("d1"))

    assert not (await people.listed()).profiles
    rows = await people.pool.fetch("select node from profiles.deal_words")
    assert {row["node"] for row in rows} == {""}


async def test_what_its_own_log_has_erased_is_gone_whomever_it_names(people, facts):
    named_deep = facts.track(user_id="u1", properties={"of": {"friend": EMAIL}})
    kept = facts.track("Order Completed", user_id="u1")
    await people.happens(named_deep, kept)

    await people.happens(events_erased(facts, named_deep))

    assert await people.activities("user_id:u1") == ["Order Completed"]
    assert await tables_with(people, MARKER) == []


async def test_what_its_own_log_has_erased_is_gone_though_nobody_said_it(people, facts):
    kept = facts.sent("account", group_id="g", traits={"size": 7})
    named_deep = facts.sent("account", group_id="g", traits={"size": 8, "contact": EMAIL})
    at_once = facts.sent("account", group_id="h", traits={"contact": EMAIL})
    await people.happens(kept, named_deep)

    told = await people.happens(events_erased(facts, named_deep))

    account = await people.account("group_id:g")
    assert {name: said.value for name, said in account.traits.items()} == {"size": "7"}
    assert await tables_with(people, MARKER) == []
    assert [{said.trait: said.value for said in event.changes} for event in told] == [
        {"contact": "", "size": "7"}
    ]
    assert await people.happens_at_once(at_once, events_erased(facts, at_once)) == []
    assert await people.accounts() == {"g"}


async def test_what_was_read_ahead_is_not_remembered_of_an_event_that_says_less_by_now(
    people, facts
):
    """A worker lost its lease to an erasure behind what it had read, and reads that again."""
    view = view_of(DEFAULT)
    named = facts.track(MARKER, user_id=MARKER)
    left = named._replace(event=facts.track(user_id="u1").event)
    async with transaction(people.pool) as tx:
        await view.apply(tx, "profiles", [facts.track(user_id="u1")])
    view.read_ahead([named])

    async with transaction(people.pool) as tx:
        await view.apply(tx, "profiles", [left])

    assert await people.activities("user_id:u1") == ["Product Viewed"] * 2
    assert await tables_with(people, MARKER) == []
