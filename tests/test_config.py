"""Settings: addresses are parsed, and errors name the invalid field."""

from pathlib import Path
from typing import Any

import pytest

from controlplane.config import Address, Config
from controlplane.errors import Code, Error


@pytest.mark.parametrize(
    ("text", "host", "port", "written", "loopback"),
    [
        ("127.0.0.1:18000", "127.0.0.1", 18000, "127.0.0.1:18000", True),
        ("127.9.9.9:1", "127.9.9.9", 1, "127.9.9.9:1", True),
        ("localhost:0", "localhost", 0, "localhost:0", True),
        ("[::1]:18000", "::1", 18000, "[::1]:18000", True),
        (":18000", "0.0.0.0", 18000, "0.0.0.0:18000", False),
        ("[::]:80", "::", 80, "[::]:80", False),
        ("control.example:443", "control.example", 443, "control.example:443", False),
    ],
)
def test_an_address_is_parsed(text: str, host: str, port: int, written: str, loopback: bool) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, str(address), address.loopback) == (host, port, written, loopback)


@pytest.mark.parametrize(
    "text", ["", "18000", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "a:-1", "::1:18000"]
)
def test_a_text_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Error) as caught:
        Address.parse(text, "xds")
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert [v.field for v in caught.value.violations] == ["xds"]


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({"log_format": "xml"}, ["log_format"]),
        ({"log_level": "loud", "grace": -1.0}, ["log_level", "grace"]),
        ({"grace": float("nan")}, ["grace"]),
        ({"api": Address("127.0.0.1", 5), "xds": Address("127.0.0.1", 5)}, ["xds"]),
        ({"api": Address("127.0.0.1", 5), "metrics": Address("127.0.0.1", 5)}, ["metrics"]),
        ({"xds": Address("127.0.0.1", 5), "metrics": Address("127.0.0.1", 5)}, ["metrics"]),
        ({"metrics": Address("0.0.0.0", 18090)}, ["metrics"]),
        ({"metrics": Address("metrics.example", 18090)}, ["metrics"]),
    ],
)
def test_all_invalid_settings_are_in_one_error(settings: dict[str, Any], fields: list[str]) -> None:
    with pytest.raises(Error) as caught:
        Config(**settings)
    assert [v.field for v in caught.value.violations] == fields


def test_the_default_addresses_are_on_loopback() -> None:
    config = Config()
    assert config.api.loopback
    assert config.xds.loopback
    assert config.metrics is not None
    assert config.metrics.loopback


def test_several_addresses_may_have_port_zero_and_metrics_may_be_off() -> None:
    free = Address("127.0.0.1", 0)
    assert Config(api=free, xds=free, metrics=free).metrics == free
    assert Config(metrics=None).metrics is None


def test_a_metrics_address_for_other_machines_is_refused() -> None:
    with pytest.raises(Error, match=r"0\.0\.0\.0:1 can be reached from other machines.*use .* 127\.0\.0\.1:1, or off"):
        Config(metrics=Address("0.0.0.0", 1))


def test_a_server_is_local_only_if_it_listens_on_loopback_alone() -> None:
    everywhere = Address("0.0.0.0", 0)
    assert Config().is_local
    assert Config(api=Address("::1", 0), xds=Address("localhost", 0)).is_local
    assert not Config(api=everywhere).is_local
    assert not Config(xds=everywhere).is_local


def test_each_port_that_others_can_reach_needs_tls_or_a_word(tmp_path: Path) -> None:
    open_port = Address("0.0.0.0", 18000)
    tls = {name: tmp_path / name for name in ("xds_tls_cert", "xds_tls_key", "xds_client_ca", "xds_identities")}
    Config().check_open()
    Config(xds=open_port, **tls).check_open()  # type: ignore[arg-type]
    Config(api=Address("10.0.0.1", 1), xds=open_port, insecure=True).check_open()
    with pytest.raises(Error) as caught:
        Config(api=Address("10.0.0.1", 1), xds=open_port).check_open()
    assert (caught.value.code, [v.field for v in caught.value.violations]) == (Code.INVALID_ARGUMENT, ["api", "xds"])
    with pytest.raises(Error) as caught:
        Config(api=Address("10.0.0.1", 1), xds=open_port, **tls).check_open()  # type: ignore[arg-type]
    assert [v.field for v in caught.value.violations] == ["api"]
