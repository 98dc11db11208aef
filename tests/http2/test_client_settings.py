"""The settings of a client."""

from __future__ import annotations

import struct

import pytest
from h2.events import DataReceived
from h2.settings import SettingCodes

from controlplane.http2 import frames
from controlplane.http2.client_settings import ClientSettings
from controlplane.http2.frames import Buffer, ConnectionFault, ErrorCode
from tests.http2.side import pair


def test_settings_change_the_windows_of_open_streams() -> None:
    client, side = pair()
    unsent: list[Buffer] = [bytes(80_000)]
    side.http2.send_data(side.streams[1], unsent, 1 << 20)
    assert sum(map(len, unsent)) == 80_000 - 65_535
    client.receive_data(side.output())
    client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10, SettingCodes.MAX_FRAME_SIZE: 1 << 20})
    client.increment_flow_control_window(100_000)
    client.increment_flow_control_window(65_535, 1)
    side.receive(client.data_to_send())
    side.http2.send_data(side.streams[1], unsent, 1 << 20)
    events = client.receive_data(side.output())
    assert sum(len(e.data) for e in events if isinstance(e, DataReceived)) == 10
    assert sum(map(len, unsent)) == 80_000 - 65_535 - 10


def test_the_server_sends_no_large_frames_even_if_the_client_permits_them() -> None:
    """A client may permit large frames, but the other streams of the connection wait while one is written."""
    client, side = pair(settings={SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1, SettingCodes.MAX_FRAME_SIZE: (1 << 24) - 1})
    client.increment_flow_control_window(2**30)
    side.receive(client.data_to_send())
    side.http2.output.take()
    unsent: list[Buffer] = [bytes(10_000_000)]
    side.http2.send_data(side.streams[1], unsent, 100_000)
    assert side.http2.output.size < 200_000


def test_of_a_repeated_setting_the_last_value_counts() -> None:
    _, side = pair()
    pairs = ((4, 2**31 - 1), (4, 7), (5, 20_000), (5, 16_384))
    side.receive(frames.frame(frames.SETTINGS, 0, 0, b"".join(struct.pack(">HL", *pair) for pair in pairs)))
    unsent: list[Buffer] = [bytes(100)]
    side.http2.send_data(side.streams[1], unsent, 1 << 20)
    assert sum(map(len, unsent)) == 93


SETTING = frames.Setting


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        (SETTING.INITIAL_WINDOW_SIZE, 1 << 31, ErrorCode.FLOW_CONTROL_ERROR),
        (SETTING.MAX_FRAME_SIZE, 16_383, ErrorCode.PROTOCOL_ERROR),
        (SETTING.MAX_FRAME_SIZE, 1 << 24, ErrorCode.PROTOCOL_ERROR),
        (SETTING.ENABLE_PUSH, 2, ErrorCode.PROTOCOL_ERROR),
        (SETTING.ENABLE_CONNECT_PROTOCOL, 2, ErrorCode.PROTOCOL_ERROR),
    ],
)
def test_an_invalid_value_is_a_connection_fault(setting: frames.Setting, value: int, reason: ErrorCode) -> None:
    with pytest.raises(ConnectionFault, match=f"SETTINGS_{setting.name} of {value}") as caught:
        ClientSettings().apply(struct.pack(">HL", setting, value))
    assert caught.value.reason is reason


def test_apply_returns_the_growth_of_windows() -> None:
    settings = ClientSettings()
    assert not settings.received
    assert settings.apply(struct.pack(">HL", SETTING.INITIAL_WINDOW_SIZE, 70_000)) == 70_000 - 65_535
    assert settings.apply(b"") == 0
    assert settings.apply(struct.pack(">HL", SETTING.INITIAL_WINDOW_SIZE, 0)) == -70_000
    assert settings.received
