"""The worked examples of other platforms' documentation: their answer, and ours in any order."""

import random
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from services.identity.graph import Edge, cuts_of, hubs_of, resolve
from services.identity.projections.explanations import violation_of
from services.identity.projections.islands import seen_together
from services.identity.rules import DEFAULT, Rules
from tests.identity_reference import facts_of, flags_of, verdicts_of
from tests.identity_world import Facts

TWO_PER_WEEK = replace(
    DEFAULT,
    types=tuple(
        replace(known, limit=2, window=timedelta(days=7)) if known.name == "phone" else known
        for known in DEFAULT.types
    ),
)
DAY = 24 * 60


@dataclass(frozen=True)
class Example:
    """What happened, what another platform makes of it, and who is one person here.

    A refused pair is named with what that is called in the field.
    """

    name: str
    theirs: str
    happens: Any
    ours: tuple[set[str], ...]
    refused: dict[tuple[str, str], str] = field(default_factory=dict)
    rules: Rules = DEFAULT


def seen(facts, **ids):
    """Somebody is identified by an e-mail address, or does something."""
    email = ids.pop("email", None)
    received = {"received": ids.pop("received")} if "received" in ids else {}
    if email:
        return facts.identify(traits={"email": email}, **ids, **received)
    return facts.track(**ids, **received)


def phones(facts, *days):
    return [
        facts.identify(user_id="u", traits={"phone": f"+49 30 555000{n}"}, received=day * DAY)
        for n, day in enumerate(days)
    ]


EXAMPLES = (
    Example(
        "two users with one e-mail address",
        "Segment Unify: the address is demoted from the second event, whoever came second; "
        "PostHog: the merge is refused and nobody is told",
        lambda f: [
            seen(f, user_id="abc123", email="jane@x.com"),
            seen(f, user_id="abc456", email="jane@x.com"),
        ],
        ({"user_id:abc123", "email:jane@x.com"}, {"user_id:abc456"}),
        {("email:jane@x.com", "user_id:abc456"): "Identifier value limit exceeded"},
    ),
    Example(
        "an anonymous visitor logs in",
        "All: the anonymous profile becomes the user's",
        lambda f: [seen(f, anonymous_id="a"), seen(f, anonymous_id="a", user_id="u")],
        ({"anonymous_id:a", "user_id:u"},),
    ),
    Example(
        "one event names two visitors that were apart",
        "Segment Unify: the newer profile is merged into the older one, for good",
        lambda f: [
            seen(f, anonymous_id="a", email="jane@x.com"),
            seen(f, anonymous_id="b"),
            seen(f, anonymous_id="b", email="jane@x.com"),
        ],
        ({"anonymous_id:a", "anonymous_id:b", "email:jane@x.com"},),
    ),
    Example(
        "a second user logs in on a browser",
        "Adobe: the newest login has it; Snowplow: whoever used it last; PostHog: refused",
        lambda f: [seen(f, anonymous_id="a", user_id=user) for user in ("u1", "u2")],
        ({"anonymous_id:a", "user_id:u1"}, {"user_id:u2"}),
        {("anonymous_id:a", "user_id:u2"): "Identifier value limit exceeded"},
    ),
    Example(
        "a tablet at a counter",
        "Segment, PostHog: one blob until a limit bites; Snowplow: a third, anonymous id",
        lambda f: [
            seen(f, anonymous_id="a"),
            *(seen(f, anonymous_id="a", user_id=user) for user in ("u1", "u2", "u3")),
        ],
        ({"anonymous_id:a"}, {"user_id:u1"}, {"user_id:u2"}, {"user_id:u3"}),
        {("anonymous_id:a", "user_id:u1"): ""},
    ),
    Example(
        "an alias of two users",
        "Segment Unify: alias does not merge; PostHog: it does, and cannot be undone",
        lambda f: [
            seen(f, user_id="old"),
            seen(f, user_id="new"),
            f.alias(user_id="new", previous_id="old"),
        ],
        ({"user_id:old", "user_id:new", "anonymous_id:old"},),
    ),
    Example(
        "a wrong merge is undone",
        "Segment, PostHog: cannot be undone, or for what comes after only",
        lambda f: [
            seen(f, anonymous_id="a"),
            seen(f, anonymous_id="a", user_id="u"),
            f.cut(("anonymous_id", "a"), ("user_id", "u")),
        ],
        ({"anonymous_id:a"}, {"user_id:u"}),
    ),
    Example(
        "parts that were split are joined once more",
        "Segment: a split is not undone retroactively, records are deleted by hand",
        lambda f: [
            seen(f, anonymous_id="a", user_id="u"),
            f.cut(("anonymous_id", "a"), ("user_id", "u")),
            f.linked(("anonymous_id", "a"), ("user_id", "u")),
        ],
        ({"anonymous_id:a", "user_id:u"},),
    ),
    Example(
        "what sources send when they have nothing to send",
        "Segment Unify: ID value blocked, exact or by pattern; others: one profile of everybody",
        lambda f: [
            seen(f, anonymous_id="null", user_id="u1"),
            seen(f, anonymous_id="null", user_id="u2"),
        ],
        ({"user_id:u1"}, {"user_id:u2"}),
    ),
    Example(
        "an identifier that people block",
        "Segment Unify: ID value blocked, for new data only",
        lambda f: [
            seen(f, anonymous_id="a", user_id="u"),
            f.blocked(("anonymous_id", "a")),
        ],
        ({"user_id:u"},),
        {("anonymous_id:a", "user_id:u"): "ID value blocked"},
    ),
    Example(
        "more addresses than a person may have",
        "Segment Unify: five per profile, the sixth is demoted",
        lambda f: [seen(f, user_id="u", email=f"{n}@x.com") for n in range(6)],
        ({"user_id:u", *(f"email:{n}@x.com" for n in range(5))},),
        {("email:5@x.com", "user_id:u"): "Identifier value limit exceeded"},
    ),
    Example(
        "three phone numbers within a week, of which two are allowed",
        "Segment Unify: Identifier time limit exceeded, counted as they arrive",
        lambda f: phones(f, 0, 2, 4),
        ({"user_id:u", "phone:+49305550000", "phone:+49305550001"},),
        {("phone:+49305550002", "user_id:u"): "Identifier time limit exceeded"},
        TWO_PER_WEEK,
    ),
    Example(
        "the third phone number comes later than that",
        "Segment Unify: fits, if it arrives later",
        lambda f: phones(f, 0, 2, 8),
        ({"user_id:u", *(f"phone:+4930555000{n}" for n in range(3))},),
        {},
        TWO_PER_WEEK,
    ),
    Example(
        "a profile has as many identifiers as it may have",
        "Segment Unify: 1 000 mappings; more are silently not added",
        lambda f: [seen(f, user_id="u", anonymous_id=f"a{n}") for n in range(3)],
        ({"user_id:u", "anonymous_id:a0", "anonymous_id:a1"},),
        {("anonymous_id:a2", "user_id:u"): "Identifier mapping limit exceeded"},
        replace(DEFAULT, nodes_max=3),
    ),
    Example(
        "two profiles that together are too large",
        "Segment Unify: 100 merges; PostHog: dropped after five races",
        lambda f: [
            seen(f, user_id="u", anonymous_id="a"),
            f.identify(traits={"email": "jane@x.com", "phone": "+49 30 5550000"}),
            seen(f, anonymous_id="a", email="jane@x.com"),
        ],
        ({"user_id:u", "anonymous_id:a"}, {"email:jane@x.com", "phone:+49305550000"}),
        {("anonymous_id:a", "email:jane@x.com"): "Profile merge limit exceeded"},
        replace(DEFAULT, nodes_max=3),
    ),
)


