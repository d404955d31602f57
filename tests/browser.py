"""Chromium, for tests of pages."""

import contextlib
import shutil

import pytest

pytest.importorskip("playwright")

from playwright.sync_api import sync_playwright

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
PATIENCE = 300_000
_ARGS = ["--no-sandbox"]

NAMELESS = """() => [...document.querySelectorAll(
    'button, input, select, textarea, canvas, img, a')]
  .filter((e) => e.checkVisibility())
  .filter((e) => !(e.getAttribute('aria-label') || e.innerText?.trim() || e.alt))
  .filter((e) => ![...(e.labels ?? [])].some((label) => label.innerText.trim()))
  .map((e) => e.outerHTML.slice(0, 80))"""
_COLOURS = """() => Object.fromEntries(['ink', 'quiet', 'accent', 'right', 'wrong', 'warn',
  'warn-page', 'page', 'card', 'accent-ink'].map((name) => ['--' + name,
    getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim()]))"""


@contextlib.contextmanager
def launched():
    """A browser."""
    with (
        sync_playwright() as driver,
        driver.chromium.launch(executable_path=CHROMIUM, args=_ARGS) as browser,
    ):
        yield browser


def another(browser, args):
    """One more, with arguments of its own."""
    return browser.browser_type.launch(executable_path=CHROMIUM, args=[*_ARGS, *args])


@contextlib.contextmanager
def watched(browser, ours):
    """What opens pages, and a list of what went wrong in them: errors, and requests elsewhere.

    `ours` are the beginnings of addresses that may be asked for.
    """
    contexts, problems = [], []

    def see(message):
        if message.type == "error":
            problems.append(message.text)

    def check(request):
        if not request.url.startswith(ours):
            problems.append(f"asked for {request.url}")

    def open_page(address, width=1280, **options):
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", see)
        page.on("request", check)
        page.goto(address)
        return page

    try:
        yield open_page, problems
    finally:
        for context in contexts:
            context.close()


def draw(page, points):
    """One stroke on the drawing field, whose sides are 280."""
    pad = page.locator("#pad")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    scale = box["width"] / 280
    (first, *others) = [(box["x"] + x * scale, box["y"] + y * scale) for x, y in points]
    page.mouse.move(*first)
    page.mouse.down()
    for point in others:
        page.mouse.move(*point, steps=8)
    page.mouse.up()


def check_contrasts(page):
    """Text stands out, by WCAG 2.1, 1.4.3, in light and dark."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours = page.evaluate(_COLOURS)
        for name in ("--ink", "--quiet", "--accent", "--right", "--wrong"):
            for ground in ("--page", "--card"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (scheme, name, ground)
        assert contrast(colours["--warn"], colours["--warn-page"]) >= 4.5
        assert contrast(colours["--accent-ink"], colours["--accent"]) >= 4.5


def contrast(one, other):
    def luminance(colour):
        digits_ = colour.removeprefix("#")
        digits_ = "".join(2 * d for d in digits_) if len(digits_) == 3 else digits_
        parts = [int(digits_[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    lower, higher = sorted([luminance(one), luminance(other)])
    return (higher + 0.05) / (lower + 0.05)
