"""What commands answer of pipelines is what reads answer, now and as of every moment since."""

import random
import uuid
from datetime import UTC

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from rapport.deals.v1 import pipelines_pb2 as pb
from rapport.deals.v1.pipelines_pb2_grpc import PipelinesServiceStub
from rapport.deals.v1.values_pb2 import (
    STAGE_KIND_LOST,
    STAGE_KIND_OPEN,
    STAGE_KIND_WON,
    PipelineStage,
    StageSettings,
)
from services.deals.pipeline import STARTING
from services.deals.projections.pipelines import (
    PipelinesView,
    load_pipelines,
    stage_columns,
    stages_from,
)
from services.kernel.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    RapportError,
)
from services.kernel.views.rebuild import Rebuild

SALES = "pipelines/sales"
FAR = Timestamp(seconds=7_258_118_400)
KINDS = {"new": STAGE_KIND_OPEN, "done": STAGE_KIND_WON, "gone": STAGE_KIND_LOST}


def stage(stage_id, kind=STAGE_KIND_OPEN, **more):
    """A stage that is called as its id is."""
    settings = StageSettings(display_name=stage_id, kind=kind, **more)
    return PipelineStage(stage_id=stage_id, settings=settings)


STAGES = [stage(stage_id, kind) for stage_id, kind in KINDS.items()]


class Pipelines:
    """Asks the service."""

    def __init__(self, stub):
        self.stub = stub

    async def create(self, pipeline_id, display_name=""):
        request = pb.CreatePipelineRequest(
            pipeline_id=pipeline_id, display_name=display_name or pipeline_id, stages=STAGES
        )
        return (await self.stub.CreatePipeline(request)).pipeline

    async def do(self, verb, name, **said):
        """Executes a command: `await do("RenamePipeline", SALES, display_name="x")`."""
        request = getattr(pb, f"{verb}Request")(name=name, **said)
        return (await getattr(self.stub, verb)(request)).pipeline

    async def get(self, name, read_time=None):
        request = pb.GetPipelineRequest(name=name, read_time=read_time)
        return (await self.stub.GetPipeline(request)).pipeline

    async def walk(self, read_time=None, **asked):
        """All pages of a list."""
        found, token = [], ""
        while True:
            request = pb.ListPipelinesRequest(page_token=token, read_time=read_time, **asked)
            page = await self.stub.ListPipelines(request)
            assert not asked.get("page_size") or len(page.pipelines) <= asked["page_size"]
            found += page.pipelines
            token = page.next_page_token
            if not token:
                return found


@pytest.fixture
def pipelines(asked):
    """The service as the workspace `acme` sees it."""
    return Pipelines(asked.stub(PipelinesServiceStub))


def named(found):
    return [pipeline.name.partition("/")[2] for pipeline in found]


async def test_a_workspace_begins_with_a_pipeline_that_is_read_before_it_was_changed(
    asked, pipelines
):
    sales = await pipelines.get(SALES)

    assert [sales] == await pipelines.walk(page_size=1)
    assert ("Sales", "", False, False) == (
        sales.display_name,
        sales.etag,
        sales.HasField("create_time"),
        sales.HasField("update_time"),
    )
    assert [f"{SALES}/stages/{each.stage_id}" for each in STARTING.stages] == [
        each.name for each in sales.stages
    ]
    same = await pipelines.do("RenamePipeline", SALES, display_name="Sales", etag='"7"')
    assert same == sales
    assert {"sales": STARTING} == await load_pipelines(asked.kernel.pool, "acme")


async def test_every_change_is_read_as_it_was_answered(pipelines):
    created = await pipelines.create("p")
    assert created == await pipelines.get(created.name)
    new = f"{created.name}/stages/new"
    settings = StageSettings(
        display_name="Newer",
        kind=STAGE_KIND_OPEN,
        probability_bp=1_500,
        rot_after=Duration(seconds=60),
        required_fields=["amount"],
    )
    for verb, name, said in [
        ("RenamePipeline", created.name, {"display_name": "Another"}),
        ("AddStage", created.name, {"stage": stage("next"), "after_stage_id": "new"}),
        ("ChangeStage", new, {"settings": settings}),
        ("ArrangeStages", created.name, {"stage_ids": ["gone", "next", "new", "done"]}),
        ("ArchiveStage", new, {}),
        ("RestoreStage", new, {}),
        ("ArchivePipeline", created.name, {}),
        ("RestorePipeline", created.name, {}),
        ("RenamePipeline", SALES, {"display_name": "Deals"}),
    ]:
        changed = await pipelines.do(verb, name, **said)

        assert changed == await pipelines.get(changed.name)

    listed = {pipeline.name: pipeline for pipeline in await pipelines.walk()}
    assert {SALES: changed, created.name: await pipelines.get(created.name)} == listed
    assert [SALES, created.name] == list(listed)
    assert (False, True, '"2"') == (
        changed.HasField("create_time"),
        changed.HasField("update_time"),
        changed.etag,
    )


