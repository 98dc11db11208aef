"""Files of desired state: what is read, and what is said of what is wrong in them."""

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

from controlplane.cli import messages, schema
from controlplane.cli.exits import FilesError, Problem
from controlplane.cli.files import MAX_BYTES, load
from controlplane.cli.output import Format
from controlplane.errors import Code, Error, Violation
from controlplane.generated.turnout.v1.model_pb2 import Model, Protocol
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest
from tests.cli.conftest import MINIMAL


def refused(*names: str | Path) -> str:
    with pytest.raises(FilesError) as caught:
        load([str(n) for n in names])
    return str(caught.value)


def written(folder: Path, text: str | bytes, name: str = "f.yaml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


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
    model = load([str(written(tmp_path, text))]).manifest.models[0]
    assert model.etag == "7"
    assert model.create_time.seconds > 0
    assert model.versions[0].connect_timeout.nanos == 500_000_000
    assert model.versions[0].tls.insecure_skip_verify
    assert model.retries.HasField("attempts")
    assert not model.retries.HasField("per_try_timeout")
    assert model.sticky.WhichOneof("key") == "cookie"


def test_documents_files_and_folders_are_one_manifest(tmp_path: Path) -> None:
    written(tmp_path, "models: [{name: b}]\n---\n---\nmodels: [{name: c}]\n", "2.yml")
    written(tmp_path, '{"models": [{"name": "a"}]}', "1.json")
    written(tmp_path, "not: read", "notes.txt")
    written(tmp_path, "not: read", ".hidden.yaml")
    loaded = load([str(tmp_path)])
    assert [m.name for m in loaded.manifest.models] == ["a", "b", "c"]
    assert str(loaded.place("models[2].name")) == f"{tmp_path}/2.yml:4"


@pytest.mark.parametrize(
    ("line", "said"),
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
        ("versions: [{protocol: http2}]", "did you mean PROTOCOL_HTTP2?"),
        ("versions: [{protocol: smoke}]", "'smoke' is not one of the values; the values are: PROTOCOL_HTTP1"),
        ("create_time: yesterday", "models[0].create_time: is the text 'yesterday'; it must be a time like"),
        ("versions: [7]", "models[0].versions[0]: is the number 7; it must have fields: name, endpoints"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    path = written(tmp_path, f"models:\n  - name: iris\n    {line}\n")
    message = refused(path)
    assert message.startswith(f"{path}:3: ")
    assert said in message


@pytest.mark.parametrize(
    ("text", "said"),
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
def test_a_wrong_file(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = written(tmp_path, text)
    message = refused(path)
    assert message.startswith(str(path))
    assert said in message


def test_a_name_twice_names_both_places(tmp_path: Path) -> None:
    one = written(tmp_path, "models:\n  - name: iris\n", "1.yaml")
    two = written(tmp_path, "\n\nmodels:\n  - name: models/iris\n", "2.yaml")
    assert refused(one, two) == f"{two}:4: models[1].name: models/iris is defined already, at {one}:2"


def test_all_that_is_wrong_in_all_files_is_said(tmp_path: Path) -> None:
    one = written(tmp_path, "models: [{nme: a}]\n", "1.yaml")
    two = written(tmp_path, "gateways: [{name: a, prt: 1}]\n", "2.yaml")
    message = refused(one, two, tmp_path / "none.yaml")
    assert "'nme'" in message
    assert "'prt'" in message
    assert "none.yaml: can't be read: no such file or directory" in message


def test_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(20 * 2**20)
    assert refused(path) == f"{path}: is 20.0 MB; the limit is 16 MB"


def test_what_has_no_size_is_bounded_too() -> None:
    assert refused("/dev/zero") == f"/dev/zero: is larger than the limit of {MAX_BYTES // 2**20} MB"


def test_folders_without_files(tmp_path: Path) -> None:
    assert refused(tmp_path) == f"{tmp_path}: is a folder without files that end in .yaml, .yml, .json"


def test_forbidden() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        path = written(directory, MINIMAL)
        with somebody():
            assert path.read_text()
        path.chmod(0)
        with somebody():
            assert "permission denied" in refused(path)


@contextmanager
def somebody() -> Iterator[None]:
    """Whoever runs this, but not as root, who may read everything."""
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
def test_violations_are_located(minimal: Path, field: str, line: int) -> None:
    error = Error(Code.FAILED_PRECONDITION, "SOME", "said", violations=(Violation(field, "is wrong"),))
    located = load([str(minimal)]).located(error)
    assert isinstance(located, FilesError)
    assert located.code is Code.FAILED_PRECONDITION
    assert located.reason == "SOME"
    assert str(located) == f"{minimal}:{line}: {field.removeprefix('manifest.')}: is wrong"


@pytest.mark.parametrize("field", ["models/other.keys", "models[7].name", "request_id", "", "Cluster[z3/v].a[b", "]["])
def test_other_violations_stay_as_they_are(minimal: Path, field: str) -> None:
    error = Error(Code.INVALID_ARGUMENT, "SOME", "said", violations=(Violation(field, "is wrong"),))
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
def test_whatever_is_read_is_taken_or_refused_with_a_place(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    problems: tuple[Problem, ...] | None = None
    try:
        load(["-"])
    except FilesError as error:
        problems = error.problems
    assert problems is None or all(p.place and p.place.file == "<stdin>" and p.description for p in problems)
    assert problems != ()


digits = st.text("0123456789", min_size=1, max_size=14)
numbers = st.builds(
    "".join,
    st.tuples(st.sampled_from(["", "-", "+"]), digits, st.sampled_from(["", ".0", ".5", ".123456789012", "e9", "E400"])),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    field=st.sampled_from(["timeouts: {idle: %s}", "create_time: %s", "split: {v: %s}", "mirror: {basis_points: %s}"]),
    text=st.builds("".join, st.tuples(numbers, st.sampled_from(["", "s", "ms", "m", "h", "Z", "-01-01T00:00:00Z"]))),
)
@example("timeouts: {idle: %s}", "315576000000.5s")
@example("create_time: %s", "0000-01-01T00:00:00Z")
@example("create_time: %s", "99999999999999-01-01T00:00:00Z")
def test_every_number_and_time_is_taken_or_refused_with_its_line(
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


# No noun takes control characters, and neither does YAML.
names = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=names,
    key=names,
    header=names,
    shares=st.dictionaries(names, st.integers(0, 2**32 - 1)),
    nanos=st.integers(0, 10**9 - 1),
)
def test_what_is_printed_is_read_back(
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
