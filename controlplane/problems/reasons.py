"""The table of reasons: each kind of problem that `turnout status` can report, and what to do about it.

A level answers one of two questions:

    CRITICAL   are users fine? No: requests fail now
    WARNING    does the whole fleet have the desired state? No, or it can't be known; users are served as before

To add a reason, add a row to `REASONS` and a check to `judge.py`. Names of reasons are stable, because scripts depend on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum

# Objects that an advice names.
_NAMES = 10


class Level(IntEnum):
    """The level of a problem, or of the worst of all problems. A larger value is worse."""

    OK = 0
    WARNING = 1
    CRITICAL = 2


class About(Enum):
    """The kind of object that has a problem."""

    SERVER = "server"  # the control plane itself
    NODES = "nodes"
    MODELS = "models"


@dataclass(frozen=True, slots=True)
class Reason:
    """A row of the table."""

    # In capitals, like the reason of an error.
    name: str
    about: About
    # A check may lower the level of a problem.
    level: Level
    # The advice: one or two sentences with a command. `{name}` is the label of the first object with the problem, `{names}`
    # those of the first ten.
    action: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem that exists now."""

    reason: Reason
    # One sentence: what is wrong, and where. Texts that clients wrote are included as they are.
    text: str
    # Labels of the models that are affected. For a problem about nodes: of those whose resources the nodes refuse.
    models: tuple[str, ...] = ()
    # Ids of the nodes that have the problem, sorted. Empty unless the reason is about nodes.
    nodes: tuple[str, ...] = ()
    level: Level = Level.OK

    def __post_init__(self) -> None:
        if self.level is Level.OK:
            object.__setattr__(self, "level", self.reason.level)

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the labels or ids of the objects that have the problem; empty if the control plane itself has it."""
        return {About.MODELS: self.models, About.NODES: self.nodes, About.SERVER: ()}[self.reason.about]

    @property
    def action(self) -> str:
        """Return what to do."""
        labels = self.labels
        names = " ".join(labels[:_NAMES]) + (" ..." if len(labels) > _NAMES else "")
        return self.reason.action.replace("{names}", names).replace("{name}", labels[0] if labels else "")


# In the order in which problems of one level are listed.
_ROWS = (
    Reason(
        "VERSION_FAILS",
        About.MODELS,
        Level.CRITICAL,
        "`turnout traffic {name}` shows at which nodes, `turnout history models/{name}` what changed. `turnout undo {name}` "
        "returns it to its previous split, if it had another one.",
    ),
    Reason(
        "CLIENTS_LEAVE",
        About.MODELS,
        Level.CRITICAL,
        "The version hangs or is slower than its clients wait: look at its servers. `turnout history models/{name}` shows "
        "what changed. `turnout undo {name}` returns it to its previous split, if it had another one.",
    ),
    Reason(
        "STORE_FAILS",
        About.SERVER,
        Level.WARNING,
        "Free space on the disk of the data directory, or repair it. Then repeat the change. Reads and Envoys are served "
        "meanwhile.",
    ),
    Reason(
        "NOT_SERVED",
        About.SERVER,
        Level.WARNING,
        "Start the server with the plug-in that the revision names, or apply the objects again to move them to the installed "
        "one. Envoys keep what they have meanwhile.",
    ),
    Reason(
        "NODES_REFUSE",
        About.NODES,
        Level.WARNING,
        "`turnout nodes {name}` shows the difference. Take the revision named above back with `turnout revert NUMBER`, or "
        "correct the node's host and run `turnout nodes {name} --reconnect`. Until then the node serves what it had.",
    ),
    Reason(
        "NODES_BEHIND",
        About.NODES,
        Level.WARNING,
        "`turnout nodes {name}` shows what is not ACKed. The node serves what it had: look at its load and its network.",
    ),
    Reason(
        "NODES_GONE",
        About.NODES,
        Level.WARNING,
        "If the node still runs, it serves what it had: look at cluster.turnout.upstream_cx_connect_fail on its admin page. "
        "If it is gone for good, run `turnout nodes forget {names}`.",
    ),
    Reason(
        "NODES_OUTDATED",
        About.NODES,
        Level.WARNING,
        "Upgrade the node's Envoy, or do without what it lacks: `turnout nodes {name}` shows which gateways select the node.",
    ),
    Reason(
        "NODES_TOO_FEW",
        About.SERVER,
        Level.WARNING,
        "Start the nodes that are missing, or lower `expected_nodes` of the gateway.",
    ),
    Reason(
        "NODES_NOT_REMEMBERED",
        About.SERVER,
        Level.WARNING,
        "At most 20,000 nodes are remembered, with ids of at most 512 bytes. `turnout nodes forget NODE...` makes room.",
    ),
    Reason(
        "NODES_INCOMPLETE",
        About.NODES,
        Level.WARNING,
        "`turnout get gateways -o yaml` shows which nodes each gateway selects, `turnout nodes {name}` what the node gets.",
    ),
    Reason(
        "HELD_BACK",
        About.NODES,
        Level.WARNING,
        "Nothing is sent while this lasts. If the server's data directory is a wrong one, correct it. Otherwise apply what is "
        "missing: a revision that lacks nothing of what is held is sent. Or permit the loss: `turnout nodes adopt {names}`.",
    ),
    Reason(
        "FOREIGN_VERSIONS",
        About.NODES,
        Level.WARNING,
        "Was a backup restored, or another data directory used? Then compare `turnout history` with what should be served: "
        "changes after the backup are lost. If the node had another control plane before, nothing is wrong.",
    ),
    Reason(
        "NO_NODES",
        About.SERVER,
        Level.WARNING,
        "`turnout bootstrap NODE_ID --xds HOST:PORT` prints the configuration with which an Envoy connects.",
    ),
    Reason(
        "NO_REVISION",
        About.SERVER,
        Level.WARNING,
        "If there should be a history, stop the server, and check `--data` of `turnout serve` or restore a backup: until then "
        "the nodes keep what they have. `turnout apply -f FILE` makes the first revision.",
    ),
    Reason(
        "TRAFFIC_UNKNOWN",
        About.NODES,
        Level.WARNING,
        "Nodes report their load if their bootstrap is from `turnout bootstrap`, without --no-load-reports.",
    ),
)

REASONS: Mapping[str, Reason] = {row.name: row for row in _ROWS}
