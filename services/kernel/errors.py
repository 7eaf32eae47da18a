"""The family of errors: what can go wrong, said without knowing how it travels.

RapportError
├── InvalidArgument      the request breaks a rule; names each field
├── OutOfRange           the place asked for lies outside what is kept
├── Unauthenticated      nobody we know is asking
├── PermissionDenied     the caller is known but may not
├── NotFound             no such resource in the caller's workspace
├── AlreadyExists        a unique value is taken; names who has it
├── FailedPrecondition   the resource's state does not allow this
├── Aborted              somebody else was faster, or the etag is old
├── ResourceExhausted    a named limit is reached
├── Unavailable          a part of the platform does not answer; try again
├── DeadlineExceeded     the time was over before there was an answer
├── Unimplemented        no such method
└── Bug                  our fault; the caller only learns the correlation id

Each class is one status on the wire (`kernel/rpc/wire_errors.py`); the reason is the finer word a
program can match on. Where a class has one reason, its constructor takes what the reason's metadata
needs; else reason, message, metadata. Everything an error carries is shown to the caller, so
nothing a driver said belongs in one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Reason(StrEnum):
    """Why a call failed: the names of the proto enum `ErrorReason` without their prefix."""

    FIELD_INVALID = "FIELD_INVALID"
    FILTER_INVALID = "FILTER_INVALID"
    ORDER_BY_INVALID = "ORDER_BY_INVALID"
    PAGE_TOKEN_INVALID = "PAGE_TOKEN_INVALID"  # noqa: S105, the name of a reason
    PAGE_TOKEN_MISMATCH = "PAGE_TOKEN_MISMATCH"  # noqa: S105, the name of a reason
    READ_TOKEN_INVALID = "READ_TOKEN_INVALID"  # noqa: S105, the name of a reason
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    CREDENTIAL_INVALID = "CREDENTIAL_INVALID"
    SCOPE_MISSING = "SCOPE_MISSING"
    RESOURCE_NOT_FOUND = "RESOURCE_NOT_FOUND"
    RESOURCE_EXISTS = "RESOURCE_EXISTS"
    STATE_FORBIDS = "STATE_FORBIDS"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    CONFLICT = "CONFLICT"
    LIMIT_REACHED = "LIMIT_REACHED"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"
    VIEW_BEHIND = "VIEW_BEHIND"
    BUG = "BUG"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    METHOD_UNKNOWN = "METHOD_UNKNOWN"
    OUT_OF_RANGE = "OUT_OF_RANGE"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field that breaks a rule: its path in the request, a sentence, and the rule's name."""

    field: str
    description: str
    reason: str = ""

    def __str__(self) -> str:
        """The sentence; one about the request as a whole names no field."""
        return f"{self.field}: {self.description}" if self.field else self.description


class RapportError(Exception):
    """A failure that the caller may see: a reason, a sentence, and metadata a program can read."""

    def __init__(
        self,
        reason: str,
        message: str,
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[FieldViolation] = (),
    ) -> None:
        super().__init__(message)
        # A `Reason`; only one that a newer peer sent and we do not know is kept as it came.
        self.reason = reason
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})
        self.violations: tuple[FieldViolation, ...] = tuple(violations)

    @classmethod
    def restored(
        cls,
        reason: str,
        message: str,
        metadata: Mapping[str, str],
        violations: Iterable[FieldViolation] = (),
    ) -> Self:
        """Builds an error that came over the wire, past the narrower constructors."""
        error = cls.__new__(cls)
        RapportError.__init__(error, reason, message, metadata, violations)
        return error

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reason}, {self.message!r}, {self.metadata})"


