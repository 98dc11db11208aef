"""Reading files of desired state, and the texts for their problems."""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from controlplane.cli import schema
from controlplane.cli.exits import FilesError, Problem
from controlplane.cli.files import MAX_BYTES, load
from controlplane.errors import Code, Error, Violation
from tests.cli.conftest import MINIMAL, problems_of, write_file


def test_a_file(minimal: Path) -> None:
    loaded = load([str(minimal)])
    assert MessageToDict(loaded.manifest, preserving_proto_field_name=True) == {
        "gateways": [{"name": "edge", "port": 10000}],
        "models": [
            {
                "name": "iris",
                "gateways": ["edge"],
                "versions": [
                    {"name": "blue", "endpoints": [{"host": "127.0.0.1", "port": 8001}]},
                    {"name": "green", "endpoints": [{"host": "127.0.0.1", "port": 8002}]},
                ],
                "split": {"blue": 10000},
            }
        ],
    }


def test_documents_files_and_folders_are_one_manifest(tmp_path: Path) -> None:
    write_file(tmp_path, "models: [{name: b}]\n---\n---\nmodels: [{name: c}]\n", "2.yml")
    write_file(tmp_path, '{"models": [{"name": "a"}]}', "1.json")
    write_file(tmp_path, "not: read", "notes.txt")
    write_file(tmp_path, "not: read", ".hidden.yaml")
    loaded = load([str(tmp_path)])
    assert [m.name for m in loaded.manifest.models] == ["a", "b", "c"]
    assert str(loaded.place("models[2].name")) == f"{tmp_path}/2.yml:4"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ":1: is empty"),
        ("# only words\n", ":1: is empty"),
        ("models: []\n", ":1: contains no objects"),
        ("just words\n", ":1: is the text 'just words'; a file must contain lists of objects"),
        ("- a\n", ":1: is a list; a file must contain lists of objects"),
        ("name: iris\nport: 1\n", ":1: unknown key 'name'; put objects into lists under"),
        ("model: []\n", ":1: unknown key 'model'; did you mean 'models'?"),
        ("models: {name: iris}\n", ":1: models: is a mapping; it must be a list"),
        ("gateways: [{name: a, port: 1, host: }]", "gateways[0].host: has no value; write `host: {}`"),
        ("gateways: [{name: a, port: 1, host: {}, header: {name: x}}]", "can't be set together with `host`"),
        ("a: [", "is not YAML"),
        (b"models: \xff\n", ":1: is not UTF-8: byte 0xff at offset 8"),
    ],
)
def test_a_wrong_file(tmp_path: Path, text: str | bytes, expected: str) -> None:
    path = write_file(tmp_path, text)
    message = problems_of(path)
    assert message.startswith(str(path))
    assert expected in message


def test_the_problems_of_all_files_are_listed(tmp_path: Path) -> None:
    first = write_file(tmp_path, "models: [{nme: a}]\n", "1.yaml")
    second = write_file(tmp_path, "gateways: [{name: a, prt: 1}]\n", "2.yaml")
    message = problems_of(first, second, tmp_path / "none.yaml")
    assert "'nme'" in message
    assert "'prt'" in message
    assert "none.yaml: can't be read: no such file or directory" in message


def test_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(20 * 2**20)
    assert problems_of(path) == f"{path}: is 20.0 MB; the limit is 16 MB"


def test_a_device_is_read_up_to_the_limit() -> None:
    assert problems_of("/dev/zero") == f"/dev/zero: is larger than the limit of {MAX_BYTES // 2**20} MB"


def test_folders_without_files(tmp_path: Path) -> None:
    assert problems_of(tmp_path) == f"{tmp_path}: is a folder without files that end in .yaml, .yml, .json"


def test_an_unreadable_file_is_an_error() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        path = write_file(directory, MINIMAL)
        with without_root():
            assert path.read_text()
        path.chmod(0)
        with without_root():
            assert "permission denied" in problems_of(path)


@contextmanager
def without_root() -> Iterator[None]:
    """Drop root's rights for a block, because root can read every file."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("manifest.models[0].versions[1].endpoints[0].port", 11),
        ("models[0].versions[1].endpoints[0].weight", 11),
        ("models[0].split.blue", 12),
        ("models/iris.gateways[0]", 6),
        ("models/iris.keys", 5),
        ("gateways/edge.port", 3),
        ("models[0]", 5),
    ],
)
def test_errors_get_the_places_of_their_fields(minimal: Path, field: str, line: int) -> None:
    error = Error(Code.FAILED_PRECONDITION, "SOME", "expected", violations=(Violation(field, "is wrong"),))
    located = load([str(minimal)]).located(error)
    assert isinstance(located, FilesError)
    assert located.code is Code.FAILED_PRECONDITION
    assert located.reason == "SOME"
    assert str(located) == f"{minimal}:{line}: {field.removeprefix('manifest.')}: is wrong"


@pytest.mark.parametrize("field", ["models/other.keys", "models[7].name", "request_id", "", "Cluster[z3/v].a[b", "]["])
def test_errors_about_other_objects_are_unchanged(minimal: Path, field: str) -> None:
    error = Error(Code.INVALID_ARGUMENT, "SOME", "expected", violations=(Violation(field, "is wrong"),))
    assert load([str(minimal)]).located(error) is error


WORDS = [w for d in json.loads(schema.text())["definitions"].values() for w in d.get("properties", {})]
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["5s", "PROTOCOL_GRPC"])
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=25,
)
ANYTHING = (
    st.text(max_size=80)
    | st.text(alphabet="abc:-[]{}&*<>!|'\"#,? \n\t", max_size=60)
    | TREES.map(lambda tree: json.dumps({"models": [tree], "gateways": [tree]}))
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANYTHING)
@example("{}")
def test_any_text_is_accepted_or_an_error_with_a_place(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    problems: tuple[Problem, ...] | None = None
    try:
        load(["-"])
    except FilesError as error:
        problems = error.problems
    assert problems is None or all(p.place and p.place.file == "<stdin>" and p.description for p in problems)
    assert problems != ()


def test_the_resource_name_of_the_object_of_a_field(tmp_path: Path) -> None:
    loaded = load([str(write_file(tmp_path, "models: [{name: a}, {name: models/b}, {keys: [x]}]"))])
    assert loaded.resource_name("manifest.models[0].split") == "models/a"
    assert loaded.resource_name("models[1]") == "models/b"
    assert loaded.resource_name("manifest.models[2].split") == "models[2]"
