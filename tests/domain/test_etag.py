"""Etags: the live etag passes, a stale one passes only with `force`."""

from __future__ import annotations

import pytest

from controlplane.domain.etag import check_etag, live_etag
from controlplane.domain.revision import LATEST, Head, ObjectMeta
from controlplane.errors import Code, Error

HEAD = Head(9, meta={"models/iris": ObjectMeta(7, 1.0, 2.0)})


def test_the_etag_is_the_number_of_the_revision_of_the_last_change() -> None:
    assert live_etag(HEAD, "models/iris") == "7"
    assert live_etag(HEAD, "models/wine") == "none"
    assert live_etag(HEAD, LATEST) == "9"


@pytest.mark.parametrize(
    ("name", "etag", "force"),
    [("models/iris", "", False), ("models/iris", "7", False), ("models/iris", "6", True), (LATEST, "9", False)],
)
def test_a_live_etag_no_etag_and_a_forced_etag_pass(name: str, etag: str, force: bool) -> None:
    check_etag(HEAD, name, etag, force=force)


@pytest.mark.parametrize(("name", "live"), [("models/iris", "7"), ("models/wine", "none"), (LATEST, "9")])
def test_a_stale_etag_is_refused(name: str, live: str) -> None:
    with pytest.raises(Error) as caught:
        check_etag(HEAD, name, "6")
    assert (caught.value.code, caught.value.reason) == (Code.ABORTED, "STALE_ETAG")
    assert caught.value.metadata == {"name": name, "given": "6", "live": live}


@pytest.mark.parametrize("etag", ["x", "-1", "07", "1.0", "none", "9" * 20, "7 "])
@pytest.mark.parametrize("force", [True, False])
def test_an_invalid_etag_is_refused(etag: str, force: bool) -> None:
    with pytest.raises(Error) as caught:
        check_etag(HEAD, "models/iris", etag, "model.etag", force=force)
    assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, "INVALID_ETAG")
    assert caught.value.violations[0].field == "model.etag"
