"""What profiles must be, said a second time: slowly, from all the facts at once.

It shares with the service how a single event is read, and nothing of how facts come together.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field, fields
from functools import reduce
from itertools import combinations
from operator import or_

from rapport.deals.v1.events_pb2 import (
    DealContactsChanged,
    DealDeleted,
    DealLost,
    DealOpened,
    DealReopened,
    DealStageChanged,
    DealUndeleted,
    DealWon,
)
from rapport.events.v1.events_pb2 import CustomerEventRetracted
from rapport.identity.v1.events_pb2 import (
    IdentifierAllowed,
    IdentifierBlocked,
    IdentifierFlagCleared,
    IdentifiersCut,
    IdentifiersLinked,
    VerdictCleared,
)
from services.identity.facts import key_of, read_fact, received_at
from services.identity.identifiers import node_of
from services.identity.rules import DEFAULT
from tests.erasures_reference import erased_in, is_erased, is_nobody


@dataclass
class Expected:
    """The profiles of one or more workspaces."""

    profile_of: dict = field(default_factory=dict)  # node -> profile or None
    atoms: dict = field(default_factory=dict)  # node -> (first key, count, last time)
    traits: dict = field(default_factory=dict)  # profile -> {name: value}
    wholes: dict = field(default_factory=dict)  # profile -> (create, last activity, activities)
    rejected: set = field(default_factory=set)
    values: dict = field(default_factory=dict)  # node -> (type, value)
    verdicts: dict = field(default_factory=dict)  # pair -> (kind, is the link rejected)
    hubs: set = field(default_factory=set)
    flags: dict = field(default_factory=dict)  # node -> kind


def together(*those):
    """What follows from the facts of several workspaces, said of each by its own rules."""
    kind = type(those[0])
    return kind(
        **{
            each.name: reduce(or_, (getattr(one, each.name) for one in those))
            for each in fields(kind)
        }
    )


def facts_of(events, rules=DEFAULT):
    """The facts of events, each once, without those that are taken back behind them, or erased."""
    contacts, erased = contacts_of(events), erased_in(events)
    read = {event.event_id: read_fact(rules, event, contacts) for event in still_true(events)}
    return [fact for fact in read.values() if fact is not None and not is_erased(fact, erased)]


def without_erased(events, rules=DEFAULT):
    """The events that are still true, but for those that name somebody, or were, erased."""
    erased = erased_in(events)
    there = [event for event in still_true(events) if event.event_id.bytes not in erased]
    read = [(event, read_fact(rules, event, {})) for event in there]
    return [event for event, fact in read if fact is None or not is_erased(fact, erased)]


def contacts_of(events):
    """The contact id that each fact of a deal is about; None for somebody who was erased."""
    found, erased = {}, erased_in(events)
    for stream in deals_of(events).values():
        contact = ""
        for event in stream:
            told = primary_contact(event.event)
            before = contact
            if told is not None:
                contact = None if is_nobody(event, told, erased) else told
            found[event.event_id] = before if contact == "" else contact
    return found


def deals_of(events):
    """The facts of each deal in their order."""
    found = defaultdict(dict)
    for event in events:
        if event.stream.startswith("deal-"):
            found[event.workspace, event.stream][event.version] = event
    return {deal: [facts[place] for place in sorted(facts)] for deal, facts in found.items()}


def primary_contact(change):
    """The id of the contact that a fact names as a deal's, None when it says nothing of it."""
    match change:
        case DealOpened():
            return change.contact.removeprefix("contacts/")
        case DealContactsChanged():
            named = [each.contact for each in change.contacts] or [""]
            return named[0].removeprefix("contacts/")
    return None


def still_true(events):
    """The events that no later one of their streams retracts."""
    streams = defaultdict(list)
    for event in events:
        if isinstance(event.event, CustomerEventRetracted):
            streams[event.workspace, event.stream].clear()
        else:
            streams[event.workspace, event.stream].append(event)
    return [event for stream in streams.values() for event in stream]


def expected(events, rules=DEFAULT):
    """The profiles that follow from a set of events by some rules."""
    result = Expected()
    by_workspace = defaultdict(list)
    for fact in facts_of(events, rules):
        by_workspace[fact.workspace].append(fact)
    verdicts, flags = verdicts_of(events), flags_of(events)
    for workspace, facts in by_workspace.items():
        held = {
            node: kind == 1 for (place, node), kind in flags.items() if place == workspace and kind
        }
        _resolve_workspace(rules, facts, verdicts.get(workspace, {}), held, result)
    result.flags = {node: kind for (_, node), kind in flags.items()}
    for told in verdicts.values():
        for pair, (kind, _) in told.items():
            result.verdicts.setdefault(pair, (kind, False))
    owned = defaultdict(list)
    for node, deals in _of_deals(events).items():
        owned[result.profile_of[node]] += deals
    for profile, deals in owned.items():
        result.traits[profile] |= _told_of(deals)
    return result


