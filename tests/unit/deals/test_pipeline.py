"""The rules of a pipeline, one sentence each."""

import pytest
from google.protobuf.duration_pb2 import Duration

from rapport.deals.v1 import pipelines_pb2 as pb
from rapport.deals.v1.events_pb2 import (
    PipelineArchived,
    PipelineCreated,
    PipelineRenamed,
    PipelineRestored,
    StageAdded,
    StageArchived,
    StageChanged,
    StageRestored,
    StagesArranged,
)
from rapport.deals.v1.values_pb2 import (
    FORECAST_CATEGORY_BEST_CASE,
    FORECAST_CATEGORY_CLOSED,
    FORECAST_CATEGORY_OMITTED,
    FORECAST_CATEGORY_PIPELINE,
    STAGE_KIND_LOST,
    STAGE_KIND_OPEN,
    STAGE_KIND_UNSPECIFIED,
    STAGE_KIND_WON,
    PipelineStage,
    StageSettings,
)
from services.deals.deciders.pipeline import (
    DECIDER,
    PIPELINES_MAX,
    STAGES_MAX,
    Others,
    created,
    decider_with,
)
from services.deals.pipeline import STARTING, Pipeline, Stage, settings_of, split_stage, stage_of
from services.kernel.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from services.kernel.testing import Spec

NAME = "pipelines/renewals"
TWO = Others(pipelines=2, active=2)
STAGE_IDS = ["new", "done", "gone"]


def settings(name, kind=STAGE_KIND_OPEN, **more):
    return StageSettings(display_name=name, kind=kind, **more)


def stage(stage_id, kind=STAGE_KIND_OPEN, **more):
    return PipelineStage(stage_id=stage_id, settings=settings(stage_id, kind, **more))


SAID = [
    stage("new", probability_bp=1_000),
    stage("done", STAGE_KIND_WON),
    stage("gone", STAGE_KIND_LOST),
]
CREATE = pb.CreatePipelineRequest(pipeline_id="renewals", display_name="Renewals", stages=SAID)
CREATED = PipelineCreated(
    display_name="Renewals",
    stages=[
        stage("new", probability_bp=1_000, forecast_category=FORECAST_CATEGORY_PIPELINE),
        stage(
            "done",
            STAGE_KIND_WON,
            probability_bp=10_000,
            forecast_category=FORECAST_CATEGORY_CLOSED,
        ),
        stage("gone", STAGE_KIND_LOST, forecast_category=FORECAST_CATEGORY_OMITTED),
    ],
)
ARCHIVE = pb.ArchivePipelineRequest(name=NAME)
NEXT = StageAdded(
    stage=stage("next", forecast_category=FORECAST_CATEGORY_PIPELINE), after_stage_id="new"
)


def pipeline(others=TWO):
    return Spec(decider_with(others))


def renewals(*events):
    return pipeline().given(CREATED, *events)


def add(said, after=""):
    return pb.AddStageRequest(name=NAME, stage=said, after_stage_id=after)


def change(stage_id, said):
    return pb.ChangeStageRequest(name=f"{NAME}/stages/{stage_id}", settings=said)


def ids(state):
    return [stage.stage_id for stage in state.stages]


def fields(refusal):
    return [violation.field for violation in refusal.violations]


def test_a_pipeline_is_created_with_stages_that_say_what_being_in_them_means():
    state = pipeline().when(CREATE).then(CREATED)

    assert state == Pipeline(
        exists=True,
        display_name="Renewals",
        stages=(
            Stage("new", "new", STAGE_KIND_OPEN, 1_000),
            Stage("done", "done", STAGE_KIND_WON),
            Stage("gone", "gone", STAGE_KIND_LOST),
        ),
    )
    assert [1_000, 10_000, 0] == [stage.likely_bp for stage in state.stages]


def test_an_id_is_taken_by_what_was_created_and_by_what_every_workspace_begins_with():
    starting = pb.CreatePipelineRequest(pipeline_id="sales", display_name="Sales", stages=SAID)

    taken = renewals().when(CREATE).then_refused(AlreadyExists)
    begun = pipeline().when(starting).then_refused(AlreadyExists)

    assert (NAME, "pipelines/sales") == (
        taken.metadata["existing_name"],
        begun.metadata["existing_name"],
    )


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("display_name", {"display_name": " "}),
        ("stages", {"stages": SAID[:2]}),
        ("stages", {"stages": SAID[1:]}),
        ("stages", {"stages": [SAID[0], SAID[2]]}),
        ("stages[0].settings.display_name", {"stages": [stage("x\0"), *SAID]}),
        ("stages[0].settings.kind", {"stages": [stage("x", STAGE_KIND_UNSPECIFIED), *SAID]}),
        (
            "stages[3].settings.rot_after",
            {"stages": [*SAID, stage("x", rot_after=Duration(nanos=1))]},
        ),
        (
            "stages[0].settings.forecast_category",
            {"stages": [stage("x", forecast_category=FORECAST_CATEGORY_CLOSED), *SAID]},
        ),
    ],
)
def test_what_is_no_pipeline_is_refused_by_the_name_of_its_field(field, said):
    command = pb.CreatePipelineRequest(**{"display_name": "Renewals", "stages": SAID} | said)

    refused = pipeline().when(command).then_refused(InvalidArgument)

    assert [field] == fields(refused)


