"""The page in headless Chromium: what people see, press and hear read out. Needs Debian's `chromium`; CI has it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

import resnet_surgeon as rs
from tests import PATIENCE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="needs a browser: install Debian's chromium"
)
NAMES = "#tensors tbody tr:visible td:first-child"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        assert CHROMIUM, "install Debian's chromium"
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE * 1000)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    source = checkpoints / "basic.pth"
    network = rs.open(source).adapt(1).remove(layers=["layer1.1"]).remove(last=4)  # fewer rows, of all kinds
    made = network.heads([3, 5], own="layer2").save(folder / "model.safetensors")
    (folder / "report.html").write_text(rs.report(made, against=source), "utf-8")
    return (folder / "report.html").as_uri()


def new_page(browser: Browser, **options: Any) -> Page:
    page = browser.new_page(**options)
    page.set_default_timeout(PATIENCE * 1000)
    return page


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Page:
    """Each page in a tab of its own would start a process of its own."""
    return new_page(browser)


@pytest.fixture
def page(tab: Page, address: str) -> Iterator[Page]:
    """The page, opened anew; nothing may be asked of a network or told to the console."""
    told: list[str] = []
    asked: list[str] = []
    listeners: dict[Any, Any] = {
        "console": lambda message: told.append(message.text),
        "pageerror": lambda error: told.append(str(error)),
        "request": lambda request: asked.append(request.url),
    }
    for event, listener in listeners.items():
        tab.on(event, listener)
    tab.goto(address)
    yield tab
    for event, listener in listeners.items():
        tab.remove_listener(event, listener)
    assert told == []
    assert address in asked
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}


def names(page: Page) -> list[str]:
    return page.locator(NAMES).all_inner_texts()


def test_it_is_shown_whole(page: Page) -> None:
    assert page.title() == "model.safetensors: resnet-surgeon report"
    assert page.locator("h2").all_inner_texts() == [
        "Network", "Filters of conv1", "Proofs", "Load it", "Tensors", "Manifest",
    ]  # fmt: skip
    assert page.locator("svg").count() == 1
    assert page.evaluate("Array.from(document.images).every(image => image.complete && image.naturalWidth === 65)")


def test_a_click_on_a_header_sorts_and_another_turns_the_order(page: Page) -> None:
    sizes = "Array.from(document.querySelectorAll('#tensors tbody td[data-sort]')).map(cell => +cell.dataset.sort)"
    header = page.locator("#tensors th", has_text="Bytes")
    for order, reverse in (("ascending", False), ("descending", True)):
        header.get_by_role("button").click()
        assert header.get_attribute("aria-sort") == order
        assert page.evaluate(sizes) == sorted(page.evaluate(sizes), reverse=reverse)


def test_sorting_works_from_the_keyboard(page: Page) -> None:
    page.locator("#tensors th button").first.focus()
    page.keyboard.press("Enter")
    first = names(page)[:2]
    page.keyboard.press("Space")
    assert first == ["bn1.bias", "bn1.num_batches_tracked"]
    assert names(page)[0] > first[0]


def test_rows_are_filtered_by_name_and_by_fate(page: Page) -> None:
    page.get_by_label("Name contains").fill("HEAD1")
    assert names(page)
    assert all("head1" in name for name in names(page))
    page.get_by_label("What became of it").select_option("initialised")
    assert names(page) == ["heads.head1.fc.weight", "heads.head1.fc.bias"]
    assert page.get_by_role("status").inner_text().startswith("2 of ")
    page.get_by_label("Name contains").fill("no such tensor")
    assert names(page) == []


def test_the_code_can_be_copied(page: Page) -> None:
    page.evaluate("navigator.clipboard.writeText = async text => { window.copied = text; }")
    page.get_by_role("button", name="Copy").first.click()
    assert "rs.load('model.safetensors')" in page.evaluate("window.copied")


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280)])
def test_it_is_accessible(scheme: Any, width: int, browser: Browser, address: str) -> None:
    """By all of axe's rules, opened wide and on a phone, in light and dark: no colour depends on the width."""
    page = new_page(browser, color_scheme=scheme, viewport={"width": width, "height": 844}, bypass_csp=True)
    page.goto(address)
    page.locator("summary").click()
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    page.close()


def test_a_phone_shows_it_without_scrolling_sideways(browser: Browser, address: str) -> None:
    page = new_page(browser, viewport={"width": 360, "height": 740})
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.close()


def test_without_scripts_all_can_be_read(browser: Browser, address: str) -> None:
    page = new_page(browser, java_script_enabled=False)
    page.goto(address)
    assert page.locator("#filters").is_hidden()
    assert not page.locator("button").filter(visible=True).count()
    assert len(names(page)) == page.locator("#tensors tbody tr").count() > 0
    page.locator("summary").click()
    assert '"format_version": 2' in page.locator("#manifest-text").inner_text()
    page.close()


def test_a_network_of_101_layers_stays_below_a_megabyte_and_a_half(checkpoints: Path, tmp_path: Path) -> None:
    """Its two heads with a layer4 each give about 690 rows; so much may each take, beside a page's fixed part."""
    made = rs.open(checkpoints / "basic.pth").adapt(5, init="repeat").heads([3, 5]).save(tmp_path / "m.safetensors")
    rows = len(rs.open(made).tensors)
    assert len(rs.report(made).encode()) < 400_000 + rows * 1_500
