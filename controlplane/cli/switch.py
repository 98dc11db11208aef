"""The commands that move traffic: `switch` and `split`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from controlplane.cli import complete
from controlplane.cli.client import Client
from controlplane.cli.cuts import AllowCut, CutToken, cut_fields
from controlplane.cli.exits import with_elements
from controlplane.cli.options import (
    DEFAULT_WAIT,
    Api,
    DryRun,
    NoProbe,
    Output,
    Reason,
    Require,
    Requirement,
    Timeout,
    Wait,
    connect,
    request_id,
    resource,
)
from controlplane.cli.output import Format
from controlplane.cli.receipt import finish
from controlplane.cli.shares import basis_points, unit_problem
from controlplane.errors import Error
from controlplane.generated.turnout.v1.model_pb2 import Model
from controlplane.generated.turnout.v1.model_service_pb2 import GetModelRequest, Split, SwitchTrafficRequest, TrafficSwitch

Etag = Annotated[
    str,
    typer.Option(
        "--etag", metavar="ETAG", help="Move traffic only if the model still has this etag. Default: as the command reads it."
    ),
]


def switch(
    ctx: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL[=VERSION]",
            show_default=False,
            autocompletion=complete.models,
            help="The models to move, each with its version unless --to names it.",
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="VERSION",
            help="The version for each MODEL without =VERSION.",
            autocompletion=complete.versions,
        ),
    ] = "",
    reason: Reason = "",
    wait: Wait = True,
    timeout: Timeout = DEFAULT_WAIT,
    require: Require = Requirement.KNOWN,
    dry_run: DryRun = False,
    allow_cut: AllowCut = False,
    cut_token: CutToken = "",
    no_probe: NoProbe = False,
    etag: Etag = "",
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Move all traffic of one or more models to a version, in one revision.

    Ends when every node holds the revision, also the known nodes that are not connected now: see --require.

    \b
    turnout switch iris --to green
    turnout switch iris wine --to green --reason "better on rare classes"
    turnout switch iris=green wine=v7 --timeout 10

    JSON: SwitchTrafficResponse and `changed`. Without --no-wait also `progress` (RevisionProgress) and `disconnectedNodes`
    (list of Node). With --dry-run also `dryRun`.
    """
    if to and all("=" in argument for argument in models):
        raise typer.BadParameter(
            f"would be ignored, because each model names its version: leave out --to {to}, or =VERSION where --to applies",
            param_hint="--to",
        )
    switches = []
    for argument in models:
        name, _, version = argument.partition("=")
        if not (version or to):
            raise typer.BadParameter(f"'{argument}' has no version: add --to VERSION, or write {argument}=VERSION")
        switches.append(TrafficSwitch(model=resource("models", name), version=version or to))
    request = SwitchTrafficRequest(
        switches=switches, reason=reason, validate_only=dry_run, no_probe=no_probe, **cut_fields(allow_cut, cut_token)
    )
    _move(connect(ctx, api), request, etag, timeout if wait else None, require, form)


def split(
    ctx: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", show_default=False, autocompletion=complete.models, help="The model to split.")
    ],
    shares: Annotated[
        list[str], typer.Argument(metavar="VERSION=SHARE", show_default=False, help="Each version's share, like green=10%.")
    ],
    reason: Reason = "",
    wait: Wait = True,
    timeout: Timeout = DEFAULT_WAIT,
    require: Require = Requirement.KNOWN,
    dry_run: DryRun = False,
    allow_cut: AllowCut = False,
    cut_token: CutToken = "",
    no_probe: NoProbe = False,
    etag: Etag = "",
    api: Api = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Share a model's traffic between its versions.

    A share is percent or basis points (1% is 100), all in one unit; together they are 100% or 10,000. A version that is not
    named gets no traffic.

    \b
    turnout split iris blue=9000 green=1000
    turnout split iris blue=99.5% green=0.5%

    JSON: SwitchTrafficResponse and `changed`. Without --no-wait also `progress` (RevisionProgress) and `disconnectedNodes`
    (list of Node). With --dry-run also `dryRun`.
    """
    switches = [TrafficSwitch(model=resource("models", model), split=Split(shares=_shares(shares)))]
    request = SwitchTrafficRequest(
        switches=switches, reason=reason, validate_only=dry_run, no_probe=no_probe, **cut_fields(allow_cut, cut_token)
    )
    _move(connect(ctx, api), request, etag, timeout if wait else None, require, form)


def _shares(texts: Sequence[str]) -> dict[str, int]:
    """Return `green=10%` and the like as basis points by version. Errors: BadParameter."""
    values: dict[str, str] = {}
    shares: dict[str, int] = {}
    for text in texts:
        version, _, value = text.partition("=")
        if version in values:
            raise typer.BadParameter(f"version '{version}' is given twice")
        share = basis_points(value)
        if share is None:
            raise typer.BadParameter(
                f"'{text}' is not VERSION=SHARE, like green=10% or green=1000: a share is percent with at most two decimals, "
                "or a whole number of basis points from 0 to 10,000 (1% is 100)"
            )
        values[version], shares[version] = value, share
    if problem := unit_problem(values):
        raise typer.BadParameter(problem)
    return shares


def _move(
    client: Client, request: SwitchTrafficRequest, etag: str, timeout: float | None, require: Requirement, form: Format
) -> None:
    """Make a request with the etags of its models, and print the receipt. `etag` replaces the etag of the only model."""
    switches = request.switches
    if etag and len(switches) > 1:
        raise typer.BadParameter(
            "works with one model only; several models are moved as the command reads them", param_hint="--etag"
        )
    before: list[Model] = []
    for one in switches:
        model = client.call(client.models.GetModel, GetModelRequest(name=one.model)).model
        before.append(model)
        # The etag makes the call fail if somebody changes the model after this read.
        one.etag = etag or model.etag
    request.request_id = request_id()
    try:
        answer = client.call(client.models.SwitchTraffic, request)
    except Error as error:
        raise with_elements(error, "switches", [one.model for one in switches]) from None
    changed = any(dict(b.split) != dict(a.split) for b, a in zip(before, answer.models, strict=True))
    finish(client, answer, form, changed=changed, timeout=timeout, require=require, dry_run=request.validate_only)
