"""Logs, in a process of their own: how they are set up is set up for good."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging, structlog
from controlplane import logs
logs.set_up({form!r}, {level!r})
log = structlog.get_logger("fleet")
log.info("node connected", node="edge-1", resources=["a", "b"])
log.debug("not asked for")
logging.getLogger("some.library").warning("said by %s", "a library")
logging.getLogger("some.library").info("not asked for")
try:
    password = "hunter2"
    1 / len(password[8:])
except ZeroDivisionError:
    log.exception("stream failed")
"""

ODD = """
import logging, structlog
from controlplane import logs
logs.set_up({form!r}, {level!r})
log = structlog.get_logger("fleet")
log.info("odd", node="evil\\nname\\u202e\\x1b[2J", names=["\\x1b"])
logging.getLogger("some.library").warning("said by \\x1b[31m")
try:
    raise ValueError("\\x1b[31mwords")
except ValueError:
    log.exception("again")
"""


def said(form: str, level: str = "info", program: str = PROGRAM) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program.format(form=form, level=level)], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == ""
    return done.stderr


def test_json_is_one_object_a_line() -> None:
    lines = [json.loads(line) for line in said("json").splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("node connected", "info"),
        ("said by a library", "warning"),
        ("stream failed", "error"),
    ]
    assert (lines[0]["node"], lines[0]["resources"]) == ("edge-1", ["a", "b"])
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert lines[2]["exception"][0]["exc_type"] == "ZeroDivisionError"


def test_console_is_for_people() -> None:
    text = said("console")
    assert "node connected" in text
    assert "node=edge-1" in text
    assert "\x1b" not in text  # not a terminal: no colours
    assert "not asked for" not in text


def test_clients_words_do_not_act_on_a_terminal() -> None:
    lines = said("console", program=ODD).splitlines()
    assert any("evil\\u000aname\\u202e\\u001b[2J" in line for line in lines)
    assert any("said by \\u001b[31m" in line and "_record" not in line for line in lines)
    assert any("ValueError: \\u001b[31mwords" in line for line in lines)
    assert not {c for line in lines for c in line if not c.isprintable()}
    assert any(json.loads(line).get("node") == "evil\nname\u202e\x1b[2J" for line in said("json", program=ODD).splitlines())


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_exception_does_not_tell_what_was_in_its_variables(form: str) -> None:
    assert "hunter2" not in said(form)


@pytest.mark.parametrize("form", ["json", "console"])
def test_the_level_is_kept(form: str) -> None:
    text = said(form, "error")
    assert "node connected" not in text
    assert "stream failed" in text
