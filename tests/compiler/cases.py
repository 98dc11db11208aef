"""Desired state read from the golden files, and compiled resources in a form that people can read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from pydantic import TypeAdapter

from controlplane.compiler.decode import decoded
from controlplane.compiler.validation import Validator
from controlplane.domain import (
    BodyRouting,
    Gateway,
    HeaderRouting,
    HostRouting,
    Model,
    Object,
    OpaqueValue,
    PathRouting,
    Secret,
)
from controlplane.domain.state import Changes, State
from controlplane.envoy_types import EXTENSIONS, ORDER, SECRET, short_name
from controlplane.snapshot import Audience, Client, Snapshot
from tests.pki import authority, pair

# One for all tests, so that the rules are read from the protos once.
check = Validator().check

TESTDATA = Path(__file__).parent / "testdata"
CASES = sorted(path.name.removesuffix(".in.yaml") for path in TESTDATA.glob("*.in.yaml"))

# A PEM text in JSON. Golden files have only its label.
_PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----(\\n)?")

_ROUTINGS: dict[str, Any] = {"path": PathRouting, "header": HeaderRouting, "host": HostRouting, "body": BodyRouting}


def read_state(case: str) -> State:
    """The state that `testdata/CASE.in.yaml` describes: nouns of domain/, with a routing named by its kind.

    A file has only the kinds of secrets. Their contents are generated in each run.
    """
    document = yaml.safe_load((TESTDATA / f"{case}.in.yaml").read_text())
    kinds = document.get("secrets", {}).items()
    objects: list[Object] = [_secret(name, kind) for name, kind in kinds]
    for form in document.get("gateways", ()):
        for kind, settings in form.pop("routing", {}).items():
            form["routing"] = TypeAdapter(_ROUTINGS[kind]).validate_python(settings)
        objects.append(TypeAdapter(Gateway).validate_python(form))
    objects += [TypeAdapter(Model).validate_python(form) for form in document.get("models", ())]
    return State().applied(Changes({o.resource_name: o for o in objects}))


def _secret(name: str, kind: str) -> Secret:
    match kind:
        case "opaque":
            return Secret(name, OpaqueValue("(OPAQUE VALUE)"))
        case "tls_certificate":
            return pair().secret(name)
        case _:
            return authority().secret(name)


def widest(audiences: Iterable[Audience]) -> list[Audience]:
    """The audiences that no other one contains: those of Envoys, then of gRPC clients."""
    every = set(audiences)
    wide = (a for a in every if not any(a.client is b.client and set(a.gateways) < set(b.gateways) for b in every))
    return sorted(wide, key=lambda a: (a.client.value, a.gateways))


def of_envoys(audiences: Iterable[Audience]) -> list[Audience]:
    """The widest audiences of Envoys."""
    return [a for a in widest(audiences) if a.client is Client.ENVOY]


def as_yaml(snapshots: Iterable[Snapshot], *, local_replies: bool = False) -> str:
    """Snapshots as a document: a list of resources by type, for each audience.

    The local replies of listeners are long. They are left out unless `local_replies` is set.
    """
    documents = [
        {
            "audience": list(snapshot.audience.gateways),
            **({} if snapshot.audience.client is Client.ENVOY else {"client": snapshot.audience.client.value}),
            **{
                short_name(t): [
                    _resource(t, json_format.MessageToJson(decoded(r), preserving_proto_field_name=True), local_replies)
                    for _, r in sorted(snapshot.resources[t].items())
                ]
                for t in ORDER
                if t not in (EXTENSIONS, SECRET) or snapshot.resources[t]
            },
        }
        for snapshot in snapshots
    ]
    return yaml.safe_dump_all(documents, sort_keys=False, width=120)


def _resource(type_url: str, text: str, local_replies: bool) -> object:
    """Return a resource from its JSON, without the parts that golden files leave out."""

    def document(form: dict[str, object]) -> dict[str, object]:
        if "local_reply_config" in form and not local_replies:
            form["local_reply_config"] = "in local-replies.out.yaml"
        for key in ("extractions_by_method", "json_format", "filter_metadata"):  # maps, whose order differs between processes
            if key in form:
                form[key] = json.loads(json.dumps(form[key], sort_keys=True))
        return form

    return json.loads(_without_pem(type_url, text), object_hook=document)


def _without_pem(type_url: str, text: str) -> str:
    return _PEM.sub(r"(\1)", text) if type_url == SECRET else text
