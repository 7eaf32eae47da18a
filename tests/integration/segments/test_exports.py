"""What segments hold about a person is told: memberships, past ones too, and the facts behind."""

from rapport.common.v1.subjects_pb2 import ExportSubjectRequest, SubjectIdentifier
from rapport.common.v1.subjects_pb2_grpc import SubjectsServiceStub
from rapport.segments.v1.rule_pb2 import Rule
from rapport.segments.v1.service_pb2 import CreateSegmentRequest
from services.kernel.testing import eventually
from tests.segments_world import DAY, START, activity


async def exported(platform, *profiles, workspace="acme"):
    """What is told of profiles: the system and the kind of each record."""
    known = [SubjectIdentifier(type="profile", value=profile) for profile in profiles]
    stub = platform.asked.stub(SubjectsServiceStub, workspace=workspace)
    answers = stub.ExportSubject(ExportSubjectRequest(identifiers=known))
    return [record async for answer in answers for record in answer.records]


async def test_what_is_held_about_a_profile_is_told_and_of_no_other(platform):
    rule = Rule(conditions=[activity()])
    request = CreateSegmentRequest(segment_id="buyers", display_name="Buyers", rule=rule)
    await platform.segments().CreateSegment(request)
    told = platform.people
    token = await platform.tell(
        *told.did("a", "Order", START),
        *told.became("of-a", START, plan="gold"),
        *told.did("b", "Order", START),
    )
    assert ["of-a", "of-b"] == sorted(await platform.members("segments/buyers", token))

    records = await exported(platform, "of-a")

    assert {"profiles/of-a"} == {record.resource for record in records}
    assert not any("of-b" in record.content for record in records)
    assert {
        ("members", "Membership"),
        ("facts", "Trait"),
        ("facts", "Activity"),
        ("agenda", "Reminder"),
        ("log", "ProfileEnteredSegment"),
    } == {(record.system, record.kind) for record in records}
    assert not await exported(platform, "of-a", workspace="other")

    platform.set_time(START + 7 * DAY)

    async def gone():
        kinds = [record.kind for record in await exported(platform, "of-a")]
        assert "Membership" not in kinds
        assert "ProfileExitedSegment" in kinds

    await eventually(gone)
