"""Random and mutated input: a connection answers with faults or frames, and nothing else; and it agrees with the h2 library.

The short versions are part of the suite. `make soak` runs the long ones, with other examples each time.
"""

from __future__ import annotations

import itertools
import random

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, TrailersReceived
from h2.exceptions import ProtocolError
from hyperframe.frame import Frame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.http2 import frames
from controlplane.http2.frames import PREFACE, ConnectionFault
from controlplane.http2.headers import encoded
from tests.http2.side import FIELDS, Side

OPEN = PREFACE + frames.settings({})

# Bounds of the output: so many bytes for each byte of input, plus a base. Each frame of nine bytes or more causes at most an
# RST_STREAM of 13 bytes or the answer to a PING.
_OUTPUT_PER_BYTE, _OUTPUT_BASE = 2, 200

FRAMES = st.tuples(st.integers(0, 12), st.integers(0, 255), st.integers(0, 5), st.binary(max_size=30))
BLOCKS = st.sampled_from([encoded((*FIELDS,)), encoded((*FIELDS, ("content-length", "4"))), encoded((("some", "trailer"),))])
HEADERS = st.tuples(st.just(frames.HEADERS), st.sampled_from([4, 5]), st.sampled_from([1, 3, 5, 7]), BLOCKS)
DATA = st.tuples(st.just(frames.DATA), st.sampled_from([0, 0, 1]), st.sampled_from([1, 3, 5]), st.binary(max_size=30))
# Mostly valid frames, so that streams reach later states.
CONVERSATION = st.lists(st.one_of(HEADERS, DATA, FRAMES), max_size=25)


def check(data: bytes, cuts: list[int]) -> None:
    """Receive `data`, cut at these places, and check the answer."""
    side, answer = Side(), b""
    places = [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    for start, end in itertools.pairwise(places):
        try:
            side.receive(data[start:end])
        except ConnectionFault as fault:
            side.http2.close(fault.reason)
            answer += side.output()
            break
        answer += side.output()
        assert len(side.unparsed) < frames.HEADER_BYTES + frames.MAX_FRAME
    assert len(answer) <= _OUTPUT_PER_BYTE * len(data) + _OUTPUT_BASE
    assert len(side.http2.streams.by_id) <= 10
    while answer:
        frame, size = Frame.parse_frame_header(memoryview(answer[:9]), strict=True)
        frame.parse_body(memoryview(answer[9 : 9 + size]))
        answer = answer[9 + size :]


@given(st.lists(FRAMES, max_size=20), st.lists(st.integers(0, 2_000), max_size=4))
def test_random_frames(sent: list[tuple[int, int, int, bytes]], cuts: list[int]) -> None:
    check(OPEN + b"".join(frames.frame(*frame) for frame in sent), cuts)


@given(CONVERSATION, st.lists(st.integers(0, 2_000), max_size=4))
def test_conversations(sent: list[tuple[int, int, int, bytes]], cuts: list[int]) -> None:
    check(OPEN + b"".join(frames.frame(*frame) for frame in sent), cuts)


@given(st.binary(max_size=400), st.booleans())
def test_random_bytes(data: bytes, after_preface: bool) -> None:
    check((OPEN if after_preface else b"") + data, [])


def recorded(rng: random.Random) -> bytes:
    """Return the bytes that a client of the h2 library sends in a conversation."""
    client = H2Connection(H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    for number in range(1, 2 * rng.randint(1, 6), 2):
        client.send_headers(number, [*FIELDS, ("x", "y" * rng.randint(0, 200))])
        for _ in range(rng.randint(0, 3)):
            client.send_data(number, rng.randbytes(rng.randint(0, 300)), pad_length=rng.choice([None, 7]))
        if rng.random() < 0.5:
            client.end_stream(number)
        elif rng.random() < 0.5:
            client.reset_stream(number)
        client.ping(rng.randbytes(8))
    return client.data_to_send()


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes with a few changes: other bytes, pieces removed, pieces repeated."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(changed))
        kind = rng.randrange(3)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[at : at + rng.randint(1, 20)]
        else:
            changed[at:at] = changed[at : at + rng.randint(1, 40)]
        if not changed:
            return b""
    return bytes(changed)


def mutate(seeds: range) -> None:
    for seed in seeds:
        rng = random.Random(seed)
        data = mutated(recorded(rng), rng)
        try:
            check(data, [rng.randrange(5_000) for _ in range(rng.randint(0, 4))])
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


def test_mutated_conversations() -> None:
    mutate(range(300))


@pytest.mark.soak
def test_many_mutated_conversations() -> None:
    start = random.SystemRandom().randrange(1 << 48)
    mutate(range(start, start + 200_000))


@pytest.mark.soak
@settings(max_examples=200_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(CONVERSATION, st.lists(st.integers(0, 2_000), max_size=4))
def test_many_conversations(sent: list[tuple[int, int, int, bytes]], cuts: list[int]) -> None:
    check(OPEN + b"".join(frames.frame(*frame) for frame in sent), cuts)


def compare(seeds: range) -> None:
    """Check that the server's side reads what the h2 library reads from the same bytes."""
    for seed in seeds:
        data = recorded(random.Random(seed))
        side = Side()
        side.receive(data)
        library = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        library.initiate_connection()
        requests: dict[int, dict[str, str]] = {}
        bodies: dict[int, bytes] = {}
        ended, reset = set[int](), set[int]()
        for event in library.receive_data(data):
            if isinstance(event, RequestReceived):
                requests[event.stream_id] = {str(name): str(value) for name, value in event.headers}
            elif isinstance(event, DataReceived):
                bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
            elif isinstance(event, StreamEnded | TrailersReceived):
                ended.add(event.stream_id)
            elif isinstance(event, StreamReset):
                reset.add(event.stream_id)
        assert {number: dict(fields) for number, fields in side.fields.items()} == requests, f"seed {seed}"
        assert {number: listener.data for number, listener in side.listeners.items() if listener.data} == {
            number: body for number, body in bodies.items() if body
        }
        assert {number for number, listener in side.listeners.items() if listener.ended} == ended
        assert {number for number, listener in side.listeners.items() if listener.was_aborted} == reset


def test_the_h2_library_reads_the_same() -> None:
    compare(range(60))


@pytest.mark.soak
def test_the_h2_library_reads_the_same_in_many_conversations() -> None:
    start = random.SystemRandom().randrange(1 << 48)
    compare(range(start, start + 20_000))


# Faults of the framing layer, where the library's verdict is the RFC's too.
@given(st.sampled_from([b"\0\0\1", b"\0\0\3", b"\0\0\5", b"\0\0\7"]), st.sampled_from([2, 3, 4, 6, 8]), st.integers(0, 1))
def test_frames_of_a_wrong_size_are_faults_for_the_h2_library_too(length: bytes, kind: int, number: int) -> None:
    data = length + bytes([kind, 0]) + number.to_bytes(4, "big") + bytes(int.from_bytes(length, "big"))
    opened = OPEN + frames.headers(1, encoded((*FIELDS,)))
    ours = theirs = False
    side = Side()
    side.receive(opened)
    try:
        side.receive(data)
    except ConnectionFault:
        ours = True
    library = H2Connection(H2Configuration(client_side=False))
    library.initiate_connection()
    library.receive_data(opened)
    try:
        library.receive_data(data)
    except (ProtocolError, ValueError):
        theirs = True
    assert ours == theirs
