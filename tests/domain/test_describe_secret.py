"""Descriptions of secrets: public facts, and never a private key."""

from __future__ import annotations

import re

from controlplane.domain import OpaqueValue, Secret
from controlplane.domain.describe import lines
from controlplane.domain.describe_secret import secret_lines
from tests.pki import authority, marks, pair


def test_secrets_are_described_by_public_facts() -> None:
    old, new = pair("old.example"), pair("new.example")
    before, renewed = old.secret(), new.secret()
    created = lines(None, before)
    assert [line.partition(": ")[0] for line in created] == ["certificate", "subject", "names", "not before", "not after"]
    assert created[1:3] == ["subject: CN=old.example", "names: old.example"]
    assert re.fullmatch(r"certificate: sha256 [0-9a-f]{16}…", created[0])
    changed = lines(before, renewed)
    assert re.fullmatch(r"certificate: sha256 [0-9a-f]{16}… -> [0-9a-f]{16}…|.* -> sha256 [0-9a-f]{16}…", changed[0])
    assert changed[1] == "subject: CN=old.example -> CN=new.example"
    assert lines(before, before) == lines(before, None) == []
    other_kind = lines(before, authority().secret("edge"))
    assert other_kind[0] == "tls_certificate -> ca_certificates"
    assert other_kind[2] == "subjects: CN=test authority"
    assert not any(mark in repr(created + changed + other_kind) for p in (old, new) for mark in marks(p.key))


def test_times_are_written_in_utc() -> None:
    created = secret_lines(None, pair("a.example").secret())
    assert all(re.fullmatch(r"not (before|after): \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line) for line in created[-2:])


def test_only_the_changed_facts_have_a_line() -> None:
    old, new = pair("a.example").secret(), pair("a.example").secret()
    assert secret_lines(old, old) == []
    assert not any(line.startswith(("subject", "names")) for line in secret_lines(old, new))


def test_of_an_opaque_value_only_the_change_is_told() -> None:
    old, new = Secret("key", OpaqueValue("sk-1234")), Secret("key", OpaqueValue("sk-5678"))
    assert secret_lines(None, old) == ["value: set"]
    assert secret_lines(old, new) == ["value: changed"]
    assert secret_lines(old, old) == []
    assert secret_lines(pair("a.example").secret("key"), new) == ["tls_certificate -> opaque", "value: set"]
    assert secret_lines(new, authority().secret("key"))[0] == "opaque -> ca_certificates"
