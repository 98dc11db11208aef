"""docs/api.md is generated from the protos, complete, and its links work."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from controlplane.cli.schema.__main__ import compiled
from protos import reference

PROTOS = Path(__file__).parents[2] / "protos"
PACKAGE = PROTOS.parent / "controlplane"


@pytest.fixture(scope="module")
def files() -> FileDescriptorSet:
    return compiled(PROTOS, "turnout/v1/*_service.proto")


@pytest.fixture(scope="module")
def text() -> str:
    return reference.PAGE.read_text(encoding="utf-8")


def test_the_page_is_up_to_date_with_the_protos(text: str) -> None:
    assert text == reference.rendered(PROTOS), "run protos/generate"


def test_every_service_rpc_message_field_and_value_is_described(files: FileDescriptorSet, text: str) -> None:
    declarations = reference.Declarations(files)
    for service in declarations.services:
        for name in (service.descriptor.name, *(m.name for m in service.descriptor.method)):
            assert re.search(rf"^#+ {name}$", text, re.MULTILINE), name
    for name, message in declarations.messages.items():
        assert message.comment, name
        section = re.split(rf"^#+ {name}$", text, flags=re.MULTILINE)[1].partition("\n#")[0]
        for i, field in enumerate(message.descriptor.field):
            assert message.comments[2, i], f"{name}.{field.name}"
            assert f"| `{field.name}` |" in section, f"{name}.{field.name}"
    for name, enum in declarations.enums.items():
        assert enum.comment, name
        for i, value in enumerate(enum.descriptor.value):
            assert enum.comments[2, i], value.name
            assert f"| `{value.name}` | {value.number} |" in text


# Raised by CSDS or when a server starts. The page describes neither.
ELSEWHERE = {"ANSWER_TOO_LARGE", "REQUEST_TOO_LARGE", "CANNOT_LISTEN", "PORT_TAKEN"}


def reasons() -> set[str]:
    """Return the reasons of errors that the API, the domain and the writer raise."""
    sources = [p for folder in ("api", "domain") for p in (PACKAGE / folder).rglob("*.py")]
    result: set[str] = set()
    for path in [*sources, PACKAGE / "errors.py", PACKAGE / "writer.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Error", "invalid", "failed_precondition"):
                values = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                result.update(v for v in values if re.fullmatch(r"[A-Z]+(_[A-Z]+)*", v))
    return result


def test_every_reason_of_an_error_is_described(text: str) -> None:
    table = text[text.index("### Reasons") : text.index("## JSON")]
    described = set(re.findall(r"`([A-Z_]+)`", table))
    assert len(reasons()) > 20
    assert reasons() - ELSEWHERE <= described
    # The domain makes these of the nouns: UNKNOWN_…, WRONG_…, …_IN_USE.
    nouns = {"UNKNOWN_GATEWAY", "UNKNOWN_SECRET", "WRONG_SECRET", "GATEWAY_IN_USE", "SECRET_IN_USE", "INVALID_FIELD"}
    raised = "".join(p.read_text() for folder in ("store", "compiler") for p in (PACKAGE / folder).rglob("*.py"))
    assert {r for r in described - reasons() - nouns if f'"{r}"' not in raised} == set()


def test_links_lead_to_headings(text: str) -> None:
    anchors = {re.sub(r"[^a-z0-9-]", "", h.lower().replace(" ", "-")) for h in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    links = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert "getmodelrequest" in links
    assert links <= anchors


def test_headings_are_unique(text: str) -> None:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    assert sorted(set(headings)) == sorted(headings)


def test_an_rpc_with_its_errors(text: str) -> None:
    start = text.index("#### DeleteGateway\n")
    assert text[start : text.index("#####", start)].strip().split("\n\n") == [
        "#### DeleteGateway",
        "[DeleteGatewayRequest](#deletegatewayrequest) → [DeleteGatewayResponse](#deletegatewayresponse); has side effects.",
        "Deletes a gateway.",
        "Errors:\n- NOT_FOUND\n- FAILED_PRECONDITION (GATEWAY_IN_USE) while a model uses it\n"
        "- ABORTED (STALE_ETAG, OTHER_HISTORY)",
    ]


def test_types_behaviors_and_oneofs(text: str) -> None:
    assert "| `split` | map of string to uint32 | optional |" in text
    assert "| `versions` | repeated [Version](#version) | required |" in text
    assert "| `create_time` | google.protobuf.Timestamp | output only |" in text
    assert "| `private_key_pem` | string | optional, input only |" in text
    assert "Resource `turnout.dev/Model`, named `models/{model}`." in text
    assert "At most one of `tls_certificate`, `ca_certificates`, `opaque` is set. Content of the secret." in text
    assert "At most one of `weight`" not in text
    assert "→ stream of [WatchRevisionResponse](#watchrevisionresponse); no side effects." in text
