"""The policy for changes that cut traffic: the losses of connected nodes in words, and when such a change may be made.

A node *loses* what it serves before a change and does not serve after it. A change by which a connected node loses anything
is a *cut*, whichever fields it changes. The policy applies to everything that changes desired state: API calls, rollouts,
files. It applies in addition to the policy for moving traffic (`switch.py`): neither an etag nor `force` permits a cut.

| allow_cut | cut_token | the change cuts | result |
|---|---|---|---|
| any | any | nothing | it is made |
| no | none | something | FAILED_PRECONDITION / CUTS_TRAFFIC |
| no | given | anything | INVALID_ARGUMENT at `cut_token` |
| yes | none | something | it is made |
| yes | given | the traffic that the token was made for, on as many nodes or fewer | it is made |
| yes | given | anything else, or on more nodes | FAILED_PRECONDITION / CUTS_TRAFFIC |

A dry run is not refused. It reports the losses and their token.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from controlplane.domain.collections import resource_name
from controlplane.domain.model import Model
from controlplane.errors import Code, Error, Violation, abbreviated, escaped, invalid, shortened

# The number of nodes that a sentence names, and the characters of a node's id, which the client chooses.
_NODES, _ID = 3, 60
# Models in a sentence.
_MODELS = 10
# The number of losses that an error lists. The others are counted.
_LISTED = 20
_TOKEN = re.compile(r"[0-9a-f]{16}-[1-9][0-9]{0,8}")


class LossKind(IntEnum):
    """The kinds of losses, the most severe first."""

    UNKNOWN = 1  # the resources of the nodes are not known, so they may lose everything
    LISTENER = 2  # a listener
    ACCESS = 3  # access to a listener that stays: the requests that it accepted don't match it any more
    MODEL = 4  # models at a listener, or some of their keys; models of gRPC clients
    ENDPOINTS = 5  # all endpoints of a version that has a share of its model's traffic


@dataclass(frozen=True, slots=True)
class Loss:
    """One thing that nodes lose. Nodes that lose the same thing have equal losses."""

    kind: LossKind
    # The address of the listener; "" if the loss concerns no listener, or every one.
    address: str = ""
    # Labels of the models that can't be reached any more, sorted. Empty if it is not known which models they are.
    models: tuple[str, ...] = ()
    # LISTENER: `only` if the node has no listener after the change. ACCESS: how requests reached the listener, like
    # `path segment 3`. MODEL: the lost keys, like `path` if all are lost, or `paths 'a', 'b'`. ENDPOINTS: the version.
    part: str = ""
    # A cause or a consequence in words, which begin with a space or a comma and follow in the sentence; "" if there is none.
    note: str = ""

    def text(self, nodes: Sequence[str]) -> str:
        """Return the loss as a sentence. `nodes` are the ids of the nodes that lose it, at least one."""
        models = _models(self.models)
        match self.kind:
            case LossKind.UNKNOWN:
                subject, verb, names = _subject(nodes, "it holds", "they hold")
                return f"{subject} may lose everything: Turnout does not know what {verb}{names}"
            case LossKind.LISTENER:
                subject, verb, names = _subject(nodes, "loses its", "lose their")
                with_models = f" with {models}" if models else ""
                only = "only " if self.part else ""
                return f"{subject} {verb} {only}listener {self.address}{self.note}{with_models}{names}"
            case LossKind.ACCESS:
                return f"{models} can't be reached by {self.part} at {self.address} any more{self.note} on {_listed(nodes)}"
            case LossKind.MODEL if not self.address:
                return f"{models} can't be reached any more{self.note} on {_listed(nodes)}"
            case LossKind.MODEL if not self.models:
                return f"no model is reached by {self.part} at {self.address} any more on {_listed(nodes)}"
            case LossKind.MODEL:
                verb = "loses its" if len(self.models) == 1 else "lose their"
                return f"{models} {verb} {self.part} at {self.address}{self.note} on {_listed(nodes)}"
            case LossKind.ENDPOINTS:
                return f"no endpoint of version {self.part} of {models} answers{self.note} on {_listed(nodes)}"

    @property
    def subject(self) -> str:
        """Return the resource name of the model if there is only one, otherwise the address."""
        return (
            resource_name(Model, self.models[0])
            if len(self.models) == 1 and self.kind is not LossKind.LISTENER
            else self.address
        )


# The ids of the nodes that lose each thing, sorted; never empty. The most severe losses come first.
Losses = Mapping[Loss, Sequence[str]]

NO_LOSSES: Losses = {}


def in_order(losses: Losses) -> Losses:
    """Return the losses sorted: the most severe first, and within a kind the loss of the most nodes first."""
    ordered = sorted(losses, key=lambda loss: (loss.kind, -len(losses[loss]), loss.address, loss.models, loss.part, loss.note))
    return {loss: sorted(losses[loss]) for loss in ordered}


@dataclass(frozen=True, slots=True)
class CutPermit:
    """The part of a request that permits it to cut traffic."""

    allow_cut: bool = False
    # The token of the losses that the caller has seen; "" permits any loss.
    token: str = ""

    def __post_init__(self) -> None:
        if self.token and not self.allow_cut:
            raise invalid("cut_token", "needs allow_cut")
        if self.token and not _TOKEN.fullmatch(self.token):
            raise invalid("cut_token", f"'{self.token[:80]}' is not a cut token: send the one of a dry run or of the refusal")


NO_CUT = CutPermit()


def check_cut(losses: Losses, permit: CutPermit) -> None:
    """Check that a change with these losses may be made. Errors: FAILED_PRECONDITION / CUTS_TRAFFIC, as in the table above."""
    if not losses:
        return
    if not permit.allow_cut:
        raise _refusal(losses, "this change cuts traffic", "it needs allow_cut")
    if permit.token:
        seen, seen_nodes = permit.token.split("-")
        lost, nodes = cut_token(losses).split("-")
        if lost != seen:
            raise _refusal(losses, "this change cuts other traffic than was allowed", "it needs another dry run")
        if int(nodes) > int(seen_nodes):
            raise _refusal(losses, f"this change cuts traffic on {nodes} nodes, not {seen_nodes}", "it needs another dry run")


def cut_token(losses: Losses) -> str:
    """Return the token of losses: a hash of what is lost, and the number of nodes that lose anything. "" without losses."""
    if not losses:
        return ""
    lost = "\n".join(sorted(repr((loss.kind.name, loss.address, loss.models, loss.part)) for loss in losses))
    nodes = {node for ids in losses.values() for node in ids}
    return f"{hashlib.blake2b(lost.encode(errors='replace'), digest_size=8).hexdigest()}-{len(nodes)}"


def _refusal(losses: Losses, problem: str, advice: str) -> Error:
    texts = [loss.text(nodes) for loss, nodes in losses.items()]
    violations = [Violation(loss.subject, text) for loss, text in zip(losses, texts, strict=True)][:_LISTED]
    if len(texts) > _LISTED:
        violations.append(Violation("", f"and {len(texts) - _LISTED:,} more losses"))
    return Error(
        Code.FAILED_PRECONDITION,
        "CUTS_TRAFFIC",
        f"{problem}, so {advice}: {'; '.join(v.description for v in violations)}",
        violations=tuple(violations),
        metadata={"cut_token": cut_token(losses), "losses": str(len(losses))},
    )


def _subject(nodes: Sequence[str], one: str, many: str) -> tuple[str, str, str]:
    """Return the nodes as the subject of a sentence, its verb, and the names of the nodes if the subject only counts them."""
    if len(nodes) > _NODES:
        return f"{len(nodes):,} nodes", many, f": {_names(nodes)}"
    return _names(nodes), one if len(nodes) == 1 else many, ""


def _listed(nodes: Sequence[str]) -> str:
    """Return `edge-1 and edge-2`, or `200 nodes: edge-1, edge-2, edge-3 and 197 more`."""
    return f"{len(nodes):,} nodes: {_names(nodes)}" if len(nodes) > _NODES else _names(nodes)


def _names(nodes: Sequence[str]) -> str:
    names = [shortened(escaped(node), _ID) for node in nodes[:_NODES]]
    if len(nodes) > _NODES:
        return f"{', '.join(names)} and {len(nodes) - _NODES:,} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _models(labels: Sequence[str]) -> str:
    return f"model{'s' if len(labels) > 1 else ''} {abbreviated(labels, _MODELS)}" if labels else ""
