"""Calls of the standard methods that the service of every noun has: get, list and delete.

Every name is derived from a row of the table of nouns. The row `model` stands for the methods `GetModel`, `ListModels` and
`DeleteModel` of `ModelService`, which `model_service.proto` defines. Requests are `GetModelRequest` and so on.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from controlplane.cli.client import Client
from controlplane.cli.options import request_id
from controlplane.domain.collections import Collection

# Objects that one call of a list returns at most.
PAGE = 1000


def get(client: Client, row: Collection, name: str) -> Any:
    """Return the message of one object by its full name. Errors: Error."""
    answer = _call(client, row, f"Get{message_name(row)}", name=name)
    return getattr(answer, row.singular)


def list_all(client: Client, row: Collection) -> list[Any]:
    """Return the messages of all objects of a noun, by name. Errors: Error."""
    objects: list[Any] = []
    token = ""
    while True:
        page = _call(client, row, f"List{_plural_name(row)}", page_size=PAGE, page_token=token)
        objects += getattr(page, row.name)
        token = page.next_page_token
        if not token:
            return objects


def delete(client: Client, row: Collection, name: str, etag: str, *, force: bool, **fields: Any) -> Any:
    """Delete one object, and return the response: the new revision and its impact. An empty `etag` is not compared.

    `fields` are further fields of the request. Errors: Error.
    """
    method = f"Delete{message_name(row)}"
    if "force" in _request(row, method).DESCRIPTOR.fields_by_name:
        fields["force"] = force
    return _call(client, row, method, name=name, etag=etag, request_id=request_id(), **fields)


def message_name(row: Collection) -> str:
    """Return the name of a noun's message: `Model` for `model`."""
    return _camel_case(row.singular)


def _plural_name(row: Collection) -> str:
    return _camel_case(row.name)


def _camel_case(words: str) -> str:
    return "".join(word.capitalize() for word in words.split("_"))


def _request(row: Collection, method: str) -> Any:
    """Return the class of a method's request."""
    module = import_module(f"controlplane.generated.turnout.v1.{row.singular}_service_pb2")
    return getattr(module, f"{method}Request")


def _call(client: Client, row: Collection, method: str, **fields: Any) -> Any:
    service = client.service(row.singular, f"{message_name(row)}ServiceStub")
    return client.call(getattr(service, method), _request(row, method)(**fields))
