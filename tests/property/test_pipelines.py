"""Laws of pipelines, whatever is asked of them in whatever order."""

from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

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
from rapport.deals.v1.values_pb2 import ForecastCategory, PipelineStage, StageKind, StageSettings
from services.deals.deciders.pipeline import DECIDER, STAGES_MAX, Others, decider_with
from services.deals.pipeline import STARTING, STARTING_ID, stage_of, told
from services.kernel.errors import RapportError

KINDS = {1, 2, 3}

names = st.sampled_from(["", " ", "a", "b "])
stage_ids = st.sampled_from("abcde")
orders = st.permutations("abcde").flatmap(
    lambda order: st.integers(3, 5).map(lambda many: order[:many])
)
stage_settings = st.builds(
    StageSettings,
    display_name=st.sampled_from(["a", "b", " "]),
    kind=st.sampled_from(StageKind.values()),
    probability_bp=st.sampled_from([0, 1, 10_000]),
    forecast_category=st.sampled_from(ForecastCategory.values()),
    rot_after=st.none() | st.builds(Duration, seconds=st.integers(1, 2)),
    required_fields=st.lists(st.just("amount"), max_size=1),
)
stages = st.builds(PipelineStage, stage_id=stage_ids, settings=stage_settings)
good_stages = st.permutations([1, 2, 3, 1]).map(
    lambda kinds: [
        PipelineStage(stage_id=stage_id, settings=StageSettings(display_name="a", kind=kind))
        for stage_id, kind in zip("abcd", kinds, strict=True)
    ]
)


def commands_on(name):
    """Any command on a pipeline or one of its stages."""
    named = stage_ids.map(lambda stage_id: f"{name}/stages/{stage_id}")
    whole = st.just(name)
    return st.one_of(
        st.builds(
            pb.CreatePipelineRequest,
            pipeline_id=st.just(name.partition("/")[2]),
            display_name=names,
            stages=good_stages | st.lists(stages, max_size=4),
        ),
        st.builds(pb.RenamePipelineRequest, name=whole, display_name=names),
        st.builds(pb.ArchivePipelineRequest, name=whole),
        st.builds(pb.RestorePipelineRequest, name=whole),
        st.builds(
            pb.AddStageRequest, name=whole, stage=stages, after_stage_id=st.just("") | stage_ids
        ),
        st.builds(pb.ArrangeStagesRequest, name=whole, stage_ids=orders),
        st.builds(pb.ChangeStageRequest, name=named, settings=stage_settings),
        st.builds(pb.ArchiveStageRequest, name=named),
        st.builds(pb.RestoreStageRequest, name=named),
    )


created = st.builds(
    pb.CreatePipelineRequest,
    pipeline_id=st.just("p"),
    display_name=st.just("P"),
    stages=good_stages,
)
histories = st.one_of(
    st.tuples(created, st.lists(commands_on("pipelines/p"))).map(
        lambda asked: [asked[0], *asked[1]]
    ),
    st.lists(commands_on("pipelines/p")),
    st.lists(commands_on(f"pipelines/{STARTING_ID}")),
)
events = st.one_of(
    st.builds(PipelineCreated, display_name=names, stages=st.lists(stages, max_size=3)),
    st.builds(PipelineRenamed, display_name=names),
    st.builds(PipelineArchived),
    st.builds(PipelineRestored),
    st.builds(StageAdded, stage=stages, after_stage_id=st.just("") | stage_ids),
    st.builds(StageChanged, stage=stages),
    st.builds(StagesArranged, stage_ids=orders),
    st.builds(StageArchived, stage_id=stage_ids),
    st.builds(StageRestored, stage_id=stage_ids),
)
decider = decider_with(Others(pipelines=2, active=2))


@given(st.lists(events), st.lists(events))
def test_a_fold_may_be_interrupted_anywhere_and_leads_to_a_state(first, then):
    assert DECIDER.fold(first + then) == DECIDER.fold(then, DECIDER.fold(first))


@given(histories)
def test_replaying_what_was_recorded_leads_to_what_was_decided_on(asked):
    states, history = walk(asked)

    assert states[-1] == DECIDER.fold(history)


@given(histories)
def test_there_is_always_a_stage_of_each_kind_in_use(asked):
    for state in walk(asked)[0]:
        used = {stage.kind for stage in state.stages if not stage.is_archived}
        ids = [stage.stage_id for stage in state.stages]
        assert not state.exists or used == KINDS
        assert len(ids) == len(set(ids)) <= STAGES_MAX


@given(histories)
def test_a_stage_is_never_gone_and_keeps_its_kind(asked):
    kinds = {}
    for state in walk(asked)[0]:
        found = {stage.stage_id: stage.kind for stage in state.stages}
        assert kinds == {stage_id: found.get(stage_id) for stage_id in kinds}
        kinds = found


@given(histories, st.data())
def test_what_is_asked_twice_changes_nothing_the_second_time(asked, data):
    name = "pipelines/p" if data.draw(st.booleans()) else f"pipelines/{STARTING_ID}"
    states, _ = walk([*asked, data.draw(commands_on(name))])
    command = data.draw(commands_on(name))

    once = DECIDER.fold(decided(command, states[-1]), states[-1])

    assert once == DECIDER.fold(decided(command, once), once)


@given(stages)
def test_a_stage_told_as_a_fact_is_the_same_stage(said):
    stage = stage_of(said)

    assert stage == stage_of(told(stage))


@given(st.lists(commands_on(f"pipelines/{STARTING_ID}"), min_size=1))
def test_what_a_workspace_begins_with_is_the_first_fact_of_its_stream(asked):
    _, history = walk(asked)

    assert not history or STARTING == DECIDER.fold(history[:1])


def walk(asked):
    """The states that commands lead through, and all that was recorded."""
    states, history = [DECIDER.initial], []
    for command in asked:
        recorded = decided(command, states[-1])
        states.append(DECIDER.fold(recorded, states[-1]))
        history += recorded
    return states, history


def decided(command, state):
    """The events of a command, none if it is refused."""
    try:
        return list(decider.decide(command, state))
    except RapportError:
        return []
