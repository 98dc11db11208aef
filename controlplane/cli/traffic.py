"""What versions get, as their clients report it: traffic."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from controlplane.cli import complete, listing, output
from controlplane.cli.client import Client
from controlplane.cli.options import Api, Output, Watch, connect, resource
from controlplane.cli.output import Format, plural
from controlplane.generated.turnout.v1.traffic_pb2 import ModelTraffic, NodeTraffic, TrafficRate, TrafficSource, VersionTraffic
from controlplane.generated.turnout.v1.traffic_service_pb2 import GetTrafficRequest

# Seconds between two pictures of --watch; reports come less often.
_EVERY = 2.0
# Nodes of a model that a table shows.
_NODES = 20

_HEADINGS = ("MODEL", "VERSION", "SHARE", "REQ/S", "ERRORS", "OPEN", "NODES", "LAST", "TOTAL")

Picture = tuple[list[ModelTraffic], list[NodeTraffic], TrafficSource]


def traffic(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="[MODEL]", show_default=False, autocompletion=complete.models)] = "",
    watch: Watch = False,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    """Show what each version really gets: requests a second, errors, and who sends them.

    Envoys report every ten seconds or so; `turnout get models` shows what should be.

    OPEN is what is not answered yet. LAST is how long ago the last request was.

    \b
    turnout traffic
    turnout traffic iris --watch
    turnout traffic iris -o json
    """
    client = connect(ctx, api)
    pictures = _pictures(client, model, watch)
    if form is Format.TABLE and watch:
        output.live(_shown(*picture) for picture in pictures)
        return
    for listed, nodes, source in pictures:
        if form is Format.TABLE:
            output.show(_shown(listed, nodes, source))
        elif form is Format.NAME:
            for one in listed:
                output.raw(one.model)
        else:
            value: dict[str, Any] = {"traffic": [output.as_report(t) for t in listed]}
            if model:
                value["nodes"] = [output.as_report(n) for n in nodes]
            output.data(value | {"source": output.as_report(source)}, form, one_line=watch)


def _pictures(client: Client, model: str, watch: bool) -> Iterator[Picture]:
    while True:
        if model:
            answer = client.call(
                client.traffic.GetTraffic, GetTrafficRequest(name=resource("models", model), max_nodes=10_000)
            )
            yield [answer.traffic], list(answer.nodes), answer.source
        else:
            listed, source = listing.traffic(client)
            yield listed, [], source
        if not watch:
            return
        time.sleep(_EVERY)


def _shown(listed: list[ModelTraffic], nodes: list[NodeTraffic], source: TrafficSource) -> RenderableType:
    parts: list[RenderableType] = [_source(source)]
    if listed:
        parts += [Text(), output.table(_HEADINGS, (row for one in listed for row in _rows(one)))]
    if nodes:
        rows = ((output.shown(n.node), n.version + _copies(n.copies), *_rate(n.rate)) for n in nodes[:_NODES])
        parts += [Text(), output.table(("NODE", "SENDS TO", "REQ/S", "ERRORS", "OPEN"), rows)]
    if len(nodes) > _NODES:
        parts.append(Text(f"and {len(nodes) - _NODES:,} more; `-o json` has all"))
    return Group(*parts)


def _source(source: TrafficSource) -> Text:
    if not source.reporting_nodes:
        why = "a bootstrap of `turnout bootstrap` makes one do so" if source.connected_nodes else "none is connected"
        return Text(f"No node reports its load: {why}.", "yellow")
    when = f", {output.ago(source.last_report_time)} ago" if source.HasField("last_report_time") else "; no report came yet"
    said = f"As reported by {source.reporting_nodes:,} of {plural(source.connected_nodes, 'node')}{when}"
    return Text(f"{said}; totals since {output.when(source.start_time)}")


def _rows(one: ModelTraffic) -> Iterable[tuple[str | Text, ...]]:
    for version in one.versions:
        share = "" if version.copies else output.share(version.share)
        last = output.ago(version.last_request_time) if version.HasField("last_request_time") else "never"
        rate = _rate(version.rate)
        total = f"{version.totals.requests:,}"
        yield (
            one.model,
            version.version + _copies(version.copies),
            share,
            *rate,
            str(version.nodes),
            _last(version, last),
            total,
        )


def _last(version: VersionTraffic, said: str) -> Text:
    """Nothing where there should be something is worth a look."""
    return Text(said, "yellow" if version.share and not version.nodes else "")


def _rate(rate: TrafficRate) -> tuple[str | Text, ...]:
    failed = rate.errors_per_second
    share = Text(
        "0%" if not failed else _percent(failed / max(rate.requests_per_second, failed)), "bold red" if failed else ""
    )
    return _number(rate.requests_per_second), share, str(rate.in_progress)


def _copies(copies: bool) -> str:
    return " (copies)" if copies else ""


def _number(rate: float) -> str:
    """`0`, `0.2`, `12.5`, `1,234`."""
    return f"{rate:,.0f}" if rate >= 100 or not rate else f"{rate:.1f}" if rate >= 0.1 else "<0.1"


def _percent(part: float) -> str:
    """`0.1%`, `12.5%`; never 0 of something."""
    return f"{part * 100:.1f}".removesuffix(".0") + "%" if part >= 0.001 else "<0.1%"
