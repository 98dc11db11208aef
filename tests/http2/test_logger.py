"""The default log of a server."""

from __future__ import annotations

import logging

import pytest

from controlplane.http2.logger import StandardLogger


def test_events_go_to_the_standard_library(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "http2")
    logger = StandardLogger()
    logger.info("connection closed: protocol error", peer="127.0.0.1:5000")
    logger.error("connection failed", peer="127.0.0.1:5000", exc_info=ValueError("why"))
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR"]
    assert "connection closed: protocol error {'peer': '127.0.0.1:5000'}" in caplog.text
    assert "ValueError: why" in caplog.text
