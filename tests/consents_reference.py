"""What people consent to, said a second time: slowly, word by word.

It shares with the service how a single event is read, and nothing of how words come together.
"""

from __future__ import annotations

from services.identity.facts import key_of
from services.identity.rules import DEFAULT
from services.kernel.log.recorded import utc
from tests.consents_world import BY_HAND, CREATED, PURPOSES
from tests.erasures_reference import erased_in
from tests.identity_reference import facts_of
from tests.identity_world import at


def sayings(events, rules):
    """All that was ever said: (workspace, atom, nodes, slot, order, {purpose: status})."""
    for fact in facts_of(events, rules):
        if fact.granted is not None:
            heard = {
                name: "GRANTED" if categories <= set(fact.granted) else "DENIED"
                for name, categories in PURPOSES.items()
                if categories and fact.receive_time >= at(CREATED)
            }
            nodes = {known.node for known in fact.identifiers}
            yield fact.workspace, fact.atom, nodes, "", (fact.occur_time, fact.key), heard
    erased = erased_in(events)
    for event in {event.event_id: event for event in events}.values():
        if type(event.event) in BY_HAND:
            said = event.event
            nodes = [known.node for known in said.identifiers]
            order = utc(said.occur_time), key_of(event.record_time, event.event_id)
            if any(order[1] <= erased.get((event.workspace, node), b"") for node in nodes):
                continue
            purpose = said.purpose.removeprefix("purposes/")
            heard = {purpose: BY_HAND[type(said)]}
            yield event.workspace, nodes[0], set(nodes), purpose, order, heard


def strictest(events, profile_of, rules=DEFAULT):
    """The consent of each profile to each purpose, said a second time: slowly, word by word."""
    words = list(sayings(events, rules))
    found = {}
    for profile in set(profile_of.values()) - {None}:
        members = {node for node, of in profile_of.items() if of == profile}
        own = [word for word in words if word[2] & members]
        for purpose in PURPOSES:
            stand = [said for node in members if (said := under(node, own, purpose, members))]
            refusals = [said for said in stand if said[1] != "GRANTED"]
            if stand:
                place = own[0][0], profile, purpose
                found[place] = max(refusals or stand)[1]
    return found


def under(node, words, purpose, members):
    """What stands under a node: (order, status), or None."""
    counting = []
    for atom in {word[1] for word in words}:
        said = []
        for slot in ("", purpose):
            of_slot = [w for w in words if node in w[2] and (w[1], w[3]) == (atom, slot)]
            last = max(of_slot, key=lambda word: word[4], default=None)
            if last is not None and purpose in last[5]:
                said.append((last[4], last[5][purpose]))
        if said and (max(said)[1] != "GRANTED" or atom in members):
            counting.append(max(said))
    return max(counting, default=None)
