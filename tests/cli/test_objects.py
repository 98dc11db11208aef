"""A noun that the command line does not mention. A row of the table and the messages of its service are enough."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
import typer
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from controlplane.cli import apply, complete, delete, get, messages, names, objects, prune
from controlplane.cli.client import Client
from controlplane.cli.commands import app
from controlplane.domain import collections
from controlplane.domain.collections import Collection
from controlplane.generated.turnout.v1.revision_pb2 import Impact
from tests.cli.conftest import Run, Server

PACKAGE = "turnout.test"


class Owner:
    """The noun: people who answer for a model."""

    collection: ClassVar[str] = "owners"


ROW = Collection(cast("Any", Owner), "owner")


def _message_classes() -> dict[str, Any]:
    """Return the classes of the messages that a noun's protos define, by name."""
    text, number, flag = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_INT64, FieldDescriptorProto.TYPE_BOOL
    request = {"name": text, "etag": text, "reason": text, "request_id": text, "validate_only": flag}
    request |= {"allow_cut": flag, "cut_token": text}
    fields: dict[str, dict[str, Any]] = {
        "Owner": {"name": text, "etag": text},
        "GetOwnerRequest": {"name": text},
        "ListOwnersRequest": {"page_size": number, "page_token": text},
        "DeleteOwnerRequest": request,
    }
    file = descriptor_pb2.FileDescriptorProto(name="turnout/test/owner_service.proto", package=PACKAGE, syntax="proto3")
    for name, types in fields.items():
        message = file.message_type.add(name=name)
        for i, (field_name, kind) in enumerate(types.items()):
            message.field.add(name=field_name, number=i + 1, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in fields}


CLASSES = _message_classes()


@dataclass
class OwnerService:
    """The service of the noun, with its objects in memory. A page of a list has one object."""

    owners: dict[str, Any] = field(default_factory=dict)
    deletions: list[Any] = field(default_factory=list)

    def GetOwner(self, request: Any) -> Any:
        return SimpleNamespace(owner=self.owners[request.name])

    def ListOwners(self, request: Any) -> Any:
        names = sorted(self.owners)
        start = int(request.page_token or 0)
        following = str(start + 1) if start + 1 < len(names) else ""
        return SimpleNamespace(owners=[self.owners[n] for n in names[start : start + 1]], next_page_token=following)

    def DeleteOwner(self, request: Any) -> Any:
        if not request.validate_only:
            self.deletions.append(request)
            del self.owners[request.name]
        return SimpleNamespace(revision=1, impact=Impact())


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> OwnerService:
    """Add the row to the table, its messages to the generated code, and its service to every client."""
    rows = (*collections.COLLECTIONS, ROW)
    for module in (apply, complete, delete, get, messages, names):
        monkeypatch.setattr(module, "COLLECTIONS", rows)
    monkeypatch.setitem(cast("dict[str, Collection]", collections.BY_NAME), "owners", ROW)
    generated = SimpleNamespace(**CLASSES)
    monkeypatch.setitem(sys.modules, "controlplane.generated.turnout.v1.owner_service_pb2", cast("Any", generated))
    owners = {f"owners/{name}": CLASSES["Owner"](name=f"owners/{name}", etag="3") for name in ("ml", "web")}
    created = OwnerService(owners)
    real_service, real_call = Client.service, Client.call

    def service(self: Client, noun: str, stub: str) -> Any:
        return created if (noun, stub) == ("owner", "OwnerServiceStub") else real_service(self, noun, stub)

    def call(self: Client, rpc: Any, request: Any) -> Any:
        return rpc(request) if getattr(rpc, "__self__", None) is created else real_call(self, rpc, request)

    monkeypatch.setattr(Client, "service", service)
    monkeypatch.setattr(Client, "call", call)
    return created


def test_get_lists_the_objects_of_a_new_noun(run: Run, service: OwnerService) -> None:
    lines = run("get", "owners").out.splitlines()
    assert [line.split() for line in lines] == [["OWNER", "REVISION"], ["owners/ml", "3"], ["owners/web", "3"]]
    assert run("get", "owner", "web", "-o", "name").out == "owners/web\n"
    assert run("get", "owners", "-o", "json").json["owners"][0] == {"name": "owners/ml", "etag": "3"}


def test_an_unknown_kind_is_an_error_that_names_the_new_noun(run: Run, service: OwnerService) -> None:
    assert (
        "'owls' is no kind of objects; write one of: gateways, models, secrets, owners, nodes, revisions, all"
        in run("get", "owls").err
    )


def test_delete_reads_and_deletes_an_object_of_a_new_noun(run: Run, service: OwnerService, applied: Server) -> None:
    unconfirmed = run("delete", "owners/ml")
    assert "owners/ml: as of revision 3" in unconfirmed.err
    assert service.deletions == []
    assert run("delete", "owners/ml", "--yes", "--reason", "left").code == 0
    [deletion] = service.deletions
    assert (deletion.name, deletion.etag, deletion.reason) == ("owners/ml", "3", "left")
    assert deletion.request_id
    assert list(service.owners) == ["owners/web"]


def test_the_names_of_a_new_noun_are_completed(service: OwnerService, server: Server) -> None:
    command: Any = typer.main.get_command(app)
    context = typer.Context(command)
    assert complete.objects(context, "owners/w") == ["owners/web"]


def test_a_new_noun_is_counted(service: OwnerService) -> None:
    manifest = SimpleNamespace(gateways=[], models=[object()], secrets=[], owners=[object(), object()])
    assert apply._count(cast("Any", manifest)) == "0 gateways, 1 model, 2 owners"


def test_the_whole_state_as_tables_has_the_new_noun(monkeypatch: pytest.MonkeyPatch, run: Run, service: OwnerService) -> None:
    everything = SimpleNamespace(gateways=[], models=[], secrets=[], owners=list(service.owners.values()))
    monkeypatch.setattr(prune, "everything", lambda client: everything)
    assert run("get", "all").out.startswith("OWNER ")


def test_a_name_of_several_words() -> None:
    row = Collection(cast("Any", Owner), "model_owner")
    assert objects.message_name(row) == "ModelOwner"


def test_force_is_sent_only_to_services_that_have_it(run: Run, applied: Server) -> None:
    assert run("delete", "models/iris", "--force").code == 0
    assert run("delete", "gateways/edge", "--force").code == 0