def verdicts_of(events):
    """Per workspace, the last verdict on each pair, with its key."""
    last, erased = defaultdict(dict), erased_in(events)
    kinds = {VerdictCleared: 0, IdentifiersLinked: 1, IdentifiersCut: 2}
    for event in events:
        if type(event.event) in kinds:
            pair = event.event.other.node, event.event.one.node
            told = key_of(event.record_time, event.event_id), kinds[type(event.event)]
            if any(told[0] <= erased.get((event.workspace, node), b"") for node in pair):
                continue
            last[event.workspace][pair] = max(told, last[event.workspace].get(pair, told))
    return {
        workspace: {pair: (kind, key) for pair, (key, kind) in told.items()}
        for workspace, told in last.items()
    }


def flags_of(events):
    """The last flag of each identifier, by workspace and node."""
    last, erased = {}, erased_in(events)
    kinds = {IdentifierFlagCleared: 0, IdentifierBlocked: 1, IdentifierAllowed: 2}
    for event in events:
        if type(event.event) in kinds:
            place = event.workspace, event.event.identifier.node
            told = key_of(event.record_time, event.event_id), kinds[type(event.event)]
            if told[0] > erased.get(place, b""):
                last[place] = max(told, last.get(place, told))
    return {place: kind for place, (_, kind) in last.items()}


def _of_deals(events):
    """The deals of each contact that ever had one, by its node."""
    made, erased = {}, erased_in(events)
    for (workspace, _), stream in deals_of(events).items():
        told = [
            "" if is_nobody(event, contact, erased) else contact
            for event in stream
            if (contact := primary_contact(event.event)) is not None
        ]
        for contact in filter(None, told):
            made.setdefault(node_of(workspace, "contact_id", contact), [])
        deal = _deal_at_last(stream)
        if told and told[-1] and not deal["is_deleted"]:
            made[node_of(workspace, "contact_id", told[-1])].append(deal)
    return made


def _deal_at_last(stream):
    deal = {"state": "open", "stage": "", "is_deleted": False}
    times = [stream[0].occur_time]
    for event in stream:
        change = event.event
        name = change.DESCRIPTOR.name
        if name in {"DealStageChanged", "DealReopened", "DealWon", "DealLost"}:
            times.append(max(times[-1], event.occur_time))
        match change:
            case DealDeleted() | DealUndeleted():
                deal["is_deleted"] = name == "DealDeleted"
            case DealOpened() | DealReopened():
                deal |= {"state": "open", "stage": change.stage}
            case DealStageChanged():
                deal["stage"] = change.stage
            case DealLost():
                deal |= {"state": "lost", "stage": change.closing_stage}
            case DealWon():
                deal |= {"state": "won", "stage": change.closing_stage, "won_time": times[-1]}
                deal |= {"amount": change.amount, "products": set(change.products)}
    return deal


def _told_of(deals):
    states = Counter(deal["state"] for deal in deals)
    made = {f"{state}_deal_count": str(states[state]) for state in ("open", "won", "lost")}
    if stages := sorted({deal["stage"] for deal in deals}):
        made["deal_stages"] = json.dumps(stages, separators=(",", ":"))
    won = [deal for deal in deals if deal["state"] == "won"]
    if won:
        last = max(deal["won_time"] for deal in won)
        made["last_won_time"] = json.dumps(f"{last:%Y-%m-%dT%H:%M:%S.%f}Z")
    if products := sorted(set().union(*(deal["products"] for deal in won))):
        made["products_owned"] = json.dumps(products, separators=(",", ":"))
    for currency in {deal["amount"].currency for deal in won} - {""}:
        amounts = [d["amount"].amount_minor for d in won if d["amount"].currency == currency]
        made[f"lifetime_value_{currency.lower()}_minor"] = str(sum(amounts))
    return made


def _resolve_workspace(rules, facts, verdicts, flags, result):
    keys, links, values, first = _edges(rules, facts)
    result.values |= values
    live = {pair: told for pair, told in verdicts.items() if set(pair) <= values.keys()}
    judged = {pair: key for pair, (kind, key) in live.items() if kind == 1}
    cuts = {frozenset(pair) for pair, (kind, _) in live.items() if kind == 2}
    types = {node: kind for node, (kind, _) in values.items()}
    hubs = reference_hubs(rules, types, keys, flags)
    result.hubs |= hubs & types.keys()
    clusters, rejected, refused_links = reference_resolve(
        rules, types, keys, links, judged, cuts, hubs=hubs, first=first
    )
    result.rejected |= rejected
    for pair, (kind, _) in live.items():
        result.verdicts[pair] = kind, kind == 1 and pair in refused_links
    atoms = defaultdict(list)
    for fact in facts:
        atoms[fact.identifiers[0].node].append(fact)
    for cluster in clusters:
        own = [fact for node in cluster for fact in atoms.get(node, ())]
        birth = min(own, key=lambda fact: fact.key).identifiers[0].node if own else None
        for node in cluster:
            result.profile_of[node] = birth
        if birth is not None:
            result.wholes[birth] = (
                received_at(min(fact.key for fact in own)),
                max(fact.occur_time for fact in own),
                len(own),
            )
            result.traits[birth] = _last_words(own)
    for node, own in atoms.items():
        result.atoms[node] = (
            min(fact.key for fact in own),
            len(own),
            max(fact.occur_time for fact in own),
        )


