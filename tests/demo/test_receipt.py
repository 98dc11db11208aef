"""The demo's receipt: a sentence for each broken promise."""

from dataclasses import replace

import pytest

from controlplane.demo.load import Records, Request
from controlplane.demo.receipt import STREAMS, Move, judge

SWITCH = Move("turnout switch digits --to green", "blue", "green", 2, nodes=3, commit=10.0, last_ack=10.5)
UNDO = Move("turnout undo digits", "green", "blue", 3, nodes=3, commit=20.0, last_ack=20.5)


def request(start: float, version: str | None, *, user: int = 0, seconds: float = 0.1, group: str = "http1") -> Request:
    end = start + seconds
    return Request(start, start + min(seconds, 0.1), end, user, version, group)


GOOD = [
    request(1, "blue"),
    request(9, "blue", user=1),
    request(9, "blue", seconds=3, group=STREAMS),
    request(10.2, "blue"),  # between commit and last ACK: both versions are right
    request(10.3, "green"),
    request(10.54, "blue"),  # the Envoy's worker took the routes after its main thread had ACKed them
    request(11, "green"),
    request(19, "green", seconds=3, group=STREAMS),
    request(19.95, "blue"),  # routed after the next commit
    request(21, "blue"),
]


def broken(extra: list[Request], *, moves: tuple[Move, ...] = (SWITCH, UNDO), users: int = 2) -> list[str]:
    failures = [str(r) for r in extra if r.version is None]
    return list(judge(moves, Records(GOOD + extra, failures), nodes=3, users=users).broken)


def test_a_receipt_without_broken_promises() -> None:
    receipt = judge([SWITCH, UNDO], Records(GOOD, []), nodes=3, users=2)
    assert receipt.broken == []
    first, second = receipt.lines
    assert (first.before, first.between, first.after) == ({"blue": 3}, {"blue": 1, "green": 1}, {"green": 2, "blue": 2})
    assert (first.late, first.outlived, first.failed) == (0, 1, 0)
    assert second.before == {"green": 2}
    assert second.after == {"blue": 1}
    data = receipt.as_json()
    assert data["kept"] is True
    assert [m["commitToLastAck"] for m in data["moves"]] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("extra", "sentence_"),
    [
        ([request(10.6, "blue")], "1 requests that started more than 50 ms after the last ACK reached blue"),
        ([request(21, "green")], "started more than 50 ms after the last ACK reached green"),
        ([request(15, None)], "1 of 11 requests failed"),
        ([request(5, "green")], "requests before it reached green"),
    ],
)
def test_a_broken_promise_has_a_sentence(extra: list[Request], sentence_: str) -> None:
    assert any(sentence_ in sentence for sentence in broken(extra)), broken(extra)


def test_a_run_that_proves_nothing_breaks_a_promise() -> None:
    assert "only 2 of 3 users sent requests" in broken([], users=3)
    assert broken([], moves=()) == ["no traffic was moved"]
    assert any("2 of 3 nodes" in s for s in broken([], moves=(replace(SWITCH, nodes=2), UNDO)))
    silent = judge([SWITCH], Records([], []), nodes=3, users=0)
    assert len(silent.broken) == 3, silent.broken
