"""A recipe says what to build, and where it is wrong: all of it, with line and column."""

from __future__ import annotations

import dataclasses

import pytest

from resnet_surgeon.errors import RecipeError, UsageError
from resnet_surgeon.operations import OPERATIONS
from resnet_surgeon.operations.adapt import Adapt
from resnet_surgeon.operations.checkpoint import Unopened
from resnet_surgeon.operations.graft import Graft
from resnet_surgeon.operations.heads import Heads
from resnet_surgeon.operations.remove import Remove
from resnet_surgeon.recipes import nodes, reading
from resnet_surgeon.recipes.reading import parsed, spellings, stated_variables

WHOLE = """
source: my.pth
key: ema
ignore: [ca.*]
names: timm
operations:
  - adapt: {in-ch: 1, init: scaled}
  - remove:
      last: 2
  - heads: {classes: [3, 5]}
  - graft: {from: {source: b.pth, key: ema, assume: reid}, layers: [layer1]}
output: out/model.pth
"""


def test_options_have_the_names_of_the_command_line() -> None:
    (target,) = parsed(WHOLE, "r", {})
    assert target.operations == (
        Adapt(1, "scaled"),
        Remove(last=2),
        Heads([3, 5]),
        Graft(Unopened("b.pth", {"key": "ema", "assume": "reid"}), ["layer1"]),
    )
    assert (target.source, target.output, target.names) == ("my.pth", "out/model.pth", "timm")
    assert target.opening == {"key": "ema", "ignore": ("ca.*",)}


@pytest.mark.parametrize("name", ["in-ch", "in-channels", "in_channels"])
def test_every_spelling_of_an_option_is_taken(name: str) -> None:
    (target,) = parsed(f"operations: [adapt: {{{name}: 4}}]", "r", {})
    assert target.operations == (Adapt(4),)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_option_of_every_operation_can_be_said(operation: str) -> None:
    kind = OPERATIONS[operation]
    stated = {field.name for field in dataclasses.fields(kind) if not field.metadata.get("found")}  # type: ignore[arg-type]
    assert {*spellings(kind).values()} == stated


def test_documents_of_one_file_are_several_recipes() -> None:
    targets = parsed("operations: []\n---\nsource: resnet18\noperations: [remove: {last: 1}]\n", "r", {})
    assert [(target.source, target.operations) for target in targets] == [
        ("resnet50", ()),
        ("resnet18", (Remove(last=1),)),
    ]


def test_a_variable_is_the_value_where_it_is_all_and_text_within_text() -> None:
    text = "variables: {n: 4}\noperations:\n  - adapt: {in-ch: '${n}'}\noutput: m-${n}-$$x.safetensors"
    (target,) = parsed(text, "r", {})
    assert (target.operations, target.output) == ((Adapt(4),), "m-4-$x.safetensors")


def test_what_is_set_replaces_what_the_recipe_says_itself() -> None:
    text = "variables: {n: 4}\noperations:\n  - adapt: {in-ch: '${n}'}"
    assert parsed(text, "r", stated_variables(["n=7"]))[0].operations == (Adapt(7),)


def test_a_matrix_makes_an_output_of_every_combination() -> None:
    text = """
matrix: {n: [1, 4], init: [mean, scaled]}
operations:
  - adapt: {in-ch: "${n}", init: "${init}"}
"""
    made = [target.operations[0] for target in parsed(text, "r", {})]
    assert made == [Adapt(1), Adapt(1, "scaled"), Adapt(4), Adapt(4, "scaled")]
    assert [target.operations[0] for target in parsed(text, "r", {"n": 2})] == [Adapt(2), Adapt(2, "scaled")]


