"""What the protos say of each method: its scope, its shape, and whether repeating does harm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from rapport.common.v1 import options_pb2
from services.kernel.rpc.caller import INTERNAL_SCOPE

_REPEATABLE = (MethodOptions.NO_SIDE_EFFECTS, MethodOptions.IDEMPOTENT)


class MethodsError(Exception):
    """When methods cannot be served as their protos stand; found at start-up."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method as the protos describe it."""

    service: str
    name: str
    scope: str
    repeatable: bool
    streams_request: bool
    streams_response: bool
    request_type: str

    @property
    def path(self) -> str:
        """The method's name on the wire."""
        return f"/{self.service}/{self.name}"

    @property
    def internal(self) -> bool:
        """Whether only parts of the platform may call it."""
        return self.scope == INTERNAL_SCOPE

    @classmethod
    def of(cls, descriptor: MethodDescriptor) -> Method:
        """Reads a method's description."""
        options = descriptor.GetOptions()
        return cls(
            service=descriptor.containing_service.full_name,
            name=descriptor.name,
            scope=options.Extensions[options_pb2.scope],
            repeatable=options.idempotency_level in _REPEATABLE,
            streams_request=descriptor.client_streaming,
            streams_response=descriptor.server_streaming,
            request_type=descriptor.input_type.full_name,
        )


def methods_of(services: Iterable[ServiceDescriptor]) -> Mapping[str, Method]:
    """Returns the methods of services by path; refuses one without a scope."""
    methods = [Method.of(method) for service in services for method in service.methods]
    unscoped = [method.path for method in methods if not method.scope]
    if unscoped:
        raise MethodsError(f"methods without (rapport.common.v1.scope): {', '.join(unscoped)}")
    return {method.path: method for method in methods}
