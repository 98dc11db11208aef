"""The filter that reads names of models from gRPC messages: its descriptors, and its configuration."""

from __future__ import annotations

from envoy.extensions.filters.http.grpc_field_extraction.v3 import config_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from controlplane.compiler.grpc_models import FILTER, SERVICE, name_filter


def config() -> config_pb2.GrpcFieldExtractionConfig:
    manager = hcm_pb2.HttpConnectionManager()
    name_filter(manager)
    http_filter = manager.http_filters[0]
    assert http_filter.name == FILTER
    parsed = config_pb2.GrpcFieldExtractionConfig()
    assert http_filter.typed_config.Unpack(parsed)
    return parsed


def test_each_method_is_described_with_the_field_that_is_read() -> None:
    parsed = config()
    files = descriptor_pb2.FileDescriptorSet.FromString(parsed.descriptor_set.inline_bytes)
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    service = pool.FindServiceByName(SERVICE)
    assert {f"{SERVICE}.{method.name}" for method in service.methods} == set(parsed.extractions_by_method)
    for method in service.methods:
        (field,) = parsed.extractions_by_method[f"{SERVICE}.{method.name}"].request_field_extractions
        assert [f.name for f in method.input_type.fields] == [field]


def test_other_fields_of_a_message_are_ignored() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(config().descriptor_set.inline_bytes)
    messages = message_factory.GetMessages(files.file)
    # model_name = "iris", model_version = "3", id = "a", as the Open Inference Protocol numbers them.
    request = messages["inference.ModelInferRequest"].FromString(b"\x0a\x04iris\x12\x013\x1a\x01a")
    assert [(field.name, value) for field, value in request.ListFields()] == [("model_name", "iris")]


def test_the_filter_has_the_same_bytes_each_time() -> None:
    assert config().SerializeToString(deterministic=True) == config().SerializeToString(deterministic=True)
