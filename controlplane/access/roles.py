"""Roles and their permissions.

| role | view | switch | edit | use secrets | secrets | cut | approve | admin |
|---|---|---|---|---|---|---|---|---|
| viewer | ✓ | | | | | | | |
| switcher | ✓ | ✓ | | | | | | |
| editor | ✓ | ✓ | ✓ | ✓ | | | | |
| secrets | ✓ | | | ✓ | ✓ | | | |
| cutter | ✓ | | | | | ✓ | | |
| approver | ✓ | | | | | | ✓ | |
| admin | ✓ | ✓ | ✓ | ✓ | ✓ | ✓ | ✓ | ✓ |

Reading is for everything or nothing: each role includes it, and no answer has secret material. An editor may move traffic,
because other endpoints move it, too. Cutting traffic is a role of its own, which comes in addition to the one for the change.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class Permission(Enum):
    """Something that a caller may do with an object."""

    VIEW = "view"  # read anything
    SWITCH = "switch"  # move the traffic of a model, also back
    EDIT = "edit"  # create, change and delete gateways and models; reconnect, forget and block nodes
    USE_SECRET = "use"  # name a secret in a gateway or a model
    SECRETS = "change-secret"  # create, change and delete secrets
    CUT = "cut"  # make a change with `allow_cut`, whether or not it cuts traffic; adopt nodes
    APPROVE = "approve"  # for a later version: no method needs it
    ADMIN = "admin"  # for a later version: no method needs it


class Role(Enum):
    """A name for several permissions, which rules give."""

    VIEWER = "viewer"
    SWITCHER = "switcher"
    EDITOR = "editor"
    SECRETS = "secrets"
    CUTTER = "cutter"
    APPROVER = "approver"
    ADMIN = "admin"


PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset((Permission.VIEW,)),
    Role.SWITCHER: frozenset((Permission.VIEW, Permission.SWITCH)),
    Role.EDITOR: frozenset((Permission.VIEW, Permission.SWITCH, Permission.EDIT, Permission.USE_SECRET)),
    Role.SECRETS: frozenset((Permission.VIEW, Permission.USE_SECRET, Permission.SECRETS)),
    Role.CUTTER: frozenset((Permission.VIEW, Permission.CUT)),
    Role.APPROVER: frozenset((Permission.VIEW, Permission.APPROVE)),
    Role.ADMIN: frozenset(Permission),
}

# The role that an explanation names. Who names a secret also edits the object.
LEAST_ROLE: Mapping[Permission, Role] = {
    Permission.VIEW: Role.VIEWER,
    Permission.SWITCH: Role.SWITCHER,
    Permission.EDIT: Role.EDITOR,
    Permission.USE_SECRET: Role.EDITOR,
    Permission.SECRETS: Role.SECRETS,
    Permission.CUT: Role.CUTTER,
    Permission.APPROVE: Role.APPROVER,
    Permission.ADMIN: Role.ADMIN,
}
