"""YAML trees decoded into a Manifest, and the texts for wrong fields."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from controlplane.cli.exits import FilesError
from controlplane.cli.files import load
from controlplane.generated.turnout.v1.gateway_pb2 import TlsVersion
from controlplane.generated.turnout.v1.model_pb2 import Protocol
from tests.cli.conftest import problems_of, write_file

digits = st.text("0123456789", min_size=1, max_size=14)
numbers = st.builds(
    "".join,
    st.tuples(st.sampled_from(["", "-", "+"]), digits, st.sampled_from(["", ".0", ".5", ".123456789012", "e9", "E400"])),
)


def test_every_kind_of_field(tmp_path: Path) -> None:
    text = """
models:
  - name: models/iris
    etag: '7'
    createTime: 2026-01-31T12:00:00Z
    gateways: [gateways/edge]
    versions:
      - name: '7'
        protocol: PROTOCOL_GRPC
        connectTimeout: 0.5s
        tls: {insecure_skip_verify: true}
    retries: {attempts: 0, per_try_timeout: null}
    sticky: {cookie: user}
"""
    model = load([str(write_file(tmp_path, text))]).manifest.models[0]
    assert model.etag == "7"
    assert model.create_time.seconds > 0
    assert model.versions[0].connect_timeout.nanos == 500_000_000
    assert model.versions[0].tls.insecure_skip_verify
    assert model.retries.HasField("attempts")
    assert not model.retries.HasField("per_try_timeout")
    assert model.sticky.WhichOneof("key") == "cookie"


def test_shares_in_percent_and_short_enum_values(tmp_path: Path) -> None:
    text = """
gateways:
  - {name: edge, port: 443, tls: {certificate: edge, min_version: 1.3}}
models:
  - name: iris
    gateways: [edge]
    versions: [{name: blue, protocol: grpc}, {name: green, protocol: HTTP2}, {name: red, protocol: PROTOCOL_HTTP1}]
    split: {blue: 90%, green: 9.5%, red: 0.5%, gold: 0}
    mirror: {version: green, basis_points: 1%}
"""
    manifest = load([str(write_file(tmp_path, text))]).manifest
    model = manifest.models[0]
    assert model.split == {"blue": 9_000, "green": 950, "red": 50, "gold": 0}
    assert model.mirror.basis_points == 100
    assert [v.protocol for v in model.versions] == [Protocol.PROTOCOL_GRPC, Protocol.PROTOCOL_HTTP2, Protocol.PROTOCOL_HTTP1]
    assert manifest.gateways[0].tls.min_version == TlsVersion.TLS_VERSION_1_3


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("gatewayz: [edge]", "models[0]: unknown key 'gatewayz'; did you mean 'gateways'?"),
        ("zzz: 1", "models[0]: unknown key 'zzz'; known keys: name, gateways"),
        ("gateways: edge", "models[0].gateways: is the text 'edge'; it must be a list"),
        ("gateways: [7]", "models[0].gateways[0]: is the number 7; it must be text: write it in quotes, '7'"),
        ("gateways: [true]", "models[0].gateways[0]: is the truth value true; it must be text"),
        ("gateways: [[]]", "models[0].gateways[0]: is a list; it must be text"),
        ("split: [1]", "models[0].split: is a list; it must be names with values"),
        ("split: {blue: most}", "models[0].split.blue: is the text 'most'; it must be a whole number"),
        ("split: {blue: -1}", "models[0].split.blue: -1 is out of range: 0 to 10,000"),
        ("versions: [{endpoints: [{port: -1}]}]", "endpoints[0].port: -1 is out of range: 1 to 65,535"),
        ("mirror: {basis_points: 4294967296}", "basis_points: 4,294,967,296 is out of range: 1 to 10,000"),
        ("timeouts: {request: 415576000000s}", "models[0].timeouts.request: 415,576,000,000 s is out of range"),
        ("split: {blue: 0.5}", "models[0].split.blue: is the number 0.5; it must be a whole number"),
        ("sticky: x", "models[0].sticky: is the text 'x'; it must have fields: header, cookie"),
        ("sticky: {header: a, cookie: b}", "models[0].sticky.cookie: can't be set together with `header`"),
        ("timeouts: {idle: 5m}", "models[0].timeouts.idle: is the text '5m'; it must be a number of seconds"),
        ("timeouts: {idle: 5m}", "write 300s"),
        ("timeouts: {idle: 5}", "write 5s"),
        ("retries: {unsafe: yes}", "models[0].retries.unsafe: is the text 'yes'; it must be true or false"),
        (
            "split: {blue: 90%, green: 1000}",
            "the shares mix percent (blue=90%) and basis points (green=1000)",
        ),
        ("split: {blue: 90, green: 10}", "the shares sum to 100 basis points, which is 1%"),
        ("split: {blue: 90, green: 10}", "write blue=90%, green=10%"),
        ("split: {blue: 33.333%}", "models[0].split.blue: '33.333%' is not a share: percent from 0% to 100%"),
        ("split: {blue: 101%}", "models[0].split.blue: '101%' is not a share"),
        ("versions: [{protocol: htp2}]", "'htp2' is not one of the values; did you mean 'http2'?"),
        ("versions: [{protocol: smoke}]", "'smoke' is not one of the values; the values are: http1, http2, grpc"),
        ("create_time: yesterday", "models[0].create_time: is the text 'yesterday'; it must be a time like"),
        ("versions: [7]", "models[0].versions[0]: is the number 7; it must have fields: name, endpoints"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(tmp_path: Path, line: str, expected: str) -> None:
    path = write_file(tmp_path, f"models:\n  - name: iris\n    {line}\n")
    message = problems_of(path)
    assert message.startswith(f"{path}:3: ")
    assert expected in message


def test_a_field_in_both_spellings_names_both_places(tmp_path: Path) -> None:
    path = write_file(tmp_path, "models:\n  - name: iris\n    preview_header: a\n    previewHeader: b\n")
    assert problems_of(path) == (
        f"{path}:4: models[0]: 'previewHeader' is given twice; the first is 'preview_header' on line 3"
    )


def test_a_name_twice_names_both_places(tmp_path: Path) -> None:
    first = write_file(tmp_path, "models:\n  - name: iris\n", "1.yaml")
    second = write_file(tmp_path, "\n\nmodels:\n  - name: models/iris\n", "2.yaml")
    assert problems_of(first, second) == f"{second}:4: models[1].name: models/iris is defined already, at {first}:2"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    field=st.sampled_from(["timeouts: {idle: %s}", "create_time: %s", "split: {v: %s}", "mirror: {basis_points: %s}"]),
    text=st.builds("".join, st.tuples(numbers, st.sampled_from(["", "s", "ms", "m", "h", "Z", "-01-01T00:00:00Z"]))),
)
@example("timeouts: {idle: %s}", "315576000000.5s")
@example("create_time: %s", "0000-01-01T00:00:00Z")
@example("create_time: %s", "99999999999999-01-01T00:00:00Z")
def test_every_number_and_time_is_accepted_or_an_error_with_its_line(
    monkeypatch: pytest.MonkeyPatch, field: str, text: str
) -> None:
    data = f"models:\n- name: iris\n  {field % text}\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    lines = {3}
    try:
        load(["-"])
    except FilesError as error:
        lines = {p.place.line for p in error.problems if p.place}
    assert lines == {3}
