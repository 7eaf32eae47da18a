"""The largest page of pipelines that the rules allow can be sent."""

import pytest
from google.protobuf.duration_pb2 import Duration

from rapport.deals.v1 import pipelines_pb2 as pb
from rapport.deals.v1.values_pb2 import (
    FORECAST_CATEGORY_PIPELINE,
    STAGE_KIND_OPEN,
    PipelineStage,
    StageSettings,
)
from services.deals.deciders.pipeline import STAGES_MAX, created
from services.deals.pipeline import Pipeline, stage_of
from services.deals.projections.pipelines import EPOCH, PIPELINES_PER_PAGE_MAX, pipeline_of
from services.kernel.errors import InvalidArgument
from services.kernel.rpc.server import RESPONSE_BYTES_MAX
from services.kernel.rpc.validation import validate
from services.kernel.views.aggregate_rows import AggregateRow

ID = "i" * 63
FIELDS = [f"custom_fields.f{number:062}" for number in range(20)]
EVENT_BYTES_MAX = 1_000_000
"""So much goes into one message of the feed."""


def add(**changes):
    said = {
        "display_name": "\N{GRINNING FACE}" * 100,
        "kind": STAGE_KIND_OPEN,
        "probability_bp": 10_000,
        "forecast_category": FORECAST_CATEGORY_PIPELINE,
        "rot_after": Duration(seconds=315_360_000),
        "required_fields": FIELDS,
    }
    stage = PipelineStage(stage_id=ID, settings=StageSettings(**said | changes))
    return pb.AddStageRequest(name=f"pipelines/{ID}", stage=stage)


def test_a_page_of_the_largest_pipelines_is_a_message_that_can_be_sent():
    largest = add()
    validate(largest)
    state = Pipeline(
        exists=True,
        display_name="\N{GRINNING FACE}" * 100,
        stages=(stage_of(largest.stage),) * STAGES_MAX,
    )
    row = AggregateRow("acme", ID, state, 10**9, 0, 1, 1, EPOCH, EPOCH)
    page = pb.ListPipelinesResponse(pipelines=[pipeline_of(ID, row)] * PIPELINES_PER_PAGE_MAX)

    assert page.ByteSize() < RESPONSE_BYTES_MAX
    assert created(state).ByteSize() < EVENT_BYTES_MAX


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("display_name", {"display_name": "n" * 101}),
        ("probability_bp", {"probability_bp": 10_001}),
        ("probability_bp", {"probability_bp": -1}),
        ("rot_after", {"rot_after": Duration()}),
        ("rot_after", {"rot_after": Duration(seconds=315_360_001)}),
        ("required_fields", {"required_fields": [*FIELDS, "amount"]}),
        ("required_fields", {"required_fields": ["amount", "amount"]}),
        ("required_fields[0]", {"required_fields": ["size"]}),
        ("required_fields[0]", {"required_fields": [f"{FIELDS[0]}x"]}),
        ("kind", {"kind": 0}),
        ("kind", {"kind": 4}),
    ],
)
def test_what_is_larger_is_refused(field, changes):
    with pytest.raises(InvalidArgument) as refused:
        validate(add(**changes))

    assert [f"stage.settings.{field}"] == [each.field for each in refused.value.violations]
