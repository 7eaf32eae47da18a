"""What the events service answers about sources, and to the gateway about their write keys."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any, TypeVar

from rapport.events.v1 import sources_pb2 as pb
from rapport.events.v1.sources_pb2_grpc import SourcesServiceServicer
from rapport.events.v1.write_keys_pb2 import ResolveWriteKeyRequest, ResolveWriteKeyResponse
from rapport.events.v1.write_keys_pb2_grpc import WriteKeysServiceServicer
from services.events.deciders.source import DECIDER, Command, NewWriteKey, State, decider_with
from services.events.projections.sources import (
    SOURCE_ROWS,
    SourcesView,
    list_sources,
    resolve_write_key,
    source_of,
    write_keys,
)
from services.kernel.errors import NotFound
from services.kernel.log.recorded import timestamp_of
from services.kernel.rpc.caller import current_caller

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from services.events.projections.doors import Doors
    from services.kernel.command.decider import Decided
    from services.kernel.process.runtime import Kernel

# An id is looked up among those of all workspaces: long enough that nobody meets another's.
KEY_ID_DIGITS = 16


M = TypeVar("M", bound="Message")


class SourcesService(SourcesServiceServicer):
    """Sources of the caller's workspace."""

    def __init__(self, kernel: Kernel, doors: Doors) -> None:
        self._kernel = kernel
        self._doors = doors

    async def CreateSource(
        self, request: pb.CreateSourceRequest, _: Any
    ) -> pb.CreateSourceResponse:
        source_id = request.source_id or str(self._kernel.new_id())
        response = await self._execute(source_id, request, pb.CreateSourceResponse)
        response.write_key = self._write_key(response.source)
        return response

    async def ConfigureSource(
        self, request: pb.ConfigureSourceRequest, _: Any
    ) -> pb.ConfigureSourceResponse:
        source_id = DECIDER.aggregate_id(request.name)
        return await self._execute(source_id, request, pb.ConfigureSourceResponse)

    async def DisableSource(
        self, request: pb.DisableSourceRequest, _: Any
    ) -> pb.DisableSourceResponse:
        source_id = DECIDER.aggregate_id(request.name)
        return await self._execute(source_id, request, pb.DisableSourceResponse)

    async def EnableSource(
        self, request: pb.EnableSourceRequest, _: Any
    ) -> pb.EnableSourceResponse:
        source_id = DECIDER.aggregate_id(request.name)
        return await self._execute(source_id, request, pb.EnableSourceResponse)

    async def RotateWriteKey(
        self, request: pb.RotateWriteKeyRequest, _: Any
    ) -> pb.RotateWriteKeyResponse:
        source_id = DECIDER.aggregate_id(request.name)
        response = await self._execute(source_id, request, pb.RotateWriteKeyResponse)
        response.write_key = self._write_key(response.source)
        return response

    async def RevokeWriteKey(
        self, request: pb.RevokeWriteKeyRequest, _: Any
    ) -> pb.RevokeWriteKeyResponse:
        source_id = DECIDER.aggregate_id(request.name)
        return await self._execute(source_id, request, pb.RevokeWriteKeyResponse)

    async def GetSource(self, request: pb.GetSourceRequest, _: Any) -> pb.GetSourceResponse:
        await self._kernel.freshness.wait(SourcesView.name, request.read_token)
        workspace = current_caller().workspace
        row = await SOURCE_ROWS.existing(self._kernel.pool, workspace, request.name)
        keys = await write_keys(self._kernel.pool, workspace, [row.aggregate_id])
        return pb.GetSourceResponse(
            source=source_of(row.aggregate_id, row, keys.get(row.aggregate_id, ()))
        )

    async def ListSources(self, request: pb.ListSourcesRequest, _: Any) -> pb.ListSourcesResponse:
        await self._kernel.freshness.wait(SourcesView.name, request.read_token)
        return await list_sources(self._kernel.pool, current_caller().workspace, request)

    async def _execute(self, source_id: str, command: Command, response: Callable[..., M]) -> M:
        """Executes a command on a source and answers with what became of it.

        Of the write keys a response tells the ids only: they are what a repeated request sees.
        """
        workspace = current_caller().workspace
        key_id = self._kernel.new_id().hex[-KEY_ID_DIGITS:]
        secret = self._secret(workspace, DECIDER.name(source_id), key_id)
        key = NewWriteKey(key_id, hashlib.sha256(secret.encode()).digest())

        def respond(decided: Decided[State]) -> M:
            keys = [pb.WriteKey(key_id=key_id) for key_id in decided.state.key_ids]
            source = source_of(source_id, decided, keys)
            return response(source=source, write_token=decided.write_token)

        changed = await self._kernel.commands.execute(
            decider_with(key), source_id, command, respond
        )
        self._doors.forget(workspace)
        return changed

    def _write_key(self, source: pb.Source) -> str:
        """The newest write key, derived anew: it is kept nowhere."""
        key_id = source.write_keys[0].key_id
        return f"wk_{key_id}_{self._secret(current_caller().workspace, source.name, key_id)}"

    def _secret(self, workspace: str, source: str, key_id: str) -> str:
        return self._kernel.derive_key(f"write-key/{workspace}/{source}/{key_id}").hex()


class WriteKeysService(WriteKeysServiceServicer):
    """Whose a write key is, for the gateway."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def ResolveWriteKey(
        self, request: ResolveWriteKeyRequest, _: Any
    ) -> ResolveWriteKeyResponse:
        now = self._kernel.clock.now()
        found = await resolve_write_key(self._kernel.pool, request.key_id, now)
        if found is None or not hmac.compare_digest(found["secret_hash"], request.secret_hash):
            raise NotFound(f"writeKeys/{request.key_id}")
        response = ResolveWriteKeyResponse(
            workspace=found["workspace"], source=DECIDER.name(found["source_id"])
        )
        if found["expire_time"] is not None:
            response.expire_time.CopyFrom(timestamp_of(found["expire_time"]))
        return response
