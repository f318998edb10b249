"""The page says what is true of the file, and takes nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import resnet_surgeon as rs
from resnet_surgeon.network import Network

VOID = {"meta", "link", "img", "input", "br", "line", "rect"}


class Page(HTMLParser):
    """What is on the page: text, attributes that name resources, elements by name; fails on elements left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: dict[str, int] = {}
        self.resources: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] = self.elements.get(tag, 0) + 1
        self.resources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def source(checkpoints: Path) -> Path:
    return checkpoints / "basic.pth"


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = rs.open(source).adapt(1).remove(layers=["layer1.1"]).heads([3, 5], names=["lesion", "grade"])
    return network.save(tmp_path_factory.mktemp("made") / "model.safetensors")


@pytest.fixture(scope="module")
def page(made: Path, source: Path) -> str:
    return rs.report(made, against=source)


def test_it_takes_nothing_from_elsewhere(page: str) -> None:
    resources = Page(page).resources
    assert resources
    assert all(resource.startswith("data:image/png;base64,") for resource in resources)
    assert "http" not in re.sub(r"http-equiv", "", page)


def test_the_network_is_drawn_with_its_cut_and_heads(page: str) -> None:
    (drawing,) = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert (
        "The network: stem changed, layer1 changed, layer2 kept, layer3 kept, fc gone, layer4 copied, fc new, "
        "layer4 copied, fc new<" in drawing
    )
    assert (drawing.count(">cut<"), drawing.count(">lesion<")) == (1, 1)
    assert ">changed: -1 block<" in drawing


def test_the_filters_are_shown_before_and_after(page: str) -> None:
    captions = re.findall(r'<img [^>]*alt="([^"]*)"', page)
    assert captions == [
        "before: basic: 64 filters; red, green and blue as they are",
        "after: 64 filters of the one channel",
    ]


def test_every_tensor_has_a_row_with_its_proof(page: str, made: Path) -> None:
    rows = re.findall(r'<tr data-fate="(\w+)"><td class="mono">([^<]*)</td>.*?>(\w*)</td></tr>', page)
    assert {name for fate, name, _ in rows if fate != "dropped"} == load_file(made).keys()
    assert {verdict for fate, _, verdict in rows if fate != "dropped"} == {"proven"}
    assert {name for fate, name, _ in rows if fate == "dropped"} >= {"fc.weight", "fc.bias"}


def test_the_code_on_it_runs(page: str, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import html

    code = re.search(r'<code id="code">(.*?)</code>', page, re.DOTALL)
    assert code
    monkeypatch.chdir(made.parent)
    names: dict[str, object] = {}
    exec(html.unescape(code[1]), names)
    assert [tuple(names[name].shape) for name in ("lesion", "grade")] == [(1, 3), (1, 5)]  # type: ignore[attr-defined]


def test_the_code_on_it_is_python_whatever_the_heads_are_called(source: Path, tmp_path: Path) -> None:
    made = rs.open(source).heads([3, 5], names=["class", "import"]).save(tmp_path / "model.safetensors")
    assert "class_, import_ = model(" in rs.report(made)


def test_without_a_source_it_shows_the_result_and_says_what_is_unproven(made: Path) -> None:
    page = rs.report(made)
    assert page.count("<svg") == 1
    assert "the source was not given" in page
    assert '<td class="outcome unproven">unproven</td>' in page


def test_a_file_that_fails_its_proofs_has_a_page_that_says_so(made: Path, source: Path, tmp_path: Path) -> None:
    state = load_file(made)
    state["bn1.bias"] = state["bn1.bias"] + 1
    with safe_open(made, "pt") as file:
        save_file(state, tmp_path / "model.safetensors", metadata=file.metadata())
    page = rs.report(tmp_path / "model.safetensors", against=source)
    assert "This file is not what its manifest says." in page
    assert re.search(r">bn1\.bias</td>.*>failed</td></tr>", page)


def test_a_file_whose_manifest_is_no_good_has_only_the_proofs(made: Path, tmp_path: Path) -> None:
    save_file(load_file(made), tmp_path / "model.safetensors", metadata={"resnet_surgeon.manifest": "{}"})
    page = rs.report(tmp_path / "model.safetensors")
    assert ("<svg" in page, '<td class="outcome failed">failed</td>' in page) == (False, True)


def test_names_are_text_whatever_is_in_them(source: Path, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>.pth"
    (tmp_path / evil).write_bytes(source.read_bytes())
    made = rs.open(tmp_path / evil).adapt(1).save(tmp_path / "<script>alert(2).safetensors")
    page = Page(rs.report(made))
    assert evil in page.text
    assert "<script>alert(2).safetensors" in page.text
    assert (page.elements["script"], page.elements["img"]) == (1, 1)


def test_what_is_not_seen_is_escaped_wherever_it_stands(source: Path, tmp_path: Path) -> None:
    evil = "\u202etxt\x1b[2J\n.pth"
    (tmp_path / evil).write_bytes(source.read_bytes())
    page = rs.report(rs.open(tmp_path / evil).adapt(1).save(tmp_path / "a\u2066b.safetensors"), against=tmp_path / evil)
    assert all(line.isprintable() for line in page.replace("\t", "").split("\n"))
    assert "<dd>\\u202etxt\\x1b[2J\\n.pth</dd>" in page
    assert "<h1>a\\u2066b.safetensors</h1>" in page


def test_the_code_on_it_holds_no_words_of_the_manifest(source: Path, tmp_path: Path) -> None:
    made = rs.open(source).heads([3, 5], names=["class", "class_"]).save(tmp_path / "model.safetensors")
    with safe_open(made, "pt") as file:
        metadata = file.metadata()
    evil = metadata["resnet_surgeon.manifest"].replace('"name": "class_",\n   "shape"', '"name": "x = 1",\n   "shape"')
    assert evil != metadata["resnet_surgeon.manifest"]
    assert "class__, class_ = model(" in rs.report(made)
    save_file(load_file(made), made, metadata={**metadata, "resnet_surgeon.manifest": evil})
    assert 'id="code"' not in rs.report(made)


@pytest.mark.parametrize(
    ("operate", "pictures"),
    [
        (lambda network: network, 1),
        (lambda network: network.adapt(1), 1),
        (lambda network: network.adapt(2, init="repeat"), 2),
        (lambda network: network.adapt(5), 1),  # all alike
        (lambda network: network.adapt(13, init="random"), 4),
    ],
)
def test_filters_of_other_images_are_gray(
    operate: Callable[[Network], Network], pictures: int, source: Path, tmp_path: Path
) -> None:
    page = rs.report(operate(rs.open(source)).save(tmp_path / "model.safetensors"))
    assert page.count('<img class="filters"') == pictures


@pytest.mark.parametrize("last", [1, 2, 3, 6, 7, 9])
def test_every_cut_can_be_drawn(last: int, source: Path, tmp_path: Path) -> None:
    page = rs.report(rs.open(source).remove(last=last).save(tmp_path / "model.safetensors"), against=source)
    assert page.count(">cut<") == 1
