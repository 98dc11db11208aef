"""The JSON Schema: it matches the protos, and accepts and refuses the same files as the reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.cli import messages, schema
from controlplane.cli.files import load
from controlplane.cli.output import Format
from controlplane.cli.schema.__main__ import rendered
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest
from controlplane.generated.turnout.v1.secret_pb2 import Secret, TlsCertificate
from tests.cli.conftest import MINIMAL

ROOT = Path(__file__).parents[2]
# These folders have files of other kinds.
EXAMPLES = sorted(p for p in (ROOT / "examples").rglob("*.yaml") if p.parent.name not in ("access", "xds-tls"))


@pytest.fixture(scope="module")
def validator() -> Any:
    generated = json.loads(schema.text())
    jsonschema.Draft7Validator.check_schema(generated)
    return jsonschema.Draft7Validator(generated)


def test_the_schema_matches_the_protos() -> None:
    assert schema.text() == rendered(ROOT / "protos"), "run protos/generate"


def test_everything_is_described() -> None:
    generated = json.loads(schema.text())
    for name, definition in generated["definitions"].items():
        assert definition["description"], name
        for field, value in definition.get("properties", {}).items():
            assert value["description"], f"{name}.{field}"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: str(p.relative_to(ROOT)))
def test_examples_are_valid_and_name_the_schema(validator: Any, path: Path) -> None:
    text = path.read_text()
    assert list(validator.iter_errors(yaml.safe_load(text))) == []
    load([str(path)])
    first = text.splitlines()[0]
    assert (path.parent / first.partition("$schema=")[2]).resolve() == schema.FILE.resolve()


@pytest.mark.parametrize("form", [Format.JSON, Format.YAML])
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_get_prints_of_an_example_is_valid(validator: Any, path: Path, form: Format) -> None:
    printed = messages.desired(load([str(path)]).manifest, form)
    assert list(validator.iter_errors(printed)) == []


@pytest.mark.parametrize("form", [Format.JSON, Format.YAML])
def test_a_secret_is_valid_in_both_spellings(validator: Any, form: Format) -> None:
    certificate, time = TlsCertificate(certificate_chain_pem="chain", private_key_pem="key"), Timestamp(seconds=1)
    certificate.leaf.not_after.CopyFrom(time)
    secrets = [Secret(name="secrets/edge", etag="7", create_time=time, update_time=time, tls_certificate=certificate)]
    printed = messages.desired(Manifest(secrets=secrets), form)
    assert list(validator.iter_errors(printed)) == []
    name = messages.key("tls_certificate", form)
    printed["secrets"][0][name].pop(messages.key("certificate_chain_pem", form))
    assert [error.json_path for error in validator.iter_errors(printed)] == [f"$.secrets[0].{name}"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("port: 10000", "prt: 10000"),
        ("port: 10000", "port: many"),
        ("port: 10000", "port: -1"),
        ("port: 10000", "port: 1\n    host: {}\n    header: {name: x}"),
        ("name: iris", "nme: iris"),
        ("gateways: [edge]", "gateways: edge"),
        ("gateways: [edge]", "gateways: [edge]\n    timeouts: {idle: 5m}"),
        ("name: blue", "name: blue\n        protocol: htp2"),
        ("{blue: 10000}", "{blue: lots}"),
        ("gateways: [edge]", "gateways: [edge]\n    preview_header: x\n    previewHeader: y"),
        ("models:", "modelz:"),
    ],
)
def test_schema_and_reader_refuse_the_same_files(validator: Any, tmp_path: Path, old: str, new: str) -> None:
    assert old in MINIMAL
    text = MINIMAL.replace(old, new, 1)
    assert list(validator.iter_errors(yaml.safe_load(text)))
    path = tmp_path / "f.yaml"
    path.write_text(text)
    if "nme" not in new:
        with pytest.raises(Exception, match=r"f\.yaml"):
            load([str(path)])