async def test_refusals_name_what_they_are_about(pipelines):
    first = await pipelines.create("p")
    await pipelines.do("RenamePipeline", first.name, display_name="Another")
    with pytest.raises(Aborted):
        await pipelines.do("ArchivePipeline", first.name, etag=first.etag)
    for taken in ("p", "sales"):
        with pytest.raises(AlreadyExists) as exists:
            await pipelines.create(taken)
        assert f"pipelines/{taken}" == exists.value.metadata["existing_name"]
    for name in ("pipelines/none", "pipelines/sales/stages/none"):
        verb = "ArchiveStage" if "stages" in name else "ArchivePipeline"
        with pytest.raises(NotFound):
            await pipelines.do(verb, name)
    for odd in ("nonsense", f"{SALES}/stages/new"):
        with pytest.raises(InvalidArgument):
            await pipelines.get(odd)
    for required in ("size", "custom_fields.Size"):
        with pytest.raises(InvalidArgument, match="must be amount"):
            await pipelines.do("AddStage", SALES, stage=stage("x", required_fields=[required]))
    await pipelines.do("ArchivePipeline", SALES)
    with pytest.raises(FailedPrecondition):
        await pipelines.do("ArchivePipeline", first.name)


async def test_a_repeated_request_is_answered_as_it_was_the_first_time(pipelines):
    said = {"display_name": "Deals", "request_id": str(uuid.uuid4())}
    first = await pipelines.do("RenamePipeline", SALES, **said)
    await pipelines.do("RenamePipeline", SALES, display_name="Else")

    assert first == await pipelines.do("RenamePipeline", SALES, **said)
    assert "Else" == (await pipelines.get(SALES)).display_name


async def test_workspaces_are_walled_off(asked, pipelines):
    other = Pipelines(asked.stub(PipelinesServiceStub, workspace="other"))
    await pipelines.create("p")
    changed = await pipelines.do("RenamePipeline", SALES, display_name="Deals")

    assert ["sales"] == named(await other.walk())
    assert "Sales" == (await other.get(SALES)).display_name
    for moment in (None, changed.update_time):
        with pytest.raises(NotFound):
            await other.get("pipelines/p", moment)
    with pytest.raises(NotFound):
        await other.do("ArchivePipeline", "pipelines/p")
    assert {"sales": STARTING} == await load_pipelines(asked.kernel.pool, "other")


@pytest.mark.parametrize("order_by", ["", "create_time desc", "display_name", "update_time desc"])
async def test_the_first_pipeline_has_one_place_in_every_walk_though_it_changes_meanwhile(
    pipelines, order_by
):
    for pipeline_id in "cab":
        await pipelines.create(pipeline_id, f"{pipeline_id} pipeline")
    whole = named(await pipelines.walk(order_by=order_by))
    asked = {"order_by": order_by, "page_size": 1}
    page = await pipelines.stub.ListPipelines(pb.ListPipelinesRequest(**asked))
    await pipelines.do("RenamePipeline", SALES, display_name="zzz")
    found = named(page.pipelines)
    while page.next_page_token:
        request = pb.ListPipelinesRequest(page_token=page.next_page_token, **asked)
        page = await pipelines.stub.ListPipelines(request)
        found += named(page.pipelines)

    assert sorted(["sales", *"abc"]) == sorted(set(found))
    assert whole == list(dict.fromkeys(found)) or order_by in {"display_name", "update_time desc"}
    expected = {
        "": ["sales", *"cab"],
        "create_time desc": [*"bac", "sales"],
        "display_name": ["sales", *"abc"],
        "update_time desc": [*"bac", "sales"],
    }
    assert expected[order_by] == whole


async def test_filters_meet_the_pipeline_a_workspace_begins_with(pipelines):
    await pipelines.do("ArchivePipeline", (await pipelines.create("p")).name)

    async def found(text):
        return named(await pipelines.walk(filter=text))

    assert ["sales"] == await found('state = ACTIVE AND display_name = "Sales"')
    assert ["p"] == await found("state = ARCHIVED")
    assert ["sales"] == await found('create_time < "2000-01-01T00:00:00Z"')
    assert [] == await found("display_name = none")