def test_the_ids_of_stages_are_unique():
    command = pb.CreatePipelineRequest(display_name="Renewals", stages=[*SAID, SAID[0]])
    both = pipeline().when(command).then_refused(InvalidArgument)

    taken = renewals().when(add(stage("new"))).then_refused(AlreadyExists)

    assert ["stages[0].stage_id", "stages[3].stage_id"] == fields(both)
    assert f"{NAME}/stages/new" == taken.metadata["existing_name"]


def test_a_workspace_has_so_many_pipelines():
    pipeline(Others(pipelines=PIPELINES_MAX - 1)).when(CREATE).then(CREATED)

    refused = pipeline(Others(pipelines=PIPELINES_MAX)).when(CREATE)

    assert "PIPELINES_MAX" == refused.then_refused(ResourceExhausted).metadata["limit"]


def test_a_pipeline_has_so_many_stages():
    many = [stage(f"s{number}") for number in range(STAGES_MAX - 3)]
    full = pb.CreatePipelineRequest(display_name="Renewals", stages=[*SAID, *many])
    state = (
        pipeline()
        .when(full)
        .then(created(Pipeline(display_name="Renewals", stages=tuple(map(stage_of, full.stages)))))
    )
    full.stages.append(stage("more"))

    at_once = pipeline().when(full).then_refused(ResourceExhausted)
    one_by_one = pipeline().given(created(state)).when(add(stage("more")))

    assert "STAGES_MAX" == at_once.metadata["limit"]
    assert "STAGES_MAX" == one_by_one.then_refused(ResourceExhausted).metadata["limit"]


def test_a_pipeline_is_called_something_else_once():
    command = pb.RenamePipelineRequest(name=NAME, display_name=" Again ")
    renamed = PipelineRenamed(display_name="Again", previous_display_name="Renewals")

    assert "Again" == renewals().when(command).then(renamed).display_name
    renewals(renamed).when(command).then()


def test_a_pipeline_without_a_readable_name_is_refused():
    refused = renewals().when(pb.RenamePipelineRequest(name=NAME, display_name="\t"))

    assert ["display_name"] == fields(refused.then_refused(InvalidArgument))


def test_archiving_twice_is_archiving_once_and_so_is_restoring():
    assert renewals().when(ARCHIVE).then(PipelineArchived()).is_archived
    renewals(PipelineArchived()).when(ARCHIVE).then()

    restore = pb.RestorePipelineRequest(name=NAME)
    assert not renewals(PipelineArchived()).when(restore).then(PipelineRestored()).is_archived
    renewals().when(restore).then()


def test_the_last_pipeline_in_use_stays_in_use():
    last = Spec(decider_with(Others(pipelines=2, active=1))).given(CREATED)
    starting = pb.ArchivePipelineRequest(name="pipelines/sales")

    refused = last.when(ARCHIVE).then_refused(FailedPrecondition)
    fresh = pipeline(Others()).when(starting).then_refused(FailedPrecondition)

    assert {"resource": NAME, "state": "LAST"} == refused.metadata
    assert {"resource": "pipelines/sales", "state": "LAST"} == fresh.metadata


def test_a_stage_is_added_where_it_was_put_or_first():
    first = StageAdded(stage=NEXT.stage)

    assert ["new", "next", "done", "gone"] == ids(
        renewals().when(add(stage("next"), "new")).then(NEXT)
    )
    assert ["next", "new", "done", "gone"] == ids(renewals().when(add(stage("next"))).then(first))


def test_a_stage_is_added_after_one_that_is_there_and_with_settings_that_mean_something():
    unknown = renewals().when(add(stage("next"), "none")).then_refused(InvalidArgument)
    unreadable = renewals().when(add(stage(" "))).then_refused(InvalidArgument)

    assert ["after_stage_id"] == fields(unknown)
    assert ["stage.settings.display_name"] == fields(unreadable)


def test_a_stage_is_configured_anew_as_a_whole_once():
    said = settings(
        "Newer",
        probability_bp=3_000,
        forecast_category=FORECAST_CATEGORY_BEST_CASE,
        rot_after=Duration(seconds=86_400),
        required_fields=["amount", "custom_fields.size"],
    )
    changed = StageChanged(stage=PipelineStage(stage_id="new", settings=said))

    state = renewals().when(change("new", said)).then(changed)

    assert state.stages[0] == Stage(
        "new",
        "Newer",
        STAGE_KIND_OPEN,
        3_000,
        FORECAST_CATEGORY_BEST_CASE,
        86_400,
        ("amount", "custom_fields.size"),
    )
    renewals(changed).when(change("new", said)).then()
    renewals(changed).when(change("new", settings_of(state.stages[0]))).then()


