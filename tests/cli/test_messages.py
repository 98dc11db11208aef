"""The API's messages as JSON and YAML."""

from __future__ import annotations

import io
import json
import sys

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.cli import messages
from controlplane.cli.files import load
from controlplane.cli.output import Format
from controlplane.generated.turnout.v1.model_pb2 import Model, Protocol
from controlplane.generated.turnout.v1.node_service_pb2 import FleetSummary
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest

# Without control characters: the server refuses them in names, and YAML does not allow them.
names = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=12)


EVIL = "a\x1b]0;owned\x07\x1b[2Jb\x9bc\rd\x00\u202ee\u200bf\U000e0041"


def test_data_with_control_characters_survives(capsys: pytest.CaptureFixture[str]) -> None:
    for form, read in ((Format.JSON, json.loads), (Format.YAML, yaml.safe_load)):
        value = {"reason": EVIL, "lines": "a\tb\nc", "both": "a\n\u202eb", "fine": "木 \U0001f600", "\u2066key": "\u202e"}
        messages.print_data(value, form)
        text = capsys.readouterr().out
        assert read(text) == value
        assert not {c for c in text if c != "\n" and not c.isprintable()} - {"\t"}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=names,
    key=names,
    header=names,
    shares=st.dictionaries(names, st.integers(0, 2**32 - 1)),
    nanos=st.integers(0, 10**9 - 1),
)
def test_a_printed_manifest_can_be_read_back(
    monkeypatch: pytest.MonkeyPatch, name: str, key: str, header: str, shares: dict[str, int], nanos: int
) -> None:
    model = Model(name=name, keys=[key, "null", "7", "true", "1e3", "a\nb"], split=shares, etag="12")
    model.sticky.header = header
    model.versions.add(name="v", protocol=Protocol.PROTOCOL_HTTP2).connect_timeout.nanos = nanos
    model.retries.attempts = 0
    manifest = Manifest(models=[model])
    for form in (Format.YAML, Format.JSON):
        printed = io.StringIO()
        monkeypatch.setattr(sys, "stdout", printed)
        messages.print_data(messages.desired(manifest, form), form)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(printed.getvalue().encode())))
        assert load(["-"]).manifest == manifest


def test_json_has_the_names_of_protojson_and_yaml_those_of_files() -> None:
    model = Model(name="models/iris", preview_header="x-version", split={"blue": 10_000})
    assert messages.desired(model, Format.JSON) == {
        "name": "models/iris",
        "previewHeader": "x-version",
        "split": {"blue": 10_000},
    }
    assert "preview_header" in messages.desired(model, Format.YAML)
    assert (messages.key("needs_force", Format.JSON), messages.key("needs_force", Format.YAML)) == (
        "needsForce",
        "needs_force",
    )


def test_a_report_has_every_key() -> None:
    assert messages.report(FleetSummary(), Format.JSON) == {
        "revision": "0",
        "synced": 0,
        "behind": 0,
        "refusing": 0,
        "gone": 0,
        "released": 0,
        "counted": 0,
        "holding": 0,
        "known": 0,
        "notRemembered": 0,
        "expected": [],
    }
    assert messages.reports([FleetSummary()], Format.YAML)[0]["revision"] == "0"


def test_names_of_all_objects() -> None:
    manifest = Manifest()
    manifest.models.add(name="b")
    manifest.gateways.add(name="gateways/a")
    manifest.secrets.add(name="secrets/c")
    assert messages.object_names(manifest) == ["gateways/a", "models/b", "secrets/c"]
