"""The policy for changes that cut traffic: the words of each loss, the table of permits, and the token."""

from __future__ import annotations

import pytest

from controlplane.domain.cuts import NO_LOSSES, CutPermit, Loss, Losses, LossKind, check_cut, cut_token, in_order
from controlplane.errors import Code, Error

MANY = [f"edge-{i}" for i in range(1, 201)]
PATH = Loss(LossKind.MODEL, "0.0.0.0:80", ("iris",), "path")
ONLY = Loss(LossKind.LISTENER, "0.0.0.0:80", ("iris",), "only")


@pytest.mark.parametrize(
    ("loss", "nodes", "text"),
    [
        (ONLY, ["edge-1"], "edge-1 loses its only listener 0.0.0.0:80 with model iris"),
        (Loss(LossKind.LISTENER, "[::]:80"), ["a", "b"], "a and b lose their listener [::]:80"),
        (
            Loss(LossKind.LISTENER, "0.0.0.0:80", ("iris", "wine"), "", " (gateway edge moves to 0.0.0.0:81)"),
            MANY,
            "200 nodes lose their listener 0.0.0.0:80 (gateway edge moves to 0.0.0.0:81) with models iris, wine: "
            "edge-1, edge-2, edge-3 and 197 more",
        ),
        (PATH, ["edge-2"], "model iris loses its path at 0.0.0.0:80 on edge-2"),
        (PATH, MANY, "model iris loses its path at 0.0.0.0:80 on 200 nodes: edge-1, edge-2, edge-3 and 197 more"),
        (
            Loss(LossKind.MODEL, "0.0.0.0:80", ("iris", "wine"), "host", " to model rose"),
            ["a", "b", "c"],
            "models iris, wine lose their host at 0.0.0.0:80 to model rose on a, b and c",
        ),
        (Loss(LossKind.MODEL, "", ("iris",)), ["py-1"], "model iris can't be reached any more on py-1"),
        (
            Loss(LossKind.MODEL, "0.0.0.0:80", (), "key 'k'"),
            ["a"],
            "no model is reached by key 'k' at 0.0.0.0:80 any more on a",
        ),
        (
            Loss(LossKind.ACCESS, "0.0.0.0:80", ("iris",), "path segment 3", ", only by header x-model,"),
            ["a"],
            "model iris can't be reached by path segment 3 at 0.0.0.0:80 any more, only by header x-model, on a",
        ),
        (
            Loss(LossKind.ENDPOINTS, "", ("iris",), "blue", " (10.0.0.1:80: connection refused)"),
            ["a"],
            "no endpoint of version blue of model iris answers (10.0.0.1:80: connection refused) on a",
        ),
        (Loss(LossKind.UNKNOWN), ["a"], "a may lose everything: Turnout does not know what it holds"),
        (
            Loss(LossKind.UNKNOWN),
            MANY,
            "200 nodes may lose everything: Turnout does not know what they hold: edge-1, edge-2, edge-3 and 197 more",
        ),
    ],
)
def test_each_kind_of_loss_has_its_sentence(loss: Loss, nodes: list[str], text: str) -> None:
    assert loss.text(nodes) == text


def test_an_id_that_a_client_chose_does_not_forge_a_sentence() -> None:
    text = PATH.text(["a\n\x1b[2J" + "b" * 500])
    assert "\n" not in text
    assert "\x1b" not in text
    assert len(text) < 200


def test_many_models_are_counted() -> None:
    labels = tuple(f"m{i:03}" for i in range(500))
    assert (
        Loss(LossKind.MODEL, "0.0.0.0:80", labels, "path")
        .text(["a"])
        .endswith(" m009 and 490 more lose their path at 0.0.0.0:80 on a")
    )


