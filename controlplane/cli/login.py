"""The command `login`: a token of the OpenID provider, by the device flow (RFC 8628)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from controlplane.cli.credentials import client_config, config_folder
from controlplane.cli.login_tokens import StoredToken, discover, from_answer, post, save, token_path
from controlplane.cli.options import Api, Globals
from controlplane.cli.output import notice
from controlplane.errors import Code, Error, escaped

_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
# Seconds between two questions, if the provider names none, and the seconds that `slow_down` adds.
_INTERVAL = 5.0

Issuer = Annotated[str, typer.Option("--issuer", metavar="URL", help="The OpenID provider. Default: `issuer` in client.yaml.")]
ClientId = Annotated[
    str, typer.Option("--client-id", metavar="ID", help="This program at the provider. Default: `client_id` in client.yaml.")
]
Scope = Annotated[
    str,
    typer.Option("--scope", metavar="TEXT", help="Scopes to ask for. Default: `scope` in client.yaml, or those for a name."),
]
IssuerCa = Annotated[
    str, typer.Option("--issuer-ca", metavar="FILE", help="Authorities of the provider's certificate. Default: the system's.")
]

_SCOPE = "openid email groups offline_access"


def login(
    ctx: typer.Context,
    api: Api = None,
    issuer: Issuer = "",
    client_id: ClientId = "",
    scope: Scope = "",
    issuer_ca: IssuerCa = "",
) -> None:
    r"""Log in at the OpenID provider, and store the token for the server.

    Prints an address and a code to enter there, on any device. The token is stored in a file that only you can read, and is
    renewed when it expires. Other commands send it to the server at --api, and to no other.

    \b
    turnout login --issuer https://login.example.com --client-id turnout-cli

    Takes no --output: it prints the address and the code to stderr.
    """
    address = api or (ctx.find_object(Globals) or Globals()).api
    config = client_config(config_folder())
    issuer = issuer or config.get("issuer", "")
    client_id = client_id or config.get("client_id", "")
    if not issuer or not client_id:
        missing = "--issuer" if not issuer else "--client-id"
        raise typer.BadParameter(f"is required, or a line in {config_folder() / 'client.yaml'}", param_hint=missing)
    ca = issuer_ca or config.get("issuer_ca", "")
    document = discover(issuer, ca)
    token = device_flow(document, client_id, scope or config.get("scope", _SCOPE), ca, notice)
    path = token_path(config_folder(), address)
    save(path, token)
    notice(f"logged in; the token for {address} is in {path}")


def device_flow(
    document: Mapping[str, Any],
    client_id: str,
    scope: str,
    ca: str,
    show: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> StoredToken:
    """Ask for a token until the user has allowed it at the provider, and return it.

    `document` is the provider's discovery document. Errors: UNAUTHENTICATED / LOGIN_REFUSED; UNAVAILABLE.
    """
    endpoint, tokens = document.get("device_authorization_endpoint"), document.get("token_endpoint")
    if not endpoint or not tokens:
        raise Error(Code.UNAVAILABLE, "PROVIDER", "the provider has no device flow (device_authorization_endpoint)")
    status, answer = post(str(endpoint), {"client_id": client_id, "scope": scope}, ca)
    if status != 200 or "device_code" not in answer:
        raise _refused(answer)
    url = answer.get("verification_uri_complete") or answer.get("verification_uri") or answer.get("verification_url")
    show(f"open {escaped(str(url))} and check that it shows the code {escaped(str(answer.get('user_code')))}")
    pause = float(answer.get("interval") or _INTERVAL)
    end = clock() + float(answer.get("expires_in") or 300)
    form = {"grant_type": _DEVICE_GRANT, "device_code": str(answer["device_code"]), "client_id": client_id}
    while clock() < end:
        sleep(pause)
        status, answer = post(str(tokens), form, ca)
        if status == 200:
            return from_answer(answer, StoredToken("", 0.0, "", str(tokens), client_id, ca), clock())
        if answer.get("error") == "slow_down":
            pause += _INTERVAL
        elif answer.get("error") != "authorization_pending":
            raise _refused(answer)
    raise Error(Code.UNAUTHENTICATED, "LOGIN_REFUSED", "nobody entered the code in time: run the command again")


def _refused(answer: Mapping[str, Any]) -> Error:
    problem = escaped(str(answer.get("error_description") or answer.get("error") or "no reason given"))[:300]
    return Error(Code.UNAUTHENTICATED, "LOGIN_REFUSED", f"the provider refuses the login: {problem}")
