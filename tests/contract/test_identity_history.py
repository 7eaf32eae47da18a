"""Facts that older releases recorded lead today to the profiles, and tell the facts, of then.

`histories/identity/*.json` hold facts of contacts, deals and events, and verdicts, as their logs
do, with the profiles and the facts of identity they led to. Such a file is written once, by the
release it is named for, and never edited: profiles that exist out there carry these ids.
"""

import json
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from rapport.common.v1.envelope_pb2 import Envelope
from rapport.identity.v1.events_pb2 import ErasureCreated, PurposeArchived, PurposeCreated
from rapport.identity.v1.service_pb2 import ListProfilesRequest
from services.identity.__main__ import SERVICE
from services.identity.consents import FACTS as CONSENTS
from services.identity.flags import FACTS as FLAGS
from services.identity.projections import list_profiles
from services.identity.projections.purposes import PurposesView
from services.identity.traits import is_computed
from services.identity.verdicts import FACTS as VERDICTS
from services.kernel.process.runtime import open_pool
from tests.consents_world import have_purposes
from tests.identity_world import apply, create

HISTORIES = sorted((Path(__file__).parent / "histories" / "identity").glob("*.json"))

# Facts, and fields of facts, that the oldest of these releases did not tell.
TOLD_SINCE = {
    *("rapport.identity.v1.ProfileIdentifiersChanged", "rapport.identity.v1.ProfileRecounted"),
    *("kind", "resource", "source", "receiveTime", "createTime", "account"),
    *("rapport.identity.v1.AccountTraitsChanged", "rapport.identity.v1.ProfileMembershipsChanged"),
}


async def led_to(database, envelopes):
    """What today's code makes of facts, one by one."""
    consumer = SERVICE.consumers[0]
    told = []
    async with open_pool(database) as pool:
        async with pool.acquire() as connection:
            await create(connection, "profiles")
            await have_purposes(connection, [])
            for envelope in envelopes:
                event = consumer.event_types.decode(ParseDict(envelope, Envelope()))
                await PurposesView().apply(connection, "purposes", [event])
                for change in await apply(connection, [event]):
                    name = change.event.DESCRIPTOR.full_name
                    told.append({"type": name, **MessageToDict(change.event)})
        page = await list_profiles(pool, "acme", ListProfilesRequest())
    return {"told": told, "profiles": [MessageToDict(profile) for profile in page.profiles]}


def as_far_as_then(found, history):
    """What is found, without what is told or computed today and was not by that release."""
    spoken = {
        change["trait"]
        for fact in history["told"]
        for change in fact.get("changes", ())
        if "trait" in change
    }
    said = {word for fact in history["told"] for word in (*fact, fact["type"])}
    told = []
    for later in found["told"]:
        if later["type"] in TOLD_SINCE - said:
            continue
        fact = {field: value for field, value in later.items() if field not in TOLD_SINCE - said}
        if fact["type"].endswith("ProfileTraitsChanged"):
            changes = [c for c in fact["changes"] if is_known(c["trait"], spoken)]
            if changes:
                told.append({**fact, "changes": changes})
        else:
            told.append(fact)
    profiles = []
    # A later release shows more of a profile beside what it showed.
    of_a_profile = {shown for profile in history["profiles"] for shown in profile}
    of_a_trait = {
        shown
        for profile in history["profiles"]
        for said in profile.get("traits", {}).values()
        for shown in said
    }
    for profile in found["profiles"]:
        traits = profile.get("traits", {})
        kept = {
            name: {shown: said[shown] for shown in said if shown in of_a_trait}
            for name, said in traits.items()
            if is_known(name, spoken)
        }
        others = {
            name: profile[name] for name in profile if name != "traits" and name in of_a_profile
        }
        profiles.append({**others, "traits": kept} if kept else others)
    return {"told": told, "profiles": profiles}


def is_known(trait, spoken):
    """Whether a release could have told a trait: those that it computed it spoke of."""
    return trait in spoken or not is_computed(trait)


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_old_facts_lead_to_the_profiles_they_led_to(database, path):
    history = json.loads(path.read_text(encoding="utf-8"))

    found = as_far_as_then(await led_to(database, history["facts"]), history)

    assert history["profiles"] == found["profiles"]
    assert history["told"] == found["told"]


def test_every_fact_of_ours_is_told_in_some_history():
    told = {
        fact["type"]
        for path in HISTORIES
        for fact in json.loads(path.read_text(encoding="utf-8"))["told"]
    }

    assert told == {
        f"rapport.identity.v1.{name}"
        for name in (
            "ProfileCreated",
            "ProfileActivityRecorded",
            "ProfileActivityRetracted",
            "ProfileConsentChanged",
            "ProfileIdentifiersChanged",
            "ProfileRecounted",
            "ProfileRemoved",
            "ProfileTraitsChanged",
            "ProfilesMerged",
            "ProfileSplit",
            "AccountTraitsChanged",
            "ProfileMembershipsChanged",
        )
    }


def test_every_verdict_flag_word_on_consent_and_erasure_is_heard_in_some_history():
    heard = {
        fact["type"]
        for path in HISTORIES
        for fact in json.loads(path.read_text(encoding="utf-8"))["facts"]
        if fact["type"].startswith("rapport.identity.v1.")
    }

    people = (*VERDICTS.values(), *FLAGS.values(), *CONSENTS, PurposeCreated, PurposeArchived)
    known = (*people, ErasureCreated)
    assert heard == {fact.DESCRIPTOR.full_name for fact in known}
