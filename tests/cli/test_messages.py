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
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest

# No noun takes control characters, and neither does YAML.
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
