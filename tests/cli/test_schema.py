"""The JSON Schema: what the protos say, and no more and no less than the reader takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from controlplane.cli import schema
from controlplane.cli.files import load
from controlplane.cli.schema.__main__ import rendered
from tests.cli.conftest import MINIMAL

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(p for p in (ROOT / "examples").rglob("*.yaml"))


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
        ("name: blue", "name: blue\n        protocol: http2"),
        ("{blue: 10000}", "{blue: lots}"),
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
