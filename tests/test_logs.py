"""Logs. Each test runs a new process, because structlog caches its configuration."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging, structlog
from controlplane import logs
logs.set_up({log_format!r}, {level!r})
log = structlog.get_logger("fleet")
log.info("node connected", node="edge-1", resources=["a", "b"])
log.debug("below the level")
logging.getLogger("some.library").warning("warning of %s", "a library")
logging.getLogger("some.library").info("below the level")
try:
    password = "hunter2"
    1 / len(password[8:])
except ZeroDivisionError:
    log.exception("stream failed")
"""

ODD = """
import logging, structlog
from controlplane import logs
logs.set_up({log_format!r}, {level!r})
log = structlog.get_logger("fleet")
log.info("odd", node="evil\\nname\\u202e\\x1b[2J", names=["\\x1b"])
logging.getLogger("some.library").warning("warning \\x1b[31m")
try:
    raise ValueError("\\x1b[31mwords")
except ValueError:
    log.exception("again")
"""


def log_lines(log_format: str, level: str = "info", program: str = PROGRAM) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program.format(log_format=log_format, level=level)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout == ""
    return done.stderr


def test_each_line_in_json_is_one_object() -> None:
    lines = [json.loads(line) for line in log_lines("json").splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("node connected", "info"),
        ("warning of a library", "warning"),
        ("stream failed", "error"),
    ]
    assert (lines[0]["node"], lines[0]["resources"]) == ("edge-1", ["a", "b"])
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert lines[2]["exception"][0]["exc_type"] == "ZeroDivisionError"


def test_lines_for_the_console_have_columns_and_no_colours_in_a_pipe() -> None:
    text = log_lines("console")
    assert "node connected" in text
    assert "node=edge-1" in text
    assert "\x1b" not in text  # not a terminal: no colours
    assert "below the level" not in text


def test_control_characters_of_clients_do_not_reach_a_terminal() -> None:
    lines = log_lines("console", program=ODD).splitlines()
    assert any("evil\\u000aname\\u202e\\u001b[2J" in line for line in lines)
    assert any("warning \\u001b[31m" in line and "_record" not in line for line in lines)
    assert any("ValueError: \\u001b[31mwords" in line for line in lines)
    assert not {c for line in lines for c in line if not c.isprintable()}
    assert any(
        json.loads(line).get("node") == "evil\nname\u202e\x1b[2J" for line in log_lines("json", program=ODD).splitlines()
    )


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_exception_does_not_show_its_local_variables(log_format: str) -> None:
    assert "hunter2" not in log_lines(log_format)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_lines_below_the_level_are_dropped(log_format: str) -> None:
    text = log_lines(log_format, "error")
    assert "node connected" not in text
    assert "stream failed" in text
