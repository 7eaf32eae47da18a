"""What may be asked at once, at the limit and past it."""

import pytest

from rapport.identity.v1.service_pb2 import BatchGetProfilesRequest
from services.kernel.errors import InvalidArgument
from services.kernel.rpc.validation import validate


@pytest.mark.parametrize("count", [1, 1000])
def test_a_batch_has_up_to_a_thousand_names(count):
    validate(BatchGetProfilesRequest(names=["profiles/user_id:u1"] * count))


@pytest.mark.parametrize("count", [0, 1001])
def test_a_batch_of_none_or_more_is_refused(count):
    with pytest.raises(InvalidArgument, match="names"):
        validate(BatchGetProfilesRequest(names=["profiles/user_id:u1"] * count))
