"""Copies of entries: in a file, and in syslog over a Unix socket and over UDP."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from controlplane.audit.entries import Head, line_of
from controlplane.audit.export import SyslogExport, check_target, export_to
from controlplane.errors import Error

LINE, ENTRY = line_of(Head("abcd"), "2026-11-29T10:36:03.120Z", "call", {"identity": "user:anna"})


def test_a_file_gets_each_line(tmp_path: Path) -> None:
    export = export_to(str(tmp_path / "copy.jsonl"))
    export.send(LINE, ENTRY)
    (tmp_path / "copy.jsonl").rename(tmp_path / "rotated")
    export.send(LINE, ENTRY)
    assert (tmp_path / "copy.jsonl").read_bytes() == (tmp_path / "rotated").read_bytes() == LINE
    assert (tmp_path / "copy.jsonl").stat().st_mode & 0o777 == 0o600


def test_syslog_over_a_socket_and_over_udp(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as network:
        log.bind(str(tmp_path / "log"))
        network.bind(("127.0.0.1", 0))
        for target in (f"syslog:{tmp_path / 'log'}", f"syslog:127.0.0.1:{network.getsockname()[1]}"):
            export_to(target).send(LINE, ENTRY)
        for received in (log, network):
            received.settimeout(5)
            text = received.recv(10_000)
            assert re.match(rb"<110>1 2026-11-29T10:36:03.120Z \S+ turnout \d+ audit - \{", text)
            assert text.endswith(LINE.rstrip(b"\n"))


@pytest.mark.parametrize("target", ["relative", "syslog:", "syslog::1", "syslog:host:99999"])
def test_a_wrong_target_is_refused(target: str) -> None:
    with pytest.raises(Error) as caught:
        check_target(target, "--audit-export")
    assert [v.field for v in caught.value.violations] == ["--audit-export"]


def test_targets() -> None:
    for target in ("syslog", "syslog:logs.example", "syslog:[::1]:514"):
        assert isinstance(export_to(target), SyslogExport)
    check_target("", "field")
