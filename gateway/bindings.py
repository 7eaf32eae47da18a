"""Which HTTP request means which RPC, read from the protos' `google.api.http` options. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

_PATTERNS: Final = ("get", "post", "put", "patch", "delete")
_TOKEN: Final = re.compile(r"\{(?P<field>[a-z_0-9]+)(?:=(?P<inner>[^}]+))?\}|(?P<plain>[^{]+)")


class BindingError(Exception):
    """When a proto binds a method in a way that is not understood; found at start-up."""


@dataclass(frozen=True, slots=True)
class Binding:
    """One way to call a method by HTTP."""

    verb: str
    template: str
    pattern: re.Pattern[str]
    takes_body: bool
    method: MethodDescriptor

    def match(self, raw_path: str) -> dict[str, str] | None:
        """Returns the fields that a path, still percent-encoded, says; None if it is another's."""
        found = self.pattern.fullmatch(raw_path)
        if found is None:
            return None
        return {name: unquote(value) for name, value in found.groupdict().items()}


@dataclass(frozen=True, slots=True)
class Found:
    """The binding a request means, with the fields its path says."""

    binding: Binding
    fields: Mapping[str, str]


class Router:
    """Finds the method that a request means."""

    def __init__(self, services: Iterable[ServiceDescriptor]) -> None:
        bindings = [binding for service in services for binding in bindings_of(service)]
        # The more of a template is literal, the more it means just this.
        self.bindings = sorted(bindings, key=lambda it: (-_literals(it.template), it.template))

    def find(self, verb: str, raw_path: str) -> Found | None:
        """Returns what a request means, or None when nothing has its verb and path."""
        for binding in self.bindings:
            if binding.verb == verb:
                fields = binding.match(raw_path)
                if fields is not None:
                    return Found(binding, fields)
        return None

    def verbs(self, raw_path: str) -> list[str]:
        """Returns the verbs that mean something at a path."""
        matching = {it.verb for it in self.bindings if it.match(raw_path) is not None}
        return sorted(matching)


def bindings_of(service: ServiceDescriptor) -> list[Binding]:
    """Reads the bindings of a service's unary methods."""
    bindings = []
    for method in service.methods:
        if method.client_streaming or method.server_streaming:
            continue
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        for each in (rule, *rule.additional_bindings):
            kind = each.WhichOneof("pattern")
            if kind is None:
                continue
            if kind not in _PATTERNS or each.body not in ("", "*"):
                raise BindingError(f"{method.full_name}: only plain verbs and body * are served")
            template = getattr(each, kind)
            pattern = compile_template(template)
            unknown = set(pattern.groupindex) - set(method.input_type.fields_by_name)
            if unknown:
                raise BindingError(f"{method.full_name}: no such field: {', '.join(unknown)}")
            bindings.append(Binding(kind.upper(), template, pattern, each.body == "*", method))
    return bindings


def compile_template(template: str) -> re.Pattern[str]:
    """Turns `/v1/{name=contacts/*}:rename` into an expression with a group per field.

    A `*` is one segment, which may hold a colon: `profiles/email:ada@example.com`.
    """
    expression = ""
    for token in _TOKEN.finditer(template):
        if token["plain"] is not None:
            expression += _segments(token["plain"])
        else:
            expression += f"(?P<{token['field']}>{_segments(token['inner'] or '*')})"
    return re.compile(expression)


def _segments(text: str) -> str:
    parts = re.split(r"(\*\*|\*)", text)
    wild = {"*": "[^/]+", "**": ".+"}
    return "".join(wild.get(part) or re.escape(part) for part in parts)


def _literals(template: str) -> int:
    return len(re.sub(r"\{\w+=?|\}|\*", "", template))