def _edges(rules, facts):
    """Every pair with its smallest key, those that are links, the live nodes, their first keys."""
    keys, links, values, first = {}, set(), {}, {}
    last = {}
    for fact in facts:
        strong = min(fact.identifiers, key=lambda known: (rules.rank(known.type), known.node))
        for known in fact.identifiers:
            values[known.node] = (known.type, known.value)
            first[known.node] = min(first.get(known.node, fact.key), fact.key)
            if known != strong:
                pair = known.node, strong.node
                keys[pair] = min(keys.get(pair, fact.key), fact.key)
        links |= fact.links
        for slot, target in (fact.asserted or {}).items():
            place = strong.node, slot
            if place not in last or last[place][0] < fact.key:
                last[place] = fact.key, target
    for (record, _), (key, target) in last.items():
        if target is not None:
            values[target.node] = (target.type, target.value)
            first[target.node] = min(first.get(target.node, key), key)
            keys[target.node, record] = key
    return keys, links, values, first


def reference_hubs(rules, types, pairs, flags):
    """The nodes that are shared, by asking each of its stronger neighbours of every type."""
    hubs = set()
    for node, type_name in types.items():
        over = rules.type_of(type_name).hub_over
        around = [
            types[strong]
            for weak, strong in pairs
            if weak == node and rules.rank(types[strong]) < rules.rank(type_name)
        ]
        is_crowded = over is not None and any(count > over for count in Counter(around).values())
        if flags.get(node, is_crowded):
            hubs.add(node)
    return hubs


def reference_resolve(rules, types, keys, links, judged=(), cuts=(), *, hubs=(), first=()):
    """Clusters, rejected pairs and refused links, by asking whether each union is valid as a whole.

    `judged` are the keys of the links that people made, `cuts` the pairs that they keep apart.
    """
    cluster_of = {node: frozenset([node]) for node in types}
    joined_links, rejected, refused = [], set(), set()
    aside = {pair for pair in keys if set(pair) & set(hubs)}
    ways = [(pair, key, pair in links, False) for pair, key in keys.items() if pair not in aside]
    ways += [(pair, key, True, True) for pair, key in dict(judged).items()]

    def place(way):
        pair, key, is_link, _ = way
        if is_link:
            return (0, key, pair)
        return (1, *(rules.rank(types[node]) for node in pair), key, pair)

    for pair, _, is_link, is_judged in sorted(ways, key=place):
        one, other = (cluster_of[node] for node in pair)
        union = one | other
        world = types, joined_links, cuts, dict(first)
        if one != other and not _is_valid(rules, union, *world, is_link=is_link):
            (refused if is_judged else rejected).add(pair)
            continue
        if is_link:
            joined_links.append(pair)
        for node in union:
            cluster_of[node] = union
    clusters = set(cluster_of.values())
    assert all(not (one & other) for one, other in combinations(clusters, 2))
    return clusters, rejected | aside, refused


def _is_valid(rules, nodes, types, links, cuts, first, *, is_link):
    if len(nodes) > rules.nodes_max or any(cut <= nodes for cut in cuts):
        return False
    units = _units(nodes, links)
    for name in {types[node] for node in nodes}:
        known = rules.type_of(name)
        of_type = [
            {node for node in unit if types[node] == name}
            for unit in units
            if any(types[node] == name for node in unit)
        ]
        if known.limit is not None and _most_at_once(known, of_type, first) > known.limit:
            return is_link
    return True


def _most_at_once(known, units, first):
    """The most units of which something is first seen within any span that the rules say."""
    if known.window is None:
        return len(units)
    times = [{received_at(first[node]) for node in unit} for unit in units]
    return max(
        sum(any(start <= time <= start + known.window for time in seen) for seen in times)
        for start in set().union(*times)
    )


def _units(nodes, links):
    """The nodes in groups that links hold together."""
    groups = [{node} for node in nodes]
    for pair in links:
        touching = [group for group in groups if not group.isdisjoint(pair)]
        if len(touching) > 1:
            groups = [g for g in groups if g not in touching] + [set().union(*touching)]
    return groups


def _last_words(facts):
    """The traits of facts taken together."""
    words = {}
    for fact in facts:
        for name, value in fact.traits:
            order = fact.occur_time, fact.key
            if name not in words or words[name][0] < order:
                words[name] = order, value
    return {name: value for name, (_, value) in words.items() if value is not None}
