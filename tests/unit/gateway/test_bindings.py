"""A path means the RPC whose proto says so."""

from __future__ import annotations

import pytest

from gateway.bindings import Router, compile_template
from gateway.catalog import PUBLIC

ROUTER = Router(PUBLIC)


def meant(verb: str, path: str) -> tuple[str, dict[str, str]] | None:
    found = ROUTER.find(verb, path)
    return None if found is None else (found.binding.method.name, dict(found.fields))


@pytest.mark.parametrize(
    ("verb", "path", "method", "fields"),
    [
        ("POST", "/v1/contacts", "CreateContact", {}),
        ("GET", "/v1/contacts", "ListContacts", {}),
        ("GET", "/v1/contacts/a", "GetContact", {"name": "contacts/a"}),
        ("POST", "/v1/contacts/a:rename", "RenameContact", {"name": "contacts/a"}),
        ("POST", "/v1/contacts/a:b:archive", "ArchiveContact", {"name": "contacts/a:b"}),
        ("GET", "/v1/contacts/a/history", "ListContactHistory", {"name": "contacts/a"}),
        ("GET", "/v1/contacts/a%2Fb%20c", "GetContact", {"name": "contacts/a/b c"}),
        ("GET", "/v1/profiles/email:a@b.c", "GetProfile", {"name": "profiles/email:a@b.c"}),
        ("GET", "/v1/profiles/p/timeline", "ListTimeline", {"name": "profiles/p"}),
        ("GET", "/v1/profiles/p/segments", "ListProfileSegments", {"profile": "profiles/p"}),
        ("GET", "/v1/customers/contacts/a", "GetCustomer360", {"name": "contacts/a"}),
        ("GET", "/v1/customers/profiles/x:1", "GetCustomer360", {"name": "profiles/x:1"}),
        ("POST", "/v1/customerEvents:record", "RecordCustomerEvents", {}),
        ("GET", "/v1/dealBoard", "GetDealBoard", {}),
    ],
)
def test_a_path_means_a_method_and_says_its_fields(verb, path, method, fields):
    assert meant(verb, path) == (method, fields)


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/v1/contacts/"),
        ("GET", "/v1/contacts/a/b"),
        ("GET", "/v2/contacts/a"),
        ("POST", "/v1/contacts/a"),
        ("POST", "/v1/contacts/a:forget"),
        ("GET", "/v1/customers/a"),
        ("get", "/v1/contacts"),
        ("GET", ""),
    ],
)
def test_all_else_means_nothing(verb, path):
    assert meant(verb, path) is None


def test_a_path_tells_its_verbs():
    assert ROUTER.verbs("/v1/contacts") == ["GET", "POST"]
    assert ROUTER.verbs("/v1/nothing") == []


@pytest.mark.parametrize(
    ("template", "path", "fields"),
    [
        ("/v1/{id}", "/v1/a", {"id": "a"}),
        ("/v1/{name=shelves/*/books/*}", "/v1/shelves/1/books/2", {"name": "shelves/1/books/2"}),
        ("/v1/{name=files/**}", "/v1/files/a/b/c", {"name": "files/a/b/c"}),
        ("/v1/{a}/{b=x/*}:do", "/v1/1/x/2:do", {"a": "1", "b": "x/2"}),
        ("/v1/a.b", "/v1/a.b", {}),
        ("/v1/a.b", "/v1/aXb", None),
    ],
)
def test_templates_are_those_of_google_api_http(template, path, fields):
    found = compile_template(template).fullmatch(path)

    assert (found and found.groupdict()) == fields
