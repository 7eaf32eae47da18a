"""What older releases told of erasures is heard today as it was meant then.

Such a file is written once, by the release it is named for, and never edited.
"""

import json
from pathlib import Path

from google.protobuf.json_format import ParseDict

from rapport.common.v1.envelope_pb2 import Envelope
from rapport.identity.v1 import events_pb2 as pb
from services.kernel.log.recorded import parts_behind
from services.segments.__main__ import SERVICE as SEGMENTS

PATH = Path(__file__).parent / "histories" / "identity" / "streams" / "0.1-tellings.json"
TOLD = [
    pb.ProfileErased(profile="profiles/0a", erasure="erasures/e1", identifier_count=2),
    pb.AccountErased(account="accounts/0b", erasure="erasures/e1", identifier_count=2),
    pb.TellingErased(erasure="erasures/e1", identifier_count=2),
]


def test_what_was_told_of_an_erasure_says_today_what_it_said():
    [consumer] = SEGMENTS.consumers
    written = json.loads(PATH.read_text(encoding="utf-8"))

    events = [consumer.event_types.decode(ParseDict(each, Envelope())) for each in written]

    assert [event.event for event in events] == TOLD
    assert list(parts_behind(pb.ProfileErased, events)) == [(events[:1], events[1:])]
