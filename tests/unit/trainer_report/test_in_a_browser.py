"""The page as a browser shows it: it asks for nothing, says nothing, and can be used by everybody."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from rectrain_trainer.reporting.gather import gather
from rectrain_trainer.reporting.page import page as report_of
from tests.support.browser import browser as a_browser
from tests.support.told_run import told_run

Scheme = Literal["light", "dark"]
DESKTOP, PHONE = 1280, 360


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as started:
        yield started


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages of a finished run, of one under way, and of one that has only begun."""
    folder = tmp_path_factory.mktemp("pages")
    begun = told_run(finished=False)
    begun.objects = {"log/00000001.json": begun.objects["log/00000001.json"]}
    stores = {"finished": told_run(), "open": told_run(finished=False), "begun": begun}
    for name, store in stores.items():
        (folder / f"{name}.html").write_text(report_of(gather(store)), encoding="utf-8")  # type: ignore[arg-type]
    return {name: folder / f"{name}.html" for name in stores}


@pytest.fixture
def opened(browser: Browser, files: dict[str, Path]) -> Iterator[Callable[..., Page]]:
    """Opens a page; fails at the end if it asked for anything but itself, or anything was said."""
    said: list[str] = []
    pages: list[Page] = []

    def open_page(name: str = "finished", width: int = DESKTOP, scheme: Scheme = "light") -> Page:
        one = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()
        pages.append(one)
        url = files[name].as_uri()

        def asked(address: str) -> None:
            if address != url and not address.startswith("data:image/"):
                said.append(f"asked for {address}")

        one.on("request", lambda request: asked(request.url))
        one.on("console", lambda message: said.append(message.text))
        one.on("pageerror", lambda error: said.append(str(error)))
        one.on("dialog", lambda dialog: said.append(f"dialog {dialog.message}"))
        one.goto(url)
        return one

    yield open_page
    for one in pages:
        one.context.close()
    assert said == []


@pytest.mark.parametrize("name", ["finished", "open", "begun"])
@pytest.mark.parametrize(("width", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_it_can_be_used_by_everybody(
    opened: Callable[..., Page], name: str, width: int, scheme: Scheme
) -> None:
    page = opened(name, width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in found] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_scrolling_sideways(opened: Callable[..., Page], scheme: Scheme) -> None:
    page = opened("finished", PHONE, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE
    smallest = "Math.min(...[...document.querySelectorAll('body *')].filter(e => e.textContent.trim())"
    assert page.evaluate(f"{smallest}.map(e => parseFloat(getComputedStyle(e).fontSize)))") >= 12


def test_both_schemes_are_its_own(opened: Callable[..., Page]) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light, dark = (opened(scheme=scheme).evaluate(colour) for scheme in ("light", "dark"))
    assert light != dark


def test_it_is_read_by_keyboard(opened: Callable[..., Page]) -> None:
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    scrolling = """[...document.querySelectorAll('*')].filter(e =>
        ['auto', 'scroll'].includes(getComputedStyle(e).overflowX)
        && (e.tabIndex < 0 || !e.getAttribute('aria-label'))).length"""
    assert page.evaluate(scrolling) == 0


def test_scripts_are_written_in_their_direction(opened: Callable[..., Page]) -> None:
    page = opened()
    texts = page.locator(".samples .text bdi")
    directions = texts.evaluate_all("all => all.map(e => [e.textContent, getComputedStyle(e).direction])")
    found = dict(directions)
    assert found["السلام عليكم ورحمة الله"] == "rtl"
    assert found["น้ำตกห้วยแม่ขมิ้น"] == "ltr"


def test_nothing_of_a_label_runs(opened: Callable[..., Page]) -> None:
    page = opened()
    assert page.locator("script").count() == 0
    assert page.locator("main img").count() == 6
    assert page.locator("main img").evaluate_all("all => all.every(e => e.naturalWidth > 0)")


def test_it_can_be_printed(opened: Callable[..., Page]) -> None:
    page = opened()
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert page.locator("pre").is_visible(), "the plan is printed, though it isn't unfolded"
    assert page.pdf(format="A4").startswith(b"%PDF")