def test_a_stage_keeps_its_kind():
    refused = renewals().when(change("new", settings("new", STAGE_KIND_WON)))

    assert ["settings.kind"] == fields(refused.then_refused(InvalidArgument))


def test_what_closes_a_deal_has_neither_odds_nor_time():
    odds = {"probability_bp": 5, "rot_after": Duration(seconds=1)}

    renewals().when(change("done", settings("done", STAGE_KIND_WON, **odds))).then()


def test_settings_of_an_archived_stage_change_and_it_stays_archived():
    archived = renewals(NEXT, StageArchived(stage_id="next"))
    said = settings("next", probability_bp=1, forecast_category=FORECAST_CATEGORY_PIPELINE)
    changed = StageChanged(stage=PipelineStage(stage_id="next", settings=said))

    assert archived.when(change("next", said)).then(changed).stage("next").is_archived


def test_stages_are_arranged_in_any_order_once():
    order = ["gone", "new", "done"]
    arranged = StagesArranged(stage_ids=order)
    command = pb.ArrangeStagesRequest(name=NAME, stage_ids=order)

    assert order == ids(renewals().when(command).then(arranged))
    renewals(arranged).when(command).then()


@pytest.mark.parametrize("order", [["new", "done"], [*STAGE_IDS, "x"], ["new", "new", "gone"]])
def test_an_order_names_each_stage_exactly_once(order):
    refused = renewals().when(pb.ArrangeStagesRequest(name=NAME, stage_ids=order))

    assert ["stage_ids"] == fields(refused.then_refused(InvalidArgument))


def test_a_stage_is_archived_once_and_restored_once():
    archive = pb.ArchiveStageRequest(name=f"{NAME}/stages/next")
    archived = StageArchived(stage_id="next")
    restore = pb.RestoreStageRequest(name=f"{NAME}/stages/next")

    assert renewals(NEXT).when(archive).then(archived).stage("next").is_archived
    renewals(NEXT, archived).when(archive).then()
    restored = renewals(NEXT, archived).when(restore).then(StageRestored(stage_id="next"))
    assert not restored.stage("next").is_archived
    renewals(NEXT).when(restore).then()


@pytest.mark.parametrize("stage_id", STAGE_IDS)
def test_the_last_stage_of_its_kind_stays_in_use(stage_id):
    name = f"{NAME}/stages/{stage_id}"

    refused = renewals().when(pb.ArchiveStageRequest(name=name)).then_refused(FailedPrecondition)

    assert {"resource": name, "state": "LAST"} == refused.metadata


def test_what_is_archived_may_be_changed_all_the_same():
    renewals(PipelineArchived()).when(add(stage("next"), "new")).then(NEXT)


COMMANDS = [
    pb.RenamePipelineRequest(name=NAME, display_name="x"),
    ARCHIVE,
    pb.RestorePipelineRequest(name=NAME),
    add(stage("next")),
    pb.ArrangeStagesRequest(name=NAME, stage_ids=["new"]),
    change("new", settings("new")),
    pb.ArchiveStageRequest(name=f"{NAME}/stages/new"),
    pb.RestoreStageRequest(name=f"{NAME}/stages/new"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.DESCRIPTOR.name)
def test_what_nobody_created_is_not_found(command):
    refused = pipeline().when(command).then_refused(NotFound)

    assert command.name == refused.metadata["resource"]


@pytest.mark.parametrize(
    "command",
    [
        change("none", settings("x")),
        pb.ArchiveStageRequest(name=f"{NAME}/stages/none"),
        pb.RestoreStageRequest(name=f"{NAME}/stages/none"),
    ],
    ids=lambda command: command.DESCRIPTOR.name,
)
def test_a_stage_that_nobody_added_is_not_found(command):
    refused = renewals().when(command).then_refused(NotFound)

    assert command.name == refused.metadata["resource"]


@pytest.mark.parametrize(
    "name", ["nonsense", NAME, f"{NAME}/stages/", "x/a/stages/b", f"{NAME}/y/b"]
)
def test_what_is_no_name_of_a_stage_is_refused(name):
    refused = renewals().when(pb.ArchiveStageRequest(name=name)).then_refused(InvalidArgument)

    assert ["name"] == fields(refused)
    assert split_stage(name) is None


def test_what_a_workspace_begins_with_is_recorded_before_its_first_change():
    command = pb.RenamePipelineRequest(name="pipelines/sales", display_name="Deals")
    renamed = PipelineRenamed(display_name="Deals", previous_display_name="Sales")

    state = pipeline().when(command).then(created(STARTING), renamed)

    assert ("Deals", STARTING.stages) == (state.display_name, state.stages)
    pipeline().given(created(STARTING), renamed).when(command).then()


def test_what_changes_nothing_of_it_is_no_beginning():
    pipeline().when(pb.RenamePipelineRequest(name="pipelines/sales", display_name="Sales")).then()


def test_it_is_the_same_pipeline_before_and_after_it_was_recorded():
    assert STARTING == DECIDER.fold([created(STARTING)])