MISTAKES = {
    "operations: [adapt: {in-chn: 1}]": ["1:22: adapt has no option `in-chn` (did you mean `in-ch`?)"],
    "operations:\n  - adapt: {in-ch: no}": ["2:20: in-ch must be a whole number, not `no`"],
    "operations:\n  - adapt: {in-ch: 0}": ["2:20: in-ch must be a whole number of at least 1, not 0"],
    "operations:\n  - adapt: {in-ch: 1, init: scald}": ["2:29: init must be one of mean, scaled, repeat, random"],
    "operations:\n  - depth: {blocks: [010]}": ["2:22: `010` cannot be read (within quotes it is text)"],
    "operations: [adpt: {}]": ["1:14: there is no operation `adpt` (did you mean `adapt`?)"],
    "operations:\n  - remove: {last: 1, layers: [fc]}": ["2:5: remove: give either last or layers"],
    "operations:\n  - adapt: {in-ch: 1, in_channels: 2}": ["under another name too"],
    "operations:\n  - graft: {from: {source: a, kye: b}, layers: [fc]}": [
        "2:31: `from` has no key `kye` (did you mean `key`?)"
    ],
    "operations:\n  - graft: {from: {key: b}, layers: [fc]}": ["2:19: `from` lacks `source`"],
    "operations:\n  - graft: {from: {source: a, seed: b}, layers: [fc]}": ["2:37: seed must be a whole number"],
    "operations:\n  - average: {others: [a, 3]}": ["2:27: `others` must be text"],
    "operations: adapt": ["1:13: `operations` must be a list"],
    "operations: [3]": ["1:14: an operation must be a name with options"],
    "sorce: x\noperations: []": ["1:1: a recipe has no key `sorce` (did you mean `source`?)"],
    "source: x": ["1:1: a recipe lacks `operations:`"],
    "source: [x]\noperations: []": ["1:9: `source` must be text"],
    "names: tim\noperations: []": ["1:8: `names` must be one of torchvision, "],
    "operations:\n  - adapt: {in-ch: '${n}'}": ["2:20: there is no variable `n`"],
    "variables: {chans: 1}\noperations:\n  - adapt: {in-ch: '${chan}'}": ["3:20: ", "did you mean `chans`?"],
    "output: a$b\noperations: []": ["1:9: a single `$`"],
    "matrix: {n: 1}\noperations: []": ["1:13: `n` in the matrix must be a list of values"],
    "variables: {n-m: 1}\noperations: []": ["1:13: a variable cannot be called `n-m`"],
    "variables: {n: [1]}\noutput: a-${n}\noperations: []": ["2:9: `${n}` is a list"],
    "a: 1\na: 2": ["2:1: `a` stands here twice"],
    "operations: [": ["this is not YAML"],
    "operations: [remove: {last: ${n}}]": ["1:30: this is not YAML", 'a variable takes quotes: "${name}"'],
    "operations: !!python/name:os.system []": ["1:13: recipes have no tags"],
    "- 1": ["1:1: a recipe must have keys with values"],
    "": ["1:1: there is nothing to build"],
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_told_with_its_place(text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parsed(text, "r.yaml", {})
    assert all(mistake.startswith("r.yaml:") for mistake in caught.value.mistakes)
    for expected in MISTAKES[text]:
        assert expected in str(caught.value)


def test_all_mistakes_are_told_at_once_each_once_in_order() -> None:
    text = """
matrix: {n: [1, 2]}
operations:
  - adapt: {in-ch: 0, init: "${x}"}
  - explode
output: [1]
"""
    with pytest.raises(RecipeError) as caught:
        parsed(text, "r.yaml", {})
    assert [mistake.split(": ")[0] for mistake in caught.value.mistakes] == [
        "r.yaml:4:20",
        "r.yaml:4:29",
        "r.yaml:5:5",
        "r.yaml:6:9",
    ]


def test_what_is_set_must_be_a_variable_of_the_recipe() -> None:
    with pytest.raises(UsageError, match="no variable `chanels`") as caught:
        parsed("matrix: {channels: [1]}\noperations: []", "r", {"chanels": 1})
    assert caught.value.hint == "did you mean `channels`?"


@pytest.mark.parametrize("text", ["n", "=4", "a-b=4", "n=[1"])
def test_what_sets_no_variable_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        stated_variables([text])


def test_aliases_that_multiply_end_in_an_error() -> None:
    bomb = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    for one, other in zip("abcdefg", "bcdefgh", strict=True):
        bomb += f"{other}: &{other} [{', '.join([f'*{one}'] * 10)}]\n"
    with pytest.raises(RecipeError, match="more than any recipe does"):
        parsed(bomb, "r", {})


def test_deep_nesting_ends_in_an_error() -> None:
    with pytest.raises(RecipeError):
        parsed("[" * 5000, "r", {})


@pytest.mark.parametrize(
    "text",
    [
        f"operations: [{'1,' * 3_000}]",
        f"variables: {{a: {'x' * 100_000}}}\noperations: []\noutput: {'${a}' * 1000}",
        "variables: {a: [" + "1," * 1500 + "]}\noperations: [" + "{remove: {layers: '${a}'}}," * 100 + "]",
        f"matrix: {{a: [{'1,' * 100}], b: [{'1,' * 90}]}}\noperations: [{'fuse,' * 100}]",
    ],
    ids=["values", "text", "lists", "outputs"],
)
def test_what_would_take_endless_memory_or_time_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By limits of an eighth, which are reached sooner."""
    monkeypatch.setattr(nodes, "_MOST", nodes._MOST // 8)
    monkeypatch.setattr(reading, "_LARGEST", reading._LARGEST // 8)
    with pytest.raises(RecipeError, match="than any recipe does"):
        parsed(text, "r", {})


def test_a_matrix_of_endless_outputs_is_refused() -> None:
    numbers = ", ".join(map(str, range(200)))
    with pytest.raises(RecipeError, match="more than 10000 outputs"):
        parsed(f"matrix: {{a: [{numbers}], b: [{numbers}]}}\noperations: []", "r", {})
