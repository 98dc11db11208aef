"""Secrets on the command line. No output, log or stored file contains a private key."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import pytest
import structlog
import yaml

from controlplane import logs
from controlplane.cli.main import main
from controlplane.envoy_types import SECRET
from tests.cli.conftest import MINIMAL, Run, Server
from tests.fakes.xds_client import XdsClient
from tests.pki import Pair, authority, marks, pair

OLD, NEW = pair("old.example"), pair("new.example")


def leaked(text: str) -> bool:
    return "PRIVATE KEY" in text or any(mark in text for p in (OLD, NEW) for mark in marks(p.key))


def indented(pem: str) -> str:
    return "".join(f"        {line}\n" for line in pem.splitlines())


def document(pair_: Pair) -> str:
    return (
        "secrets:\n  - name: edge\n    tls_certificate:\n      certificate_chain_pem: |\n"
        f"{indented(pair_.certificate)}      private_key_pem: |\n{indented(pair_.key)}"
    )


def test_set_rotate_show_and_delete(run: Run, server: Server, tmp_path: Path) -> None:
    certificate, key = OLD.files(tmp_path, "old")
    created = run("secret", "set", "edge", "--cert", certificate, "--key", key, "-r", "first")
    assert (created.code, created.err) == (0, "")
    assert "secrets/edge" in created.out
    printed = run("get", "secrets")
    assert "old.example" in printed.out
    assert "(89d)" in printed.out
    same = run("secret", "set", "edge", "--cert", certificate)
    assert "is like this already" in same.out
    new, _ = NEW.files(tmp_path, "new")
    needs = run("secret", "set", "edge", "--cert", new)
    assert (needs.code, "the stored key does not belong to this certificate" in needs.err) == (3, True)
    rotated = run("secret", "set", "edge", "--cert", new, "--key", "-", "-o", "json", stdin=NEW.key)
    assert rotated.json["changed"] is True
    (tmp_path / "ca.pem").write_text(authority().certificate)
    assert run("secret", "set", "clients", "--ca", tmp_path / "ca.pem").code == 0
    everything = run("get", "all", "-o", "yaml")
    assert [s["name"] for s in yaml.safe_load(everything.out)["secrets"]] == ["secrets/clients", "secrets/edge"]
    again = run("apply", "-f", "-", stdin=everything.out)
    assert "is like this already" in again.out
    assert run("get", "secrets", "-o", "name").out == "secrets/clients\nsecrets/edge\n"
    gone = run("delete", "secrets/edge", "secrets/clients", "--yes")
    assert gone.code == 0
    undone = run("revert", "latest", "--yes")
    history = [run("history", "secrets/edge", "-o", form) for form in ("table", "json")]
    diffs = [run("diff", "1", "2"), run("diff", "0"), run("get", "revision", "2"), run("get", "secret", "edge", "-o", "json")]
    assert diffs[0].out.splitlines()[1].startswith("    certificate: sha256 ")
    for result in (created, printed, same, needs, rotated, everything, again, gone, undone, *history, *diffs):
        assert not leaked(result.out + result.err)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((), "give one of --cert (with --key), --ca and --value"),
        (("--ca", "a", "--cert", "b"), "give one of --cert (with --key), --ca and --value"),
        (("--ca", "a", "--key", "b"), "needs --cert"),
        (("--ca", "/nowhere/a.pem"), "/nowhere/a.pem: can't be read: no such file or directory"),
        (("--ca", "/dev/zero"), "/dev/zero: is larger than 256 KB: not a certificate, a key or a value"),
    ],
)
def test_wrong_options_are_errors(run: Run, args: tuple[str, ...], expected: str) -> None:
    result = run("secret", "set", "edge", *args)
    assert (result.code in (2, 3), expected in result.err) == (True, True)


def test_errors_name_the_options(run: Run, server: Server, tmp_path: Path) -> None:
    old, key = OLD.files(tmp_path, "old")
    new, other = NEW.files(tmp_path, "new")
    (tmp_path / "text").write_text("text")
    for args, expected in (
        (("edge", "--cert", old, "--key", other), "Error: --key: "),
        (("edge", "--cert", old), "Error: --key: "),
        (("edge", "--cert", tmp_path / "text", "--key", key), "Error: --cert: "),
        (("edge", "--ca", tmp_path / "text"), "Error: --ca: "),
        (("a b", "--cert", new, "--key", other), "Error: NAME: "),
    ):
        result = run("secret", "set", *args)
        assert result.code == 3
        assert result.err.startswith(expected), result.err
        assert "secrets[0]" not in result.err


def test_files_that_are_wrong_are_not_quoted(run: Run, server: Server, tmp_path: Path) -> None:
    key = OLD.key
    invalid_files = [
        document(Pair(OLD.certificate, NEW.key, 0)),
        document(Pair(OLD.key, OLD.key, 0)),
        f"secrets:\n  - name: edge\n    tls_certificate: |\n{indented(key)}",
        f"secrets:\n  - |\n{indented(key)}",
        f"secrets: |\n{indented(key)}",
        f"secrets:\n  - name: |\n{indented(key)}    ca_certificates: {{}}\n",
        f"secrets:\n  - name: edge\n    tls_certificate:\n      private_key_pem:\n        - |\n  {indented(key)}",
        f"secrets:\n  - name: edge\n    tls_certificate:\n      {key.splitlines()[1]}: x\n",
        f"secrets:\n  - name: edge\n    tls_certificate:\n      leaf: {{not_after: {key.splitlines()[1]}}}\n",
        f"secrets:\n  - name: edge\n    tls_certificate:\n      private_key_pem:\n{key}",
        document(OLD) + "      more: x\n",
    ]
    for text in invalid_files:
        for command in (("apply", "-f", "-"), ("validate", "-f", "-", "--offline")):
            result = run(*command, stdin=text)
            assert result.code == 3, text
            assert not any(mark in result.out + result.err for mark in marks(key)), result.err
    assert run("validate", "-f", "-", "--offline", stdin=document(OLD)).out.startswith(
        "Valid: 0 gateways, 0 models, 1 secret."
    )


def test_an_example_needs_its_secrets_and_then_applies(run: Run, server: Server, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "tls-gateway"
    assert run("validate", "-f", example, "--offline").code == 0
    missing = run("apply", "-f", example)
    assert missing.code == 5
    assert "gateway.yaml:15" in missing.err
    assert "secrets/edge does not exist" in missing.err
    (tmp_path / "ca.pem").write_text(authority().certificate)
    for name in ("edge", "envoys"):
        certificate, key = OLD.files(tmp_path, name)
        assert run("secret", "set", name, "--cert", certificate, "--key", key).code == 0
    for name in ("clients", "models"):
        assert run("secret", "set", name, "--ca", tmp_path / "ca.pem").code == 0
    applied_ = run("apply", "-f", example, "--validate-with-envoy")
    assert applied_.code == 0, applied_.err
    assert "accepts it" in applied_.err
    assert "0.0.0.0:10443 (TLS)" in run("get", "gateways").out


def test_the_example_of_a_managed_endpoint_needs_its_secret_and_then_applies(run: Run, server: Server) -> None:
    example = Path(__file__).parents[2] / "examples" / "managed-endpoint"
    missing = run("apply", "-f", example)
    assert (missing.code, "secrets/provider does not exist" in missing.err) == (5, True)
    assert run("secret", "set", "provider", "--value", "-", stdin="sk-1234").code == 0
    applied = run("apply", "-f", example, "--validate-with-envoy")
    assert (applied.code, "accepts it" in applied.err) == (0, True)


def test_no_log_line_or_stored_file_contains_a_key(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Like `logs.set_up`, but without caching: cached loggers would write to this test's stderr later, too.
    structlog.configure(
        processors=[structlog.processors.JSONRenderer(), logs._redact],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    server = Server(tmp_path / "data")
    try:
        monkeypatch.setenv("TURNOUT_API", server.api)
        text = MINIMAL.replace("    port: 10000\n", "    port: 10000\n    tls: {certificate: secrets/edge}\n")
        (tmp_path / "all.yaml").write_text(text + document(OLD))
        assert main(["apply", "-f", str(tmp_path / "all.yaml")]) == 0
        (tmp_path / "all.yaml").write_text(document(Pair(OLD.certificate, NEW.key, 0)))
        assert main(["apply", "-f", str(tmp_path / "all.yaml")]) == 3
        words = f"Failed to load private key from <inline>: {OLD.key}"
        refuse: list[str] = []
        client = server.connect("edge-1", refuse=lambda type_url: words if type_url in refuse else "")
        server.wait(client.until(lambda: client.names(SECRET) == {"edge"}))
        refuse.append(SECRET)
        (tmp_path / "all.yaml").write_text(document(NEW))
        assert main(["apply", "-f", str(tmp_path / "all.yaml"), "--wait", "--timeout", "5"]) == 8
        assert main(["nodes", "edge-1"]) == 0
        assert main(["status"]) == 0
        structlog.get_logger("test").error("a mistake", request=OLD.key)
    finally:
        server.stop()
        structlog.reset_defaults()
    out, err = capfd.readouterr()
    assert '"event": "revision committed"' in err
    assert "Failed to load private key from <inline>: [a private key]" in out
    assert '"request": "[a private key]' in err
    assert not leaked(out + err)
    files = [p for p in (tmp_path / "data").iterdir() if p.is_file()]
    assert len(files) >= 2
    assert leaked(OLD.key[60:])  # the search itself works
    assert not any(leaked(p.read_bytes().decode("latin-1")) for p in files)
    assert json.loads(err.splitlines()[0])


def test_an_opaque_value_is_set_rotated_and_never_shown(run: Run, server: Server, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-1234-abcd\n")
    created = run("secret", "set", "openai", "--value", tmp_path / "key")
    rotated = run("secret", "set", "openai", "--value", "-", "-o", "json", stdin="sk-5678-efgh\r\n")
    assert (created.code, rotated.code, rotated.json["changed"]) == (0, 0, True)
    same = run("secret", "set", "openai", "--value", "-", stdin="sk-5678-efgh")
    assert "is like this already" in same.out
    everything = run("get", "all", "-o", "yaml")
    assert [(s["name"], s["opaque"]) for s in yaml.safe_load(everything.out)["secrets"]] == [("secrets/openai", {})]
    assert "is like this already" in run("apply", "-f", "-", stdin=everything.out).out
    table, history = run("get", "secrets"), run("history", "-o", "yaml")
    assert "opaque" in table.out
    bad = run("secret", "set", "openai", "--value", "-", stdin="sk-9999\nsk-0000")
    assert (bad.code, "--value: must be" in bad.err) == (3, True)
    texts = [created, rotated, same, everything, table, history, bad, run("delete", "secrets/openai", "--yes")]
    assert not any(mark in f"{t.out}{t.err}" for t in texts for mark in ("1234", "5678", "9999", "0000"))
    files = [p.read_bytes() for p in server.data.rglob("*") if p.is_file()]
    assert files
    assert not any(mark in data for data in files for mark in (b"sk-1234", b"sk-5678"))


CREDENTIAL = "sk-first-0a1b2c3d4e5f"
NEXT_CREDENTIAL = "sk-second-9f8e7d6c5b4a"
WITH_CREDENTIAL = MINIMAL.replace("8002}]\n", "8002}]\n        credential: {secret: secrets/openai}\n")


def credential(value: str) -> str:
    return f"secrets:\n  - name: openai\n    opaque: {{value: {value}}}\n"


def test_a_credential_needs_its_secret(run: Run, server: Server) -> None:
    missing = run("apply", "-f", "-", stdin=WITH_CREDENTIAL)
    assert (missing.code, "secrets/openai does not exist" in missing.err) == (5, True)
    assert run("get", "all", "-o", "name").out == ""
    assert run("apply", "-f", "-", stdin=WITH_CREDENTIAL + credential(CREDENTIAL)).code == 0
    kept = run("delete", "secrets/openai", "--yes", "--allow-cut", "--force")
    assert (kept.code, "models/iris" in kept.err) == (5, True)
    assert run("get", "secrets", "-o", "name").out == "secrets/openai\n"


def test_no_command_or_resource_shows_the_credential_of_a_version(run: Run, server: Server, tmp_path: Path) -> None:
    whole = WITH_CREDENTIAL + credential(CREDENTIAL)
    results = [run("validate", "-f", "-", stdin=whole), run("apply", "-f", "-", "--dry-run", stdin=whole)]
    results.append(run("apply", "-f", "-", "--dry-run", "-o", "json", stdin=whole))
    assert [r.code for r in results] == [0, 1, 1]
    results.append(run("apply", "-f", "-", stdin=whole))
    clients = [server.connect(f"edge-{variant}", variant) for variant in ("delta", "sotw")]
    for value in (CREDENTIAL, NEXT_CREDENTIAL):
        results.append(run("secret", "set", "openai", "--value", "-", stdin=value))
        for client in clients:
            server.wait(client.until(lambda c=client, v=value: v in _text(c, SECRET)))  # type: ignore[misc]
    # It is in the Secret alone.
    for client in clients:
        assert {type_url for type_url in client.held if "sk-" in _text(client, type_url)} == {SECRET}
        assert "credential_injector" in "".join(_text(client, type_url) for type_url in client.held)
    results += [
        run(*args.split())
        for args in (
            "get all -o yaml",
            "get models iris -o json",
            "get secret openai -o json",
            "get revision 2 -o json",
            "history -o json",
            "history secrets/openai -o yaml",
            "diff 0 2",
            "diff 1 2 -o json",
            "nodes -o json",
            "nodes edge-delta",
            "status -o json",
            "traffic iris -o json",
            "switch iris --to green --dry-run",
            "revert 2 --dry-run",
            "delete secrets/openai --yes",
        )
    ]
    results.append(run("secret", "set", "openai", "--value", "-", "--dry-run", stdin=CREDENTIAL))
    results.append(run("apply", "-f", "-", stdin=WITH_CREDENTIAL + credential(f"[{CREDENTIAL}]")))
    results.append(run("apply", "-f", "-", stdin=WITH_CREDENTIAL + credential(f"{{a: {CREDENTIAL}}}")))
    results.append(run("apply", "-f", "-", stdin=WITH_CREDENTIAL + credential(f'"{CREDENTIAL}\\n{NEXT_CREDENTIAL}"')))
    results.append(run("backup", tmp_path / "backup.db", "--data", server.data))
    assert [r.code for r in results[-3:]] == [3, 3, 0]
    for result in results:
        assert result.out + result.err
        assert "sk-" not in result.out + result.err
    stored = [p.read_bytes() for p in (*server.data.rglob("*"), tmp_path / "backup.db") if p.is_file()]
    assert len(stored) > 2
    marks_ = [form for v in (CREDENTIAL, NEXT_CREDENTIAL) for form in (v.encode(), base64.b64encode(v.encode())[:-4])]
    assert not [mark for mark in marks_ if any(mark in data for data in stored)]


def _text(client: XdsClient, type_url: str) -> str:
    """Return the resources of a type that a client holds, as text in which values can be found."""
    return "".join(body.decode("latin-1") for _, body in client.held.get(type_url, {}).values())


def test_withdrawn_keys_are_listed_and_purged(run: Run, server: Server, tmp_path: Path) -> None:
    for pair_ in (OLD, NEW):
        certificate, key = pair_.files(tmp_path, "edge")
        assert run("secret", "set", "edge", "--cert", certificate, "--key", key).code == 0
    listed = run("secret", "purge", "edge", "--dry-run")
    assert "Nothing was purged." in listed.out
    unasked = run("secret", "purge", "edge")
    assert (unasked.code, "--yes" in unasked.err) == (2, True)
    purged = run("secret", "purge", "edge", "--yes", "-o", "json")
    (key_id,) = [key["id"] for key in purged.json["keys"]]
    assert key_id in listed.out
    assert "has no withdrawn key" in run("secret", "purge", "edge").out
    back = run("revert", "2", "--yes")
    assert (back.code, "was purged, so nobody can go back to it" in back.err) == (5, True), back.err
    assert run("history").code == 0
    assert run("diff", "1", "2").code == 1  # there is a difference
    assert "new.example" in run("get", "secrets").out
