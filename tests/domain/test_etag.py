"""Etags: the live etag passes, a stale one passes only with `force`."""

from __future__ import annotations

import pytest

from controlplane.domain.etag import check_etag, live_etag, parse_etag
from controlplane.domain.revision import LATEST, Head, ObjectMeta
from controlplane.errors import Code, Error

HISTORY = "7a0b93c1"
HEAD = Head(9, meta={"models/iris": ObjectMeta(7, 1.0, 2.0, HISTORY)}, history=HISTORY)


def test_the_etag_is_the_history_and_the_revision_of_the_last_change() -> None:
    assert live_etag(HEAD, "models/iris") == "7a0b93c1-7"
    assert live_etag(HEAD, "models/wine") == "none"
    assert live_etag(HEAD, LATEST) == "7a0b93c1-9"


@pytest.mark.parametrize(
    ("name", "etag", "force"),
    [
        ("models/iris", "", False),
        ("models/iris", "7a0b93c1-7", False),
        ("models/iris", "7a0b93c1-6", True),
        ("models/iris", "00000000-7", True),
        (LATEST, "7a0b93c1-9", False),
    ],
)
def test_a_live_etag_no_etag_and_a_forced_etag_pass(name: str, etag: str, force: bool) -> None:
    check_etag(HEAD, name, etag, force=force)


@pytest.mark.parametrize(("name", "live"), [("models/iris", "7a0b93c1-7"), ("models/wine", "none"), (LATEST, "7a0b93c1-9")])
def test_a_stale_etag_is_refused(name: str, live: str) -> None:
    with pytest.raises(Error) as caught:
        check_etag(HEAD, name, "7a0b93c1-6")
    assert (caught.value.code, caught.value.reason) == (Code.ABORTED, "STALE_ETAG")
    assert caught.value.metadata == {"name": name, "given": "7a0b93c1-6", "live": live}


@pytest.mark.parametrize(
    "etag", ["x", "-1", "1.0", "none", "7 ", "7a0b93c1-", "7a0b93c1-07", "7A0B93C1-7", "7a0b93c1-7 ", f"7a0b93c1-{'9' * 20}"]
)
@pytest.mark.parametrize("force", [True, False])
def test_an_invalid_etag_is_refused(etag: str, force: bool) -> None:
    with pytest.raises(Error) as caught:
        check_etag(HEAD, "models/iris", etag, "model.etag", force=force)
    assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, "INVALID_ETAG")
    assert caught.value.violations[0].field == "model.etag"


def test_an_etag_of_another_history_is_refused_even_if_its_number_is_the_live_one() -> None:
    with pytest.raises(Error) as caught:
        check_etag(HEAD, "models/iris", "00000000-7")
    assert (caught.value.code, caught.value.reason) == (Code.ABORTED, "OTHER_HISTORY")
    assert caught.value.metadata == {"name": "models/iris", "given": "00000000", "live": HISTORY}
    assert "restored from a backup" in caught.value.message
    assert "Read models/iris again" in caught.value.message


def test_a_plain_number_of_an_earlier_version_is_refused_with_the_new_form() -> None:
    with pytest.raises(Error) as caught:
        check_etag(HEAD, "models/iris", "7")
    assert caught.value.reason == "INVALID_ETAG"
    assert "like 7a0b93c1-7: read models/iris again" in caught.value.message


@pytest.mark.parametrize(("etag", "parsed"), [("7a0b93c1-26", (HISTORY, 26)), ("26", None), ("7a0b93c-26", None), ("", None)])
def test_an_etag_is_parsed_into_history_and_number(etag: str, parsed: tuple[str, int] | None) -> None:
    assert parse_etag(etag) == parsed
