"""The script of body gateways, run by Lua 5.1 (`lua.py`)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.compiler.body_script import IMPOSSIBLE, NO_MODEL, START
from controlplane.compiler.grpc_models import HEADER as GRPC_HEADER
from controlplane.domain.checks import MODEL_NAME
from tests.compiler.lua import Result, run, runtime
from tests.nouns import some

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


@pytest.fixture(scope="module")
def lua() -> Any:
    return runtime()


def found(request: Result) -> str | int:
    """Return the part of the header after the separator; the status if the script answers itself."""
    if request.answer is not None:
        assert "message" in json.loads(request.answer[1])["error"]
        return request.answer[0]
    scope, _, model = request.header.partition("|")
    assert scope == "edge"
    return model


BODIES: list[tuple[str, str | bytes, str | int]] = [
    ("plain", '{"model":"iris"}', "iris"),
    ("after a nested one", '{"a":{"model":"no"},"model":"iris"}', "iris"),
    ("only nested", '{"a":{"model":"iris"}}', NO_MODEL),
    ("in a list", '[{"model":"iris"}]', NO_MODEL),
    ("a list of strings", '["model","iris"]', NO_MODEL),
    ("a value named model", '{"a":"model","b":"iris"}', NO_MODEL),
    ("twice", '{"model":"no","model":"iris"}', "iris"),
    ("twice, then null", '{"model":"no","model":null}', NO_MODEL),
    ("spaces", '\n { "a" : [ 1 , { } ] , "model"\t:\r\n"iris" }', "iris"),
    ("in a string", r'{"a":"\"model\":\"no\",","model":"iris"}', "iris"),
    ("after a backslash", r'{"a":"b\\","model":"iris"}', "iris"),
    ("escaped", r'{"mod\u0065l":"meta-llama\/Llama-3.1-8B-Instr\u0075ct"}', LLAMA),
    ("Ollama's", '{"model":"llama3.1:8b"}', "llama3.1:8b"),
    ("empty", '{"model":""}', NO_MODEL),
    ("null", '{"model":null}', NO_MODEL),
    ("number", '{"model":5}', 400),
    ("true", '{"model": true}', 400),
    ("list", '{"model":["iris"]}', 400),
    ("object", '{"model":{"model":"iris"}}', 400),
    ("CR", r'{"model":"iris\r"}', IMPOSSIBLE),
    ("LF", r'{"model":"iris\nx-evil: 1"}', IMPOSSIBLE),
    ("a raw LF", '{"model":"iris\n"}', IMPOSSIBLE),
    ("NUL", r'{"model":"iris\u0000"}', IMPOSSIBLE),
    ("a raw NUL", '{"model":"iris\0"}', IMPOSSIBLE),
    ("not ASCII", '{"model":"irís"}', IMPOSSIBLE),
    ("escaped, not ASCII", r'{"model":"ir\u00eds"}', IMPOSSIBLE),
    ("a space before", '{"model":" iris"}', IMPOSSIBLE),
    ("the separator", '{"model":"iris|x"}', IMPOSSIBLE),
    ("our own words", f'{{"model":"{START}"}}', IMPOSSIBLE),
    ("253 characters", '{"model":"' + "x" * 253 + '"}', "x" * 253),
    ("254 characters", '{"model":"' + "x" * 254 + '"}', IMPOSSIBLE),
    ("64 KB", '{"model":"' + "x" * 65_536 + '"}', IMPOSSIBLE),
    ("a key of 64 KB", '{"' + "model" * 13_000 + '":1,"model":"iris"}', "iris"),
    ("BOM", b'\xef\xbb\xbf{"model":"iris"}', "iris"),
    ("UTF-16", '{"model":"iris"}'.encode("utf-16"), NO_MODEL),
    ("no JSON", "model=iris", NO_MODEL),
    ("no bytes", b"", NO_MODEL),
    ("a string", '"model"', NO_MODEL),
    ("too many brackets", ']]}{"model":"iris"}', NO_MODEL),
    ("cut off", '{"model":"iri', NO_MODEL),
    ("nested deeply", '{"a":' + "[" * 100_000 + "]" * 100_000 + ',"model":"iris"}', "iris"),
]


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("application/grpc", f'["{LLAMA}"]', LLAMA),
        ("application/grpc+proto", '["iris"]', "iris"),
        ("application/grpc", r'["iris\r\nx: y"]', IMPOSSIBLE),
        ("application/grpc", '["iris","wine"]', IMPOSSIBLE),
        ("application/grpc", '[""]', NO_MODEL),
        ("application/grpc", "[null]", NO_MODEL),
        ("application/grpc", "", NO_MODEL),
        ("application/json", '["iris"]', NO_MODEL),
    ],
)
def test_the_name_of_a_grpc_call_is_the_one_that_a_filter_read(lua: Any, kind: str, name: str, expected: str) -> None:
    assert found(run(lua, b"", kind, **{GRPC_HEADER: name})) == expected


@pytest.mark.parametrize(("body", "expected"), [pytest.param(b, e, id=name) for name, b, e in BODIES])
def test_the_name_is_found_in_json(lua: Any, body: str | bytes, expected: str | int) -> None:
    request = run(lua, body)
    assert found(request) == expected
    assert request.cleared == (request.answer is None)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(["model", "a", '"', "\\", "é"]), inner, max_size=4)
    ),
    max_leaves=12,
)
documents = st.dictionaries(st.sampled_from(["model", "x", '\\"model', "ü"]), json_values, max_size=4)


@some
@given(documents, st.booleans(), st.sampled_from([None, 1]), st.integers(0, 70_000))
def test_it_finds_what_a_parser_finds(
    lua: Any, document: dict[str, Any], ascii_: bool, indent: int | None, padding: int
) -> None:
    # The padding moves the rest over the border between two windows.
    text = json.dumps({"pad": "\\" * padding, **document}, ensure_ascii=ascii_, indent=indent)
    model = document.get("model")
    if model is None or model == "":
        expected: str | int = NO_MODEL
    elif not isinstance(model, str):
        expected = 400
    else:
        expected = model if MODEL_NAME.fullmatch(model) else IMPOSSIBLE
    assert found(run(lua, text)) == expected


MODEL, OTHER = 'Content-Disposition: form-data; name="model"', 'Content-Disposition: form-data; name="prompt"'
FILE = 'Content-Disposition: form-data; name="file"; filename="model.wav"\r\nContent-Type: audio/wav'
FORM = "multipart/form-data; boundary=XyZ"


def form(*parts: tuple[str, str]) -> str:
    return "".join(f"--XyZ\r\n{head}\r\n\r\n{value}\r\n" for head, value in parts) + "--XyZ--\r\n"


FORMS: list[tuple[str, str, str]] = [
    ("first", form((MODEL, "iris"), (FILE, "x")), "iris"),
    ("last", form((FILE, "x" * 200_000), (MODEL, "iris")), "iris"),
    ("twice", form((MODEL, "iris"), (MODEL, "no")), "iris"),
    ("none", form((FILE, "x"), (OTHER, "model")), NO_MODEL),
    ("inside a file", form((FILE, f"\r\n{MODEL}\r\n\r\nno"), (MODEL, "iris")), "iris"),
    ("without quotes", form((MODEL.replace('"', ""), "iris")), "iris"),
    ("in capitals", form((MODEL.upper(), "iris")), "iris"),
    ("empty", form((MODEL, "")), NO_MODEL),
    ("after an empty field", form((OTHER, ""), (MODEL, "iris")), "iris"),
    ("two lines", form((MODEL, "iris\r\nx: y")), IMPOSSIBLE),
    ("too long", form((MODEL, "x" * 10_000)), IMPOSSIBLE),
    ("too many parts", form(*[(OTHER, "x")] * 200, (MODEL, "iris")), NO_MODEL),
    ("cut off", form((MODEL, "iris"))[:40], NO_MODEL),
    ("no bytes", "", NO_MODEL),
]


@pytest.mark.parametrize(("body", "expected"), [pytest.param(b, e, id=name) for name, b, e in FORMS])
def test_the_name_is_found_in_forms(lua: Any, body: str, expected: str) -> None:
    assert found(run(lua, body, kind=FORM, path="/v1/audio/transcriptions")) == expected


@pytest.mark.parametrize("at", range(65_525, 65_545))
def test_a_boundary_is_found_across_windows(lua: Any, at: int) -> None:
    assert found(run(lua, form((FILE, "x" * (at - 120)), (MODEL, "iris")), kind=FORM)) == "iris"


BODY = '{"model":"iris"}'


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"kind": "application/json; charset=utf-8"}, "iris"),
        ({"kind": "Application/JSON"}, "iris"),
        ({"kind": "application/vnd.api+json"}, "iris"),
        ({"kind": ""}, "iris"),
        ({"kind": "text/plain"}, "iris"),
        ({"kind": "application/x-www-form-urlencoded"}, "iris"),
        ({"kind": "application/octet-stream"}, NO_MODEL),
        ({"kind": "application/grpc"}, NO_MODEL),
        ({"kind": "multipart/form-data"}, NO_MODEL),
        ({"method": "GET"}, NO_MODEL),
        ({"method": "GET", "path": "/v1/models"}, START),
        ({"method": "HEAD", "path": "/v1/models"}, START),
        ({"method": "GET", "path": "/v1/models?limit=5"}, START),
        ({"method": "GET", "path": "/v1/models/iris"}, START),
        ({"method": "GET", "path": "/models"}, START),
        ({"method": "GET", "path": "/v1/models/"}, START),
        ({"method": "GET", "path": "/v1/modelstore"}, NO_MODEL),
        ({"method": "GET", "path": "/modelstore"}, NO_MODEL),
        ({"method": "GET", "path": "/api/tags"}, START),
        ({"method": "GET", "path": "/v1/files/models"}, NO_MODEL),
        ({"method": "GET", "path": f"/v1/realtime?a=b&model={LLAMA.replace('/', '%2f')}"}, LLAMA),
        ({"method": "GET", "path": "/v1/realtime?amodel=iris"}, NO_MODEL),
        ({"method": "GET", "path": "/v1/realtime?model=iris%0d%0ax"}, IMPOSSIBLE),
        ({"path": "/v1/chat?model=wine"}, "iris"),
        ({"content-encoding": "gzip"}, 415),
        ({"content-encoding": "identity"}, "iris"),
    ],
    ids=str,
)
def test_types_methods_and_paths(lua: Any, request_: dict[str, str], expected: str | int) -> None:
    assert found(run(lua, BODY, **request_)) == expected


def test_parts_of_uploads_are_not_read(lua: Any) -> None:
    for path in ("/v1/files", "/v1/uploads/upload_1/parts", "/v1/containers/c/files?x=1"):
        request = run(lua, form((MODEL, "iris")), kind=FORM, path=path)
        assert found(request) == NO_MODEL


def test_the_name_is_in_the_metadata_without_other_characters(lua: Any) -> None:
    assert run(lua, BODY).model == "iris"
    assert run(lua, r'{"model":"a\r\nb"}').model == "a??b"
    assert run(lua, "{}").model is None


def test_errors_below_api_have_ollamas_form(lua: Any) -> None:
    answer = run(lua, '{"model":5}', path="/api/chat").answer
    assert answer is not None
    assert json.loads(answer[1]) == {"error": "The field model must be a string with the name of a model."}


def test_the_special_values_of_the_header_are_no_names() -> None:
    assert not [word for word in (START, NO_MODEL, IMPOSSIBLE) if MODEL_NAME.fullmatch(word)]