@pytest.mark.parametrize("order", [0, 1, 2], ids=lambda order: f"order {order}")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_who_is_one_person_is_the_same_in_any_order(example, order):
    events = example.happens(Facts())
    random.Random(order).shuffle(events)

    profiles, refused = resolved(example.rules, events)

    assert profiles == {frozenset(one) for one in example.ours}
    assert {pair: refused[pair] for pair in example.refused} == example.refused


def resolved(rules, events):
    """Each profile by what leads to it, and what was refused, with its name in the field."""
    facts = facts_of(events, rules)
    identifiers, edges = seen_together(facts)
    names = {node: f"{known.type}:{known.value}" for (_, node), known in identifiers.items()}
    types = {node: known.type for (_, node), known in identifiers.items()}
    verdicts = verdicts_of(events).get("acme", {})
    links = [(pair, key) for pair, (kind, key) in verdicts.items() if kind == 1]
    flags = {node: kind == 1 for (_, node), kind in flags_of(events).items() if kind}
    hubs = hubs_of(rules, types, edges.values(), flags)
    first = {
        known.node: min(fact.key for fact in facts if known in fact.identifiers)
        for known in identifiers.values()
    }
    found = resolve(
        rules,
        types,
        edges.values(),
        cuts_of(pair for pair, (kind, _) in verdicts.items() if kind == 2),
        asked=edges.keys(),
        links=[Edge(*pair, key, is_link=True) for pair, key in links],
        hubs=hubs,
        first=first,
    )
    atoms = {fact.atom for fact in facts}
    profiles = {
        frozenset(names[node] for node in cluster)
        for cluster in found.clusters
        if not atoms.isdisjoint(cluster)
    }
    refused = {
        (names[weak], names[strong]): violation_of(
            refusal, is_blocked=any(flags.get(node, False) for node in refusal.nodes)
        )
        for (weak, strong), refusal in found.refusals.items()
    }
    return profiles, refused
