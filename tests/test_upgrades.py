"""What earlier versions wrote is made into today's document; what they could not write is left to be refused."""

from __future__ import annotations

from typing import Any

import pytest

from resnet_surgeon.upgrades import upgraded

KEPT = {"how": "kept", "tensor": "conv1.weight"}


def of_version_1(formula: Any) -> dict[str, Any]:
    inner = {"how": "computed", "formula": formula, "inputs": [KEPT]}
    outer = {"how": "computed", "formula": formula, "inputs": [inner]}
    record = {"dtype": "F32", "provenance": outer}
    return {"format_version": 1, "tensors": {"conv1.weight": record}, "dropped": ["formula"]}


@pytest.mark.parametrize(
    ("words", "formula"),
    [
        ("mean over the 3 input channels, for each of 1", {"kind": "mean", "old": 3, "new": 1}),
        ("sum over the 3 input channels / 13, for each of 13", {"kind": "scaled", "old": 3, "new": 13}),
        ("the 4 input channels in turn, times 4/65536", {"kind": "repeat", "old": 4, "new": 65536}),
    ],
)
def test_formulas_in_words_become_data_on_every_level(words: str, formula: dict[str, Any]) -> None:
    assert upgraded(of_version_1(words), 1) == {**of_version_1(formula), "format_version": 2}


@pytest.mark.parametrize(
    "words",
    [
        "",
        None,
        ["mean"],
        "mean over the 3 input channels, for each of 1\n",
        "mean over the ٣ input channels, for each of 1",
        "sum over the 3 input channels / 2, for each of 3",
        "the 3 input channels in turn, times 4/2",
    ],
)
def test_other_words_stay_what_they_are(words: Any) -> None:
    assert upgraded(of_version_1(words), 1) == {**of_version_1(words), "format_version": 2}


@pytest.mark.parametrize("tensors", [None, [], 3, {"a": None}])
def test_what_is_no_document_passes(tensors: Any) -> None:
    document = {"format_version": 1, "tensors": tensors}
    assert upgraded(document, 1) == {**document, "format_version": 2}


def test_a_document_of_today_is_left_alone() -> None:
    document = {"format_version": 2, "tensors": {}}
    assert upgraded(document, 2) is document