def test_the_most_severe_loss_comes_first() -> None:
    unknown = Loss(LossKind.UNKNOWN)
    other = Loss(LossKind.MODEL, "0.0.0.0:80", ("wine",), "path")
    ordered = in_order({PATH: ["b", "a"], other: ["c", "a", "b"], ONLY: ["a"], unknown: ["a"]})
    assert list(ordered.items()) == [(unknown, ["a"]), (ONLY, ["a"]), (other, ["a", "b", "c"]), (PATH, ["a", "b"])]


def refusal(losses: Losses, permit: CutPermit) -> Error | None:
    try:
        check_cut(losses, permit)
    except Error as error:
        return error
    return None


def test_a_cut_is_made_only_as_the_table_says() -> None:
    lost = {PATH: ["a", "b"], ONLY: ["c"]}
    token = cut_token(lost)
    for permit in (CutPermit(), CutPermit(True), CutPermit(True, token)):
        assert refusal(NO_LOSSES, permit) is None
    assert refusal(lost, CutPermit(True)) is None
    assert refusal(lost, CutPermit(True, token)) is None
    # Fewer nodes lose the same.
    assert refusal({PATH: ["a"], ONLY: ["c"]}, CutPermit(True, token)) is None
    refused = {
        "this change cuts traffic, so it needs allow_cut: ": (lost, CutPermit()),
        "this change cuts other traffic than was allowed, so it needs another dry run: ": (
            {**lost, Loss(LossKind.UNKNOWN): ["a"]},
            CutPermit(True, token),
        ),
        "this change cuts traffic on 4 nodes, not 3, so it needs another dry run: ": (
            {PATH: ["a", "b", "d"], ONLY: ["c"]},
            CutPermit(True, token),
        ),
    }
    for start, (losses, permit) in refused.items():
        error = refusal(losses, permit)
        assert error is not None
        assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, "CUTS_TRAFFIC")
        assert error.message.startswith(start + losses_text(losses))
        assert error.metadata == {"cut_token": cut_token(losses), "losses": str(len(losses))}
        assert [v.description for v in error.violations] == [loss.text(nodes) for loss, nodes in losses.items()]
    assert refusal({PATH: ["a"]}, CutPermit(True, token)) is not None


def losses_text(losses: Losses) -> str:
    return "; ".join(loss.text(nodes) for loss, nodes in losses.items())


def test_the_fields_of_a_refusal_are_models_or_addresses() -> None:
    error = refusal({ONLY: ["a"], PATH: ["a"]}, CutPermit())
    assert error is not None
    assert [v.field for v in error.violations] == ["0.0.0.0:80", "models/iris"]


def test_a_refusal_lists_twenty_losses_and_counts_the_others() -> None:
    losses = {Loss(LossKind.MODEL, f"0.0.0.0:{port}", ("iris",), "path"): ["a"] for port in range(50)}
    error = refusal(losses, CutPermit())
    assert error is not None
    assert (len(error.violations), error.violations[-1].description) == (21, "and 30 more losses")


def test_the_token_depends_on_what_is_lost_and_not_on_the_cause() -> None:
    def silent(cause: str) -> str:
        return cut_token({Loss(LossKind.ENDPOINTS, "", ("iris",), "blue", cause): ["a"]})

    assert silent(" (timed out)") == silent(" (refused)")
    assert cut_token({PATH: ["a"], ONLY: ["b"]}) == cut_token({ONLY: ["b"], PATH: ["a"]})
    assert cut_token({PATH: ["a"]}) != cut_token({ONLY: ["a"]})
    assert cut_token(NO_LOSSES) == ""


@pytest.mark.parametrize(
    ("allow_cut", "token", "text"),
    [
        (False, "0123456789abcdef-3", "cut_token: needs allow_cut"),
        (True, "nonsense", "cut_token: 'nonsense' is not a cut token"),
    ],
)
def test_a_permit_with_a_wrong_token_is_invalid(allow_cut: bool, token: str, text: str) -> None:
    with pytest.raises(Error) as caught:
        CutPermit(allow_cut, token)
    assert (caught.value.code, caught.value.message.startswith(text)) == (Code.INVALID_ARGUMENT, True)