async def test_get_and_list_as_of_a_moment_say_what_they_said_then(asked, pipelines):
    dice, beginning = random.Random(11), Timestamp(seconds=1)
    lived = {beginning.ToDatetime(tzinfo=UTC): await pipelines.walk()}
    for _ in range(40):
        await any_change(pipelines, dice)
        live = await pipelines.walk()
        lived[max(each.update_time.ToDatetime(tzinfo=UTC) for each in live)] = live
    loaded = await load_pipelines(asked.kernel.pool, "acme")

    assert len(lived) > 15
    for moment, live in lived.items():
        assert live == await pipelines.walk(moment, page_size=2)
        for each in live:
            assert each == await pipelines.get(each.name, moment)
        past = await load_pipelines(asked.kernel.pool, "acme", moment)
        assert [each.display_name for each in live] == [
            past[each].display_name for each in named(live)
        ]
    assert loaded == past
    with pytest.raises(NotFound):
        await pipelines.get("pipelines/a", beginning)


async def test_the_future_is_not_read(pipelines):
    for ask in (pipelines.get(SALES, FAR), pipelines.walk(FAR)):
        with pytest.raises(InvalidArgument, match="future"):
            await ask


async def test_a_rebuilt_view_equals_the_live_one(asked, pipelines):
    dice = random.Random(5)
    for _ in range(30):
        await any_change(pipelines, dice)
    kernel = asked.kernel
    rebuild = Rebuild(kernel.pool, kernel.log, PipelinesView(), kernel.event_types, {})

    async for _ in rebuild.build():
        pass
    comparison = await rebuild.compare()

    assert {"pipelines", "pipelines_versions"} == set(comparison.live)
    assert comparison.live["pipelines_versions"][0] > 10
    assert comparison.equal


async def test_sql_joins_to_the_stages_in_force(asked, pipelines):
    created = await pipelines.create("p")
    await pipelines.do("ArchiveStage", f"{SALES}/stages/proposal")
    pool = asked.kernel.pool
    ask = f"""
        select stage, place, kind, likely_bp, is_archived from {stages_from(2)}
        where pipeline_id = $1 order by place
    """

    async def stages(pipeline_id, moment=None):
        arrays = stage_columns(await load_pipelines(pool, "acme", moment))
        return [tuple(row) for row in await pool.fetch(ask, pipeline_id, *arrays)]

    assert [
        ("pipelines/p/stages/new", 1, STAGE_KIND_OPEN, 0, False),
        ("pipelines/p/stages/done", 2, STAGE_KIND_WON, 10_000, False),
        ("pipelines/p/stages/gone", 3, STAGE_KIND_LOST, 0, False),
    ] == await stages("p")
    then = created.create_time.ToDatetime(tzinfo=UTC)
    assert [(False, True), (False, False)] == [
        tuple(row[-1] for row in await stages("sales", moment))[:2] for moment in (None, then)
    ]
    assert [] == await pool.fetch(ask, "p", *stage_columns({}))


async def any_change(pipelines, dice):
    """Something is asked of some pipeline; None when it was refused."""
    name = dice.choice([SALES, "pipelines/a", "pipelines/b"])
    stage_id = dice.choice(["new", "done", "x", "y", "proposal"])
    named_stage = f"{name}/stages/{stage_id}"
    word = dice.choice(["red", "green", "blue"])
    settings = StageSettings(
        display_name=word, kind=STAGE_KIND_OPEN, probability_bp=dice.randrange(10)
    )
    added = {"stage": stage(stage_id), "after_stage_id": dice.choice(["", "new", "won"])}
    try:
        current = await pipelines.get(name)
    except NotFound:
        return await pipelines.create(name.partition("/")[2], word)
    order = [each.name.rpartition("/")[2] for each in current.stages]
    dice.shuffle(order)
    ways = [
        ("RenamePipeline", name, {"display_name": word}),
        ("AddStage", name, added),
        ("AddStage", name, added),
        ("ChangeStage", named_stage, {"settings": settings}),
        ("ArrangeStages", name, {"stage_ids": order}),
        ("ArchiveStage", named_stage, {}),
        ("RestoreStage", named_stage, {}),
        ("ArchivePipeline", name, {}),
        ("RestorePipeline", name, {}),
    ]
    verb, whose, said = dice.choice(ways)
    try:
        return await pipelines.do(verb, whose, **said)
    except RapportError:
        return None