class InvalidArgument(RapportError):
    """When the request breaks a rule whatever the state of the system is."""

    def __init__(
        self,
        violations: Iterable[FieldViolation],
        *,
        reason: str = Reason.FIELD_INVALID,
        message: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        found = tuple(violations)
        said = "; ".join(str(violation) for violation in found)
        super().__init__(reason, message or said or "the request is invalid", metadata, found)

    @classmethod
    def of(
        cls,
        field: str,
        description: str,
        *,
        reason: str = Reason.FIELD_INVALID,
        metadata: Mapping[str, str] | None = None,
    ) -> InvalidArgument:
        """Says that one field is wrong."""
        return cls([FieldViolation(field, description)], reason=reason, metadata=metadata)


class OutOfRange(RapportError):
    """When the position or time asked for lies outside what is kept."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.OUT_OF_RANGE, message)


class Unauthenticated(RapportError):
    """When there is no credential, or one that nobody issued, or one that has expired."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.CREDENTIAL_INVALID, message)


class PermissionDenied(RapportError):
    """When the caller lacks a scope; asked before existence, so that it tells nothing about it."""

    def __init__(self, scope: str, *, message: str = "") -> None:
        super().__init__(
            Reason.SCOPE_MISSING, message or f"the caller lacks the scope {scope}", {"scope": scope}
        )


class NotFound(RapportError):
    """When the caller's workspace holds no such resource."""

    def __init__(self, resource: str, *, message: str = "") -> None:
        super().__init__(
            Reason.RESOURCE_NOT_FOUND,
            message or f"{resource} does not exist",
            {"resource": resource},
        )


class AlreadyExists(RapportError):
    """When a value that must be unique is taken; names the resource that has it."""

    def __init__(self, existing_name: str, field: str, *, message: str = "") -> None:
        super().__init__(
            Reason.RESOURCE_EXISTS,
            message or f"{existing_name} already has this {field}",
            {"existing_name": existing_name, "field": field},
        )


class FailedPrecondition(RapportError):
    """When the resource's state does not allow this and repeating it will not help.

    The violations name the fields that it lacks, if that is why.
    """

    def __init__(
        self,
        message: str,
        *,
        resource: str = "",
        state: str = "",
        violations: Iterable[FieldViolation] = (),
    ) -> None:
        said = {"resource": resource, "state": state}
        metadata = {key: value for key, value in said.items() if value}
        super().__init__(Reason.STATE_FORBIDS, message, metadata, violations)


class Aborted(RapportError):
    """When somebody else was faster (CONFLICT) or the etag is old (ETAG_MISMATCH)."""

    @classmethod
    def etag(cls, resource: str, current: str) -> Aborted:
        """Says that the caller's etag is not the current one, and which is."""
        message = f"{resource} was changed since; its etag is {current}"
        return cls(Reason.ETAG_MISMATCH, message, {"resource": resource, "etag": current})

    @classmethod
    def conflict(cls, message: str = "concurrent writers kept winning; try again") -> Aborted:
        """Says that others were faster each time."""
        return cls(Reason.CONFLICT, message)


class ResourceExhausted(RapportError):
    """When a named limit is reached."""

    def __init__(self, limit: str, maximum: int, *, message: str = "") -> None:
        super().__init__(
            Reason.LIMIT_REACHED,
            message or f"the limit {limit} of {maximum} is reached",
            {"limit": limit, "maximum": str(maximum)},
        )


class Unavailable(RapportError):
    """When a part of the platform does not answer; the same call may succeed later."""

    def __init__(self, service: str, *, message: str = "") -> None:
        super().__init__(
            Reason.SERVICE_UNAVAILABLE,
            message or f"{service} does not answer",
            {"service": service},
        )


class DeadlineExceeded(RapportError):
    """When the time was over before there was an answer (DEADLINE_EXCEEDED, VIEW_BEHIND)."""

    @classmethod
    def view_behind(cls, view: str) -> DeadlineExceeded:
        """Says that a view did not reach the read token's position in time."""
        message = f"the view {view} has not reached the read token yet; try again"
        return cls(Reason.VIEW_BEHIND, message, {"view": view})


class Unimplemented(RapportError):
    """When there is no such method."""

    def __init__(self, method: str) -> None:
        super().__init__(Reason.METHOD_UNKNOWN, f"there is no method {method}")


class Bug(RapportError):
    """When our own code is wrong; its message goes to the log and never to the caller."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.BUG, message)
