"""`python -m bench` reports a wrong command line before it measures anything, and never judges a smoke run."""

import inspect
import signal
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

import pytest

import bench.__main__ as command
from bench import soak


@pytest.fixture(autouse=True)
def same_signal_handler() -> Iterator[None]:
    """Restore the signal handler of this process."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def asked(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the command, and return its exit status. Nothing is measured, since no benchmark can be imported."""

    def none(name: str) -> object:
        raise RuntimeError(f"{name} was run")

    monkeypatch.setattr("sys.argv", ["bench", *words])
    monkeypatch.setattr(command, "import_module", none)
    try:
        return command.main()
    except SystemExit as end:
        return int(end.code or 0)


def test_each_benchmark_gets_the_options_that_it_has() -> None:
    for name in (*command._ALL, *command._BY_NAME):
        has = set(inspect.signature(import_module(f"bench.{name}").run).parameters)
        assert {option for option, takers in command._OPTIONS.items() if name in takers} == has & set(command._OPTIONS), name


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--quick burst --proxies 10", "--quick sets the sizes itself: it can't be combined with --proxies"),
        ("--quick soak --minutes 1", "--quick sets the sizes itself: it can't be combined with --minutes"),
        ("--quick --rounds 1", "--quick sets the sizes itself: it can't be combined with --rounds"),
        ("--quick scale --models 5", "--quick sets the sizes itself: it can't be combined with --models"),
        ("burst --count 5", "--count is for envoys, not for burst"),
        (
            "users cores --proxies 10",
            "--proxies is for transports, tls, scale, storms, burst, growth, soak, compare, not for users, cores",
        ),
        ("--minutes 5", "--minutes is for soak, not for all"),
        ("bursts", "unknown benchmark 'bursts'"),
        ("compare", "compare needs the other checkout: --with PATH"),
        ("scale --with /", "--with is for compare, upgrade, not for scale"),
    ],
)
def test_an_option_that_no_benchmark_has_is_an_error(
    words: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(monkeypatch, *words.split()) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("words", ["--quick envoys --count 15", "users burst --proxies 10", "--quick soak --serve=--help"])
def test_an_option_that_one_benchmark_has_is_accepted(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(monkeypatch, *words.split(), "--out", str(tmp_path / "a" / "b")) == 1
    assert "was run" in capsys.readouterr().err
    assert (tmp_path / "a" / "b").is_dir()


def test_nothing_is_measured_if_the_results_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "file" / "results"
    out.parent.touch()
    assert asked(monkeypatch, "users", "--out", str(out)) == 2
    assert capsys.readouterr().err == f"bench: cannot write results to {out}: Not a directory; choose a folder with --out\n"


@pytest.mark.parametrize(
    ("quick", "grows", "says"),
    [
        (True, False, "Too short to judge."),
        (True, True, "Too short to judge."),
        (False, False, "Flat: nothing grew by more than is allowed."),
        (False, True, "Not flat: memory grew by a factor of 1.59; 1.1 is allowed."),
    ],
)
async def test_a_soak_is_judged_unless_it_is_a_smoke_run(
    quick: bool, grows: bool, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def samples(*_: object) -> tuple[Sequence[soak.Sample], dict[str, int]]:
        return [soak.Sample(i, 0.01, 0.02, 0.03, (10 + i * grows) * 2**20, 50) for i in range(20)], {}

    monkeypatch.setattr(soak, "_samples", samples)
    results, page = await soak.run(quick=quick)
    assert [line for line in page.splitlines() if line.startswith(("Flat", "Not flat", "Too short"))] == [says]
    assert bool(results["grown"]) == (grows and not quick)
