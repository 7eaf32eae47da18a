"""Asks every system of the platform about the data of a person, in the platform's own name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from rapport.common.v1 import subjects_pb2 as pb
from rapport.common.v1.subjects_pb2_grpc import SubjectsServiceStub
from rapport.events.v1 import suppressions_pb2
from rapport.events.v1.suppressions_pb2_grpc import SuppressionsServiceStub
from services.identity.identifiers import identifier, national_number
from services.identity.rules import PHONE, Rules
from services.kernel.erasing.subjects import hash_key_of, hash_of, normal_form
from services.kernel.errors import InvalidArgument, Unimplemented
from services.kernel.process.runtime import Kernel
from services.kernel.rpc.caller import INTERNAL_SCOPE, acting_as, own_caller

ACTOR = "services/identity"
OWN = "identity"
SYSTEMS = ("contacts", "deals", "events", OWN, "segments")
SUPPRESSION = "suppression"
"""What is not a service's data: that it is refused from now on."""

ASK_TIMEOUT_S = 30.0

M = TypeVar("M")

_SUBJECTS = [pb.DESCRIPTOR.services_by_name["SubjectsService"]]
_SUPPRESSIONS = [suppressions_pb2.DESCRIPTOR.services_by_name["SuppressionsService"]]


class Systems:
    """The systems that hold data about people.

    A method raises Unimplemented where a system holds none, or nobody said where it is.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def preview(
        self, workspace: str, system: str, identifiers: Iterable[tuple[str, str]]
    ) -> pb.PreviewSubjectErasureResponse:
        """What an erasure would take of a system."""
        request = pb.PreviewSubjectErasureRequest(identifiers=told(identifiers))
        answer: pb.PreviewSubjectErasureResponse = await self._ask(
            workspace, system, lambda asked: asked.PreviewSubjectErasure, request
        )
        return answer

    async def erase(
        self, workspace: str, system: str, request: pb.EraseSubjectRequest
    ) -> pb.EraseSubjectResponse:
        """Lets a system take the next steps of an erasure."""
        answer: pb.EraseSubjectResponse = await self._ask(
            workspace, system, lambda asked: asked.EraseSubject, request
        )
        return answer

    async def registered(self, workspace: str, system: str) -> list[pb.RegisteredErasure]:
        """The erasures that a system knows of."""
        found: list[pb.RegisteredErasure] = []
        while True:
            request = pb.ListSubjectErasuresRequest(after=found[-1].erasure if found else "")
            page = await self._ask(
                workspace, system, lambda asked: asked.ListSubjectErasures, request
            )
            if not page.erasures:
                return found
            found += page.erasures

    async def suppress(self, workspace: str, identifiers: Iterable[tuple[str, str]]) -> int:
        """Lets what comes with identifiers be refused; answers how many of them can be."""
        assert self._kernel.peers is not None, "peers are where a service runs"
        channel = self._kernel.peers.channel("events", _SUPPRESSIONS)
        if channel is None:
            raise Unimplemented(SUPPRESSION)
        stub, count = SuppressionsServiceStub(channel), 0
        with self._acting(workspace):
            for type_name, value in sorted(set(identifiers)):
                request = suppressions_pb2.SuppressIdentifierRequest(type=type_name, value=value)
                try:
                    await stub.SuppressIdentifier(request, timeout=ASK_TIMEOUT_S)
                except InvalidArgument:  # no customer event comes with a value of this type
                    continue
                count += 1
        return count

    def hash(self, workspace: str, type_name: str, value: str) -> str:
        """The hash by which the registers of all systems know an identifier."""
        key = hash_key_of(self._kernel.derive_key, workspace)
        return hash_of(key, type_name, normal_form(type_name, value))

    async def _ask(
        self, workspace: str, system: str, method: Callable[[Any], Any], request: Any
    ) -> Any:
        with self._acting(workspace):
            if system == OWN:
                if self._kernel.subjects is None:
                    raise Unimplemented(system)
                return await method(self._kernel.subjects)(request, None)
            assert self._kernel.peers is not None, "peers are where a service runs"
            channel = self._kernel.peers.channel(system, _SUBJECTS)
            if channel is None:
                raise Unimplemented(system)
            answer: Awaitable[Any] = method(SubjectsServiceStub(channel))(
                request, timeout=ASK_TIMEOUT_S
            )
            return await answer

    @contextmanager
    def _acting(self, workspace: str) -> Iterator[None]:
        scopes = frozenset({INTERNAL_SCOPE, "suppressions.write"})
        caller = own_caller(ACTOR, clock=self._kernel.clock, scopes=scopes, workspace=workspace)
        with acting_as(caller):
            yield


def told(identifiers: Iterable[tuple[str, str]]) -> list[pb.SubjectIdentifier]:
    """Identifiers as they are told to systems."""
    distinct = sorted(set(identifiers))
    return [pb.SubjectIdentifier(type=name, value=value) for name, value in distinct]


def spellings(rules: Rules, identifiers: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Identifiers, and how else a system may have them that does not know the workspace's rules."""
    found = set(identifiers)
    national = {(name, national_number(rules, value)) for name, value in found if name == PHONE}
    return found | {(name, number) for name, number in national if number is not None}


def nodes_of(
    rules: Rules, workspace: str, identifiers: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], tuple[str, str]]:
    """The type and node of each identifier that is one, by type and value."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for type_name, value in identifiers:
        known = identifier(rules, workspace, type_name, value) if rules.named(type_name) else None
        if known is not None:
            found[type_name, value] = known.type, known.node
    return found


def said(found: Sequence[pb.SubjectIdentifier]) -> set[tuple[str, str]]:
    """Identifiers as systems tell them."""
    return {(known.type, known.value) for known in found}
