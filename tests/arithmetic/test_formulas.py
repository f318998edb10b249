"""Formulas are data: made plain, read again, in words; they take what fits them and refuse the rest."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from resnet_surgeon.arithmetic.evaluation import evaluate
from resnet_surgeon.arithmetic.formulas import (
    AreaResampled,
    Cast,
    Combination,
    Crop,
    FoldedBias,
    FoldedInputMean,
    FoldedInputWeight,
    FoldedWeight,
    Formula,
    Mean,
    Mix,
    NormalisedWeight,
    Product,
    Repeat,
    RowMeans,
    Scaled,
)
from resnet_surgeon.arithmetic.operand import Operand
from resnet_surgeon.errors import CheckpointError, OperationError
from resnet_surgeon.fields import decoded, plain

WORDS: dict[str, Formula] = {
    "mean over the 3 input channels, for each of 1": Mean(3, 1),
    "sum over the 3 input channels / 2, for each of 2": Scaled(3, 2),
    "the 3 input channels in turn, times 3/13": Repeat(3, 13),
    "the sum of the 3 input channels": Repeat(3, 1),
    "the 2 input channels mixed into 1 by a matrix": Mix(((0.5, 1.5),)),
    "the 3 input channels of 2 tensors mixed into 1 by a matrix": Mix(((0.5, 1.5, 1.0),), parts=(2, 1)),
    "the weight with the images' std folded in": FoldedInputWeight((0.2, 1.0)),
    "the running mean with the images' mean folded in": FoldedInputMean((0.2, 0.0), (7, 7), "F16"),
    "sum of the inputs times 1, -0.5": Combination((1.0, -0.5)),
    "the centre of 7x7 kernels": Crop(7, 3),
    "3x3 kernels with zeros around them": Crop(3, 7),
    "7x7 kernels resampled by area, with the same sum": AreaResampled(7, 3),
    "product of the two inputs": Product(),
    "cast from F64": Cast("F64"),
    "magnitude times the direction's unit vector": NormalisedWeight(),
    "means of rows of 9, for 1 of 2 rows; 1 drawn": RowMeans(9, ((2, 4), ())),
    "the weight with its batch norm folded in, eps 1e-05": FoldedWeight(1e-5),
    "the bias of the folded batch norm, eps 0": FoldedBias(0.0),
}


@pytest.mark.parametrize("words", WORDS)
def test_a_formula_is_data_with_words(words: str) -> None:
    formula = WORDS[words]
    assert str(formula) == words
    assert decoded(Formula, json.loads(json.dumps(plain(formula)))) == formula


@pytest.mark.parametrize(
    "formula", [Mean(1 << 16, 1), Scaled(3, 1 << 16), Repeat(1 << 16, 1 << 16)], ids=["mean", "scaled", "repeat"]
)
def test_a_formula_of_many_channels_is_a_short_document(formula: Formula) -> None:
    assert len(json.dumps(plain(formula))) < 60


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "sum"},
        {"kind": "mean", "old": 0, "new": 1},
        {"kind": "mean", "old": 3, "new": 70000},
        {"kind": "mix", "matrix": [[]]},
        {"kind": "mix", "matrix": [[1.0], [1.0, 2.0]]},
        {"kind": "mix", "matrix": [[1.0, 2.0]], "parts": [1, 2]},
        {"kind": "folded_input_weight", "std": [1.0, 0.0]},
        {"kind": "combination", "factors": []},
        {"kind": "combination", "factors": [1.0] * 65},
        {"kind": "cast", "old": "I64"},
        {"kind": "crop", "old": 7, "new": 4},
        {"kind": "area_resampled", "old": 33, "new": 3},
        {"kind": "folded_weight", "eps": -1.0},
        {"old": 3, "new": 1},
    ],
    ids=lambda document: json.dumps(document)[:40],
)
def test_what_is_no_formula_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match="."):
        decoded(Formula, document)


def operand(dtype: str, shape: tuple[int, ...], data: bytes) -> Operand:
    def pieces(size: int) -> Iterator[bytes]:
        for start in range(0, len(data), size):
            yield data[start : start + size]

    return Operand(dtype, shape, pieces)


@pytest.mark.parametrize(
    ("formula", "shapes", "made"),
    [
        (Mean(3, 1), [(2, 4)], (2, 1)),
        (Mean(3, 1), [(2, 3)], (2, 2)),
        (Mean(3, 1), [(2, 3), (2, 3)], (2, 1)),
        (Product(), [(2, 3)], (2, 3)),
        (Combination((1.0, 1.0)), [(2, 3), (3, 2)], (2, 3)),
        (FoldedWeight(0.0), [(2, 3), (3,), (3,)], (2, 3)),
    ],
    ids=["old", "new", "two for one", "one for two", "shapes", "folded"],
)
def test_inputs_that_do_not_fit_are_refused(
    formula: Formula, shapes: list[tuple[int, ...]], made: tuple[int, ...]
) -> None:
    operands = [operand("F32", shape, bytes(24)) for shape in shapes]
    with pytest.raises((CheckpointError, ValueError), match="tensor"):
        [*evaluate(formula, "F32", made, operands)]


def test_no_arithmetic_is_done_on_integers() -> None:
    with pytest.raises(CheckpointError, match="no arithmetic is done on dtype I64"):
        [*evaluate(Product(), "F32", (1,), [operand("I64", (1,), bytes(8))] * 2)]


@pytest.mark.parametrize("formula", [Product(), Combination((1.0, 1.0))], ids=["product", "sum"])
def test_a_result_that_is_too_large_is_refused(formula: Formula) -> None:
    large = struct.pack("<f", 3e38)
    with pytest.raises(OperationError, match="not finite in F32"):
        [*evaluate(formula, "F32", (1,), [operand("F32", (1,), large)] * 2)]


def test_a_mix_of_channels_takes_no_numpy() -> None:
    code = """
import sys
from resnet_surgeon.arithmetic.evaluation import evaluate
from resnet_surgeon.arithmetic.operand import Operand
from resnet_surgeon.arithmetic.formulas import Mix
made = b"".join(evaluate(Mix(((0.5, 0.5),)), "F32", (1, 1), [Operand("F32", (1, 2), lambda size: iter([bytes(8)]))]))
print(made == bytes(4), "numpy" in sys.modules)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.split() == ["True", "False"]
