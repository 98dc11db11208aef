"""The table of roles."""

from __future__ import annotations

from controlplane.access import roles
from controlplane.access.roles import LEAST_ROLE, PERMISSIONS, Permission, Role


def test_every_role_reads_and_only_admin_has_everything() -> None:
    assert all(Permission.VIEW in permissions for permissions in PERMISSIONS.values())
    assert [role for role, permissions in PERMISSIONS.items() if permissions == frozenset(Permission)] == [Role.ADMIN]


def test_cutting_traffic_is_a_role_of_its_own() -> None:
    assert {role for role, permissions in PERMISSIONS.items() if Permission.CUT in permissions} == {Role.CUTTER, Role.ADMIN}


def test_the_least_role_has_the_permission_and_no_other_role_with_it_has_fewer() -> None:
    assert LEAST_ROLE.keys() == set(Permission)
    for permission, role in LEAST_ROLE.items():
        assert permission in PERMISSIONS[role]
        others = [p for r, p in PERMISSIONS.items() if permission in p and r is not Role.SECRETS]
        assert role is Role.SECRETS or len(PERMISSIONS[role]) == min(map(len, others))


def test_the_table_in_the_text_is_the_table_in_code() -> None:
    rows = [line.strip("| ").split("|") for line in (roles.__doc__ or "").splitlines() if line.startswith("|")]
    _, _, *body = rows
    for row in body:
        role, *cells = (cell.strip() for cell in row)
        expected = [permission for permission in Permission if permission in PERMISSIONS[Role(role)]]
        marked = [permission for permission, cell in zip(Permission, [*cells, *[""] * 8], strict=False) if cell]
        assert marked == expected, role
