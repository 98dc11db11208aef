"""The command `traffic`: the tries at each version, as the nodes report them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from controlplane.cli import complete, listing, messages, output, wording
from controlplane.cli.client import Client
from controlplane.cli.options import MAX_NODES, Api, Output, Watch, connect, resource
from controlplane.cli.output import Format
from controlplane.cli.watching import follow, print_each, show_live
from controlplane.cli.wording import plural
from controlplane.generated.turnout.v1.traffic_pb2 import ModelTraffic, NodeTraffic, TrafficRate, TrafficSource, VersionTraffic
from controlplane.generated.turnout.v1.traffic_service_pb2 import (
    GetTrafficRequest,
    GetTrafficResponse,
    ListTrafficResponse,
)

# Seconds between two updates of --watch. Nodes report less often.
_UPDATE_EVERY = 2.0
# Columns of a terminal in which the whole table fits beside long names.
_WIDE = 100
# Nodes of a model that a table lists.
_TABLE_NODES = 20

_HEADINGS = ("MODEL", "VERSION", "SHARE", "TRIES/S", "ERRORS", "GONE/S", "IN FLIGHT", "NODES", "LAST", "TOTAL")

Answer = GetTrafficResponse | ListTrafficResponse


def traffic(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="[MODEL]",
            show_default=False,
            autocompletion=complete.models,
            help="Show this model with its nodes. Default: all models.",
        ),
    ] = "",
    watch: Watch = False,
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Show what each version really receives: tries per second, errors, and the nodes that send them.

    Envoys report every two seconds in a small fleet, and less often in a larger one. `turnout get models` shows the
    desired split.

    \b
    TRIES/S    attempts to send a request to an endpoint; a request that is retried twice is three tries
    ERRORS     share of the tries that ended with a 5xx, no answer, or no connection, or that a fallback took over
    GONE/S     tries of the last minute whose client left before an answer
    IN FLIGHT  tries that are not complete yet; a streamed answer is in flight until it ends
    LAST       time since the last try
    TOTAL      tries since the control plane started

    "blue (for green)" is what blue took over as the fallback of green.

    \b
    turnout traffic
    turnout traffic iris --watch
    turnout traffic iris -o json

    JSON: ListTrafficResponse; with MODEL, GetTrafficResponse. With --watch, one of them a line.
    """
    client = connect(ctx, api)
    if not watch:
        _print(next(_answers(client, model)), form, one_line=False)
        return
    updates = follow(client, lambda: _answers(client, model))
    if form is Format.TABLE:
        show_live(updates, _page)
    else:
        print_each(updates, lambda answer: _print(answer, form, one_line=True))


def _print(answer: Answer, form: Format, *, one_line: bool) -> None:
    if form is Format.TABLE:
        output.show(_page(answer))
    elif form is Format.NAME:
        for one in _models(answer):
            output.raw(one.model)
    else:
        messages.print_data(messages.report(answer, form), form, one_line=one_line)


def _answers(client: Client, model: str) -> Iterator[Answer]:
    """Yield the traffic of one model, or of all models, every two seconds."""
    while True:
        if model:
            request = GetTrafficRequest(name=resource("models", model), max_nodes=MAX_NODES)
            yield client.call(client.traffic.GetTraffic, request)
        else:
            listed, source = listing.traffic(client)
            yield ListTrafficResponse(traffic=listed, source=source)
        output.wait_for_reader(_UPDATE_EVERY)


def _models(answer: Answer) -> list[ModelTraffic]:
    return [answer.traffic] if isinstance(answer, GetTrafficResponse) else list(answer.traffic)


def _page(answer: Answer) -> RenderableType:
    parts: list[RenderableType] = [_source(answer.source)]
    if models := _models(answer):
        parts += [Text(), _table(models)]
    nodes: list[NodeTraffic] = list(answer.nodes) if isinstance(answer, GetTrafficResponse) else []
    if nodes:
        rows = ((wording.clip(n.node), n.version + _role(n), *_rate(n.rate)) for n in nodes[:_TABLE_NODES])
        parts += [Text(), output.table(("NODE", "SENDS TO", "TRIES/S", "ERRORS", "IN FLIGHT"), rows)]
    if len(nodes) > _TABLE_NODES:
        parts.append(Text(f"and {len(nodes) - _TABLE_NODES:,} more; `-o json` lists all"))
    return Group(*parts)


def _source(source: TrafficSource) -> Text:
    if not source.reporting_nodes:
        if source.connected_nodes:
            return Text("No node reports its load. Nodes report if their bootstrap is from `turnout bootstrap`.", "yellow")
        return Text("No node reports its load: none is connected.", "yellow")
    last = f", {wording.ago(source.last_report_time)} ago" if source.HasField("last_report_time") else "; no report yet"
    reporters = f"As reported by {source.reporting_nodes:,} of {plural(source.connected_nodes, 'node')}{last}"
    return Text(f"{reporters}; totals since {wording.when(source.start_time)}")


def _table(models: Sequence[ModelTraffic]) -> RenderableType:
    """Return one row for each version. A narrow terminal leaves out the total and, if nothing is gone, that column."""
    gone = any(version.rate.gone_per_second for one in models for version in one.versions)
    narrow = output.out().width < _WIDE
    hidden = {"TOTAL": narrow, "GONE/S": narrow and not gone}
    columns = [i for i, heading in enumerate(_HEADINGS) if not hidden.get(heading)]
    rows = ([row[i] for i in columns] for one in models for row in _rows(one))
    return output.table([_HEADINGS[i] for i in columns], rows)


def _rows(one: ModelTraffic) -> Iterable[tuple[str | Text, ...]]:
    for version in one.versions:
        share = "" if version.copies or version.fallback_for else wording.share(version.share)
        last = wording.ago(version.last_request_time) if version.HasField("last_request_time") else "never"
        rate = _rate(version.rate)
        total = f"{version.totals.tries:,}"
        yield (
            one.model,
            version.version + _role(version),
            share,
            *rate[:2],
            _number(version.rate.gone_per_second),
            rate[2],
            str(version.nodes),
            _last(version, last),
            total,
        )


def _last(version: VersionTraffic, text: str) -> Text:
    """Return the time since the last try, in yellow if a version with a share gets none."""
    return Text(text, "yellow" if version.share and not version.nodes else "")


def _rate(rate: TrafficRate) -> tuple[str | Text, ...]:
    failed = rate.errors_per_second
    share = Text(_percent(failed / (failed + rate.successes_per_second)) if failed else "0%", "bold red" if failed else "")
    return _number(rate.tries_per_second), share, str(rate.in_progress)


def _role(traffic: VersionTraffic | NodeTraffic) -> str:
    """Return a mark for a mirror's copies, and for requests that a fallback took over; empty for other traffic."""
    if traffic.fallback_for:
        return f" (for {traffic.fallback_for})"
    return " (copies)" if traffic.copies else ""


def _number(rate: float) -> str:
    """Return `0`, `0.2`, `12.5`, `1,234`."""
    return f"{rate:,.0f}" if rate >= 100 or not rate else f"{rate:.1f}" if rate >= 0.1 else "<0.1"


def _percent(part: float) -> str:
    """Return `0.1%`, `12.5%`; at least `<0.1%`."""
    return f"{part * 100:.1f}".removesuffix(".0") + "%" if part >= 0.001 else "<0.1%"
