"""What the own log says of profiles, for those who watch them."""

from types import SimpleNamespace

from rapport.identity.v1.events_pb2 import (
    IdentifiersLinked,
    ProfileActivityRecorded,
    ProfileActivityRetracted,
    ProfilesMerged,
    ProfileSplit,
    ProfileTraitsChanged,
)
from services.identity.news import News


def heard(*facts):
    return News.of(SimpleNamespace(event=fact) for fact in facts)


def test_every_profile_that_a_fact_names_is_touched():
    news = heard(
        ProfileTraitsChanged(profile="profiles/1"),
        ProfilesMerged(survivor="profiles/2", absorbed="profiles/3"),
        ProfileSplit(profile="profiles/4", split_off="profiles/5"),
    )

    assert news.touched == {f"profiles/{n}" for n in range(1, 6)}
    assert news.regrouped == {f"profiles/{n}" for n in range(2, 6)}


def test_what_was_done_and_taken_back_is_kept_in_order():
    facts = [ProfileActivityRecorded(profile="profiles/1", activity_id=f"{n}") for n in (2, 1)]
    taken = ProfileActivityRetracted(profile="profiles/2", activity_id="3")

    news = heard(facts[0], taken, facts[1])

    assert news.recorded == facts
    assert news.retracted == [taken]
    assert news.touched == {"profiles/1", "profiles/2"}


def test_a_verdict_touches_nobody_until_profiles_follow_it():
    assert not heard(IdentifiersLinked()).touched
