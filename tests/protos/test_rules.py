"""Rules for every method and message of turnout.v1 that buf does not check."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.api import field_behavior_pb2, resource_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from controlplane.cli.schema.__main__ import compiled
from controlplane.generated.turnout.v1 import (
    gateway_service_pb2,
    model_service_pb2,
    node_service_pb2,
    revision_service_pb2,
    secret_service_pb2,
    traffic_service_pb2,
)
from protos.reference import Declarations

FILES: list[FileDescriptor] = [
    module.DESCRIPTOR
    for module in (
        gateway_service_pb2,
        model_service_pb2,
        node_service_pb2,
        revision_service_pb2,
        secret_service_pb2,
        traffic_service_pb2,
    )
]
METHODS: list[MethodDescriptor] = [m for f in FILES for s in f.services_by_name.values() for m in s.methods]
READS = ("Get", "List", "Watch", "Diff")

method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


def behaviors(field: FieldDescriptor) -> set[str]:
    numbers = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return {field_behavior_pb2.FieldBehavior.Name(n) for n in numbers}


def input_messages() -> Iterator[Descriptor]:
    """Yield each message that a request contains, except those that only the server fills in."""
    waiting = [m.input_type for m in METHODS]
    seen: set[str] = set()
    while waiting:
        message = waiting.pop()
        if message.full_name in seen or not message.full_name.startswith("turnout."):
            continue
        seen.add(message.full_name)
        if not message.GetOptions().map_entry:
            yield message
        waiting += [f.message_type for f in message.fields if f.message_type and "OUTPUT_ONLY" not in behaviors(f)]


@method
def test_exactly_the_reads_have_no_side_effects(method: MethodDescriptor) -> None:
    no_side_effects = method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
    assert no_side_effects == method.name.startswith(READS)


@method
def test_every_change_can_be_repeated_and_tried(method: MethodDescriptor) -> None:
    fields = method.input_type.fields_by_name
    if not method.name.startswith(
        (*READS, "Reconnect", "Forget", "Adopt", "Block", "Unblock", "Purge")
    ):  # nodes and withdrawn keys are no desired state
        assert {"request_id", "validate_only", "reason"} <= set(fields)


@method
def test_every_list_has_pages(method: MethodDescriptor) -> None:
    if method.name.startswith("List"):
        assert {"page_size", "page_token"} <= set(method.input_type.fields_by_name)
        assert "next_page_token" in method.output_type.fields_by_name


@method
def test_every_update_has_a_mask(method: MethodDescriptor) -> None:
    if method.name.startswith("Update"):
        assert "update_mask" in method.input_type.fields_by_name


def test_every_field_of_a_request_has_a_behavior() -> None:
    messages = list(input_messages())
    assert len(messages) > 40
    assert [f.full_name for m in messages for f in m.fields if not behaviors(f)] == []


def test_names_are_identifiers_and_references_name_a_resource() -> None:
    resources = {}
    for message in {m.full_name: m for m in [*input_messages(), *(m.output_type for m in METHODS)]}.values():
        for nested in [message, *(f.message_type for f in message.fields if f.message_type)]:
            if resource := nested.GetOptions().Extensions[resource_pb2.resource].type:
                resources[resource] = nested
    assert sorted(resources) == [f"turnout.dev/{n}" for n in ("Gateway", "Model", "Node", "Revision", "Secret")]
    for message in resources.values():
        assert "IDENTIFIER" in behaviors(message.fields_by_name["name"])
    for message in input_messages():
        for field in message.fields:
            reference = field.GetOptions().Extensions[resource_pb2.resource_reference].type
            assert not reference or reference == "*" or reference in resources, field.full_name


def test_other_languages_get_a_package() -> None:
    declared = compiled(Path(__file__).parents[2] / "protos", "turnout/v1/*.proto").file
    ours = [f for f in declared if f.package == "turnout.v1"]
    assert len(ours) == 15
    for file in ours:
        assert file.options.go_package == "turnout.dev/gen/turnout/v1;turnoutv1", file.name
        assert file.options.java_package == "dev.turnout.v1", file.name
        assert file.options.java_multiple_files, file.name


def test_each_noun_has_its_own_file_beside_its_service() -> None:
    for file in FILES:
        noun = file.name.removesuffix("_service.proto")
        assert [d.name for d in file.dependencies if d.name == f"{noun}.proto"], file.name


def test_every_optional_field_says_what_unset_means() -> None:
    messages = Declarations(compiled(Path(__file__).parents[2] / "protos", "turnout/v1/*_service.proto")).messages
    silent = []
    for message in input_messages():
        entry = messages[message.name]
        for i, field in enumerate(entry.descriptor.field):
            comment = entry.comments[2, i]
            optional = "OPTIONAL" in behaviors(message.fields_by_name[field.name])
            choice = field.HasField("oneof_index") and not field.proto3_optional  # the comment is that of the oneof
            if optional and not choice and not any(w in comment for w in ("Unset", "Needed unless")):
                silent.append(f"{message.name}.{field.name}")
    assert silent == []
