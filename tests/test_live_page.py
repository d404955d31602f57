"""The live page in a real browser: each of ConvNetJS's ten items, and what this page adds."""

import re

import pytest

pytest.importorskip("starlette")

from tests import browser as browsers
from tests import live
from tests.browser import PATIENCE, draw

pytestmark = browsers.needs_chromium


@pytest.fixture(scope="module")
def session():
    with live.working() as session:
        live.begin(session)
        yield session


@pytest.fixture(scope="module")
def address(session):
    with live.served(session) as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser():
    with browsers.launched() as browser:
        yield browser


@pytest.fixture
def opened(browser, address):
    """Opens pages, in which nothing may go wrong."""
    ours = ("http://127.0.0.1:", "blob:http://127.0.0.1:", "data:")
    with browsers.watched(browser, ours) as (open_page, problems):

        def open_it(width=1280, path="", **options):
            page = open_page(address + path, width, **options)
            page.wait_for_selector("#figures dd")
            page.wait_for_selector("#loss-chart[aria-label*='Step']")  # the curve is there too
            return page

        yield open_it
    assert [text for text in problems if "400 (Bad Request)" not in text] == []


def figure(page, name):
    row = page.locator("#figures div", has=page.locator("dt", has_text=name)).first
    return row.locator("dd").inner_text()


def whole(text):
    return int(re.match(r"[\d,]+", text)[0].replace(",", ""))


def go_on(session, until=0.0):
    session.ask(session.go).result()
    live.wait(lambda: (session.status["validation_accuracy"] or [0])[-1] >= until)


def rest(session):
    session.ask(session.pause).result()
    live.wait(lambda: session.status["state"] == "paused")


def test_2_and_5_training_goes_on_pauses_and_its_curve_grows(opened, session):
    page = opened()
    go_on(session)
    page.wait_for_selector("#state:text-is('training')")
    before = page.locator("#loss-chart").get_attribute("aria-label")
    seen = whole(figure(page, "Examples seen"))
    live.wait(lambda: page.locator("#loss-chart").get_attribute("aria-label") != before)
    assert "training" in before and "validation" in before
    live.wait(lambda: whole(figure(page, "Examples seen")) > seen)
    for name in ("Forward", "Backward", "Images a second", "Time left", "Classification loss"):
        live.wait(lambda name=name: re.match(r"[\d.,]+", figure(page, name)))
    assert figure(page, "L2 decay loss") == "0"
    assert figure(page, "Validation, together").endswith("%")
    page.click("#go")
    page.wait_for_selector("#state:text-is('paused')")
    step = session.status["step"]
    page.wait_for_timeout(500)
    assert session.status["step"] == step
    page.click("#step")
    live.wait(lambda: session.status["step"] == step + 1)
    page.click("#clear-graph")
    page.click("#whole-graph")
    page.focus("#accuracy-chart")
    page.keyboard.press("ArrowLeft")
    page.click("#go")
    page.wait_for_selector("#state:text-is('training')")


def is_compiling_before_paused(states):
    return "compiling" in states and states[-1] == "paused"


def test_what_is_pressed_during_a_single_step_goes_on_after_it(opened, session, monkeypatch):
    page = opened()
    rest(session)
    told, tell = [], session._tell

    def note(state=None):
        tell(state)
        told.append(session.status)

    monkeypatch.setattr(session, "_tell", note)
    session.ask(session.step).result()
    live.wait(lambda: is_compiling_before_paused([status["state"] for status in told]))
    during = next(status for status in told if status["state"] == "compiling")
    button = """(status) => import('./training.js').then((panel) => {
      panel.status(status);
      return document.getElementById('go').textContent;
    })"""
    assert page.evaluate(button, during) == "Go on"
    assert page.evaluate(button, during | {"state": "training", "going": True}) == "Pause"


def test_3_hyperparameters_are_changed(opened, session):
    page = opened()
    go_on(session)
    page.fill("#learning_rate", "0,004")  # as a German would write it
    page.press("#learning_rate", "Enter")
    live.wait(lambda: session.status["config"]["learning_rate"] == 0.004)
    page.fill("#beta1", "0.85")
    page.locator("#beta1 + button").click()
    live.wait(lambda: session.status["config"]["beta1"] == 0.85)
    page.fill("#weight_decay", "1e-4")
    page.press("#weight_decay", "Enter")
    live.wait(lambda: session.status["config"]["weight_decay"] == 1e-4)
    live.wait(lambda: figure(page, "L2 decay loss") != "0")
    page.fill("#batch_size", "40")
    page.press("#batch_size", "Enter")
    live.wait(lambda: session.status["config"]["batch_size"] == 40)
    assert page.locator("#dropout").is_disabled()
    page.fill("#learning_rate", "abc")
    page.press("#learning_rate", "Enter")
    page.wait_for_selector("#problem:has-text('Learning rate must be a number')")
    assert session.status["config"]["learning_rate"] == 0.004
    page.fill("#learning_rate", "0.005")
    page.press("#learning_rate", "Enter")
    live.wait(lambda: session.status["config"]["learning_rate"] == 0.005)


def test_4_a_snapshot_goes_out_and_comes_back(opened, session, tmp_path):
    page = opened()
    rest(session)
    step = session.status["step"]
    with page.expect_download() as download:
        page.click("#save-snapshot")
    path = tmp_path / "snapshot.npz"
    download.value.save_as(path)
    go_on(session)
    live.wait(lambda: session.status["step"] > step + 3)
    page.set_input_files("#snapshot-file", path)
    page.wait_for_selector("#snapshot-note:has-text('is loaded')")
    live.wait(lambda: session.status["step"] == step and session.status["state"] == "paused")
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"nothing")
    page.set_input_files("#snapshot-file", bad)
    page.wait_for_selector("#problem:has-text('no snapshot of this page')")
    assert session.status["step"] == step


def test_6_drawings_and_photos(opened, session, tmp_path):
    go_on(session, until=0.95)
    rest(session)
    session.ask(session.publish).result()
    page = opened()
    draw(page, live.SEVEN)
    page.wait_for_selector("#answers .class:text-is('7')")
    assert page.locator("#answers .votes tbody tr").count() == 2
    assert "mutual information" in page.locator("#answers").inner_text()
    assert page.locator("#latency").inner_text().startswith("Answered in")
    page.click("#undo")
    page.wait_for_selector("#answers:has-text('appears here')")
    # By keyboard: a 1, from top to bottom.
    page.focus("#pad")
    for pressed in ["ArrowUp"] * 8 + [" "] + ["ArrowDown"] * 16 + [" "]:
        page.keyboard.press(pressed)
    page.wait_for_selector("#answers .class:text-is('1')")
    page.keyboard.press("Delete")
    photo = tmp_path / "photo.png"
    photo.write_bytes(live.drawn(live.SEVEN, width=20))
    page.set_input_files("#photo-file", photo)
    page.wait_for_selector("#answers .class:text-is('7')")
    page.select_option("#layer-source", "drawing")
    page.locator("#layers").scroll_into_view_if_needed()
    page.wait_for_selector("#layers-note:has-text('the drawing')")
    page.click("#clear")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    page.set_input_files("#photo-file", broken)
    page.wait_for_selector("#answers:has-text('no image that Pillow can read')")


def test_a_finger_draws(opened):
    page = opened(390, has_touch=True)
    pad = page.locator("#pad")
    pad.scroll_into_view_if_needed()
    box, top = pad.bounding_box(), page.evaluate("scrollY")
    touches = page.context.new_cdp_session(page)

    def touch(kind, *points):
        places = [{"x": box["x"] + x, "y": box["y"] + y} for x, y in points]
        touches.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": places})

    touch("Start", (90, 70))
    for place in ((130, 70), (190, 70), (160, 130), (130, 190), (120, 220)):
        touch("Move", place)
    touch("End")
    page.wait_for_selector("#answers .class:text-is('7')")
    assert page.evaluate("scrollY") == top  # the page stays where it is below the finger


def test_the_camera_takes_a_picture(browser, address):
    options = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with browsers.another(browser, options) as with_camera:
        page = with_camera.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        page.wait_for_selector("#figures dd")
        page.click("#camera")
        page.wait_for_selector("#camera:text-is('Take the picture')")
        assert page.locator("#video").is_visible() and not page.locator("#pad").is_visible()
        page.click("#camera")
        page.wait_for_selector("#photo:visible")
        page.wait_for_selector("#answers .answer, #answers .problem")
        assert page.text_content("#camera") == "Camera"
        page.click("#clear")
        assert page.locator("#pad").is_visible()


def test_without_a_camera_that_is_said(opened):
    page = opened()
    page.click("#camera")
    page.wait_for_selector("#pen:has-text('No camera: ')")
    assert page.locator("#pad").is_visible()


def test_7_and_8_another_network_by_its_layers_and_its_layers_are_shown(opened, session):
    page = opened()
    page.click("#anew-details summary")
    page.select_option("#preset", "convnetjs")
    assert "conv 5x5 16" in page.input_value("#layers-text")
    page.select_option("#dataset", "mnist5k")
    page.fill("#layers-text", "conv 4x4 8")
    page.click("#anew button")
    page.wait_for_selector("#problem:has-text('window must be odd')")
    run = session.run
    page.fill("#layers-text", "conv 5x5 6\npool 4")
    page.click("#anew button")
    live.wait(lambda: session.run == run + 1)
    assert session.setting.config.optimizer == "adadelta"
    page.locator("#layers").scroll_into_view_if_needed()
    page.wait_for_selector("#layer-list .layer:nth-child(2):has-text('6*5*5*1 + 6 = 156')")
    text = page.locator("#layer-list").inner_text()
    assert "(28 + 2*2 - 5)/1 + 1 = 28" in text
    assert "Weight gradients" in text and "Gradient " in text and "Activation " in text
    canvas = page.locator("#layer-list .layer:nth-child(2) canvas").first
    canvas.hover(position={"x": 70, "y": 10})
    page.mouse.down()
    for _ in range(2):  # what comes while it is pressed does not take its map away
        page.wait_for_event("response", lambda response: "/live/layers" in response.url)
    page.mouse.up()
    page.wait_for_selector("#enlarged[open]")
    assert "Map 2 of 6" in page.locator("#enlarged-text").inner_text()
    page.keyboard.press("ArrowRight")
    assert "Map 3 of 6" in page.locator("#enlarged-text").inner_text()
    page.keyboard.press("Escape")
    page.wait_for_selector("#enlarged:not([open])", state="attached")
    live.begin(session)


def test_9_predictions_fill_up(opened, session):
    page = opened()
    go_on(session, until=0.85)
    page.wait_for_selector("#recent li .bar")
    assert page.locator("#recent li").count() == 8
    assert page.locator("#recent li .verdict").first.inner_text()[0] in "✓✗"
    counts = page.locator("#confusion td:not(:empty)")
    total = sum(int(text) for text in counts.all_inner_texts() if text)
    live.wait(lambda: sum(int(t) for t in counts.all_inner_texts() if t) > total or total == 500)
    assert "of the last" in page.locator("#test-accuracy").inner_text()
    page.wait_for_function("() => document.querySelector('#recent img').naturalWidth === 28")
    # What the server says before it has heard of the choice does not undo it.
    overtaken = """() => import('./predictions.js').then((panel) => {
      const box = document.getElementById('averages');
      box.click();
      panel.show({ averages: 0, count: 0 });
      return box.checked;
    })"""
    assert page.evaluate(overtaken)
    live.wait(lambda: session.predictions.averages)
    page.uncheck("#averages")
    live.wait(lambda: not session.predictions.averages)


def test_1_the_page_says_what_it_is(opened):
    page = opened()
    about = page.locator("#about").inner_text()
    for word in ("MNIST", "98.65 %", "Adadelta", "copies", "ConvNetJS", "crops"):
        assert word in about
    assert page.locator("#about a").count() == 2


def test_a_reload_keeps_state_and_two_pages_see_the_same(opened, session):
    one, other = opened(), opened(width=390)
    rest(session)
    draw(one, live.SEVEN)
    one.wait_for_selector("#answers .class")
    for page in (one, other):
        page.wait_for_selector("#state:text-is('paused')")
    assert one.locator("#headline").inner_text() == other.locator("#headline").inner_text()
    step = figure(one, "Step")
    one.reload()
    one.wait_for_selector("#figures dd")
    one.wait_for_selector("#answers .class")
    assert figure(one, "Step") == step
    other.click("#go")
    one.wait_for_selector("#state:text-is('training')")


@pytest.mark.parametrize("locale", ["de-DE", "ko-KR"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_and_is_english_everywhere(opened, width, scheme, locale):
    page = opened(width=width, color_scheme=scheme, locale=locale)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.documentElement.lang") == "en"
    assert "Learning rate" in page.locator("#adjust").inner_text()
    assert "." in page.input_value("#learning_rate")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(re.search(r"\d+", ground)[0])
    assert (red < 60) == (scheme == "dark")


def test_everything_has_a_name_and_text_stands_out(opened, session):
    """Names for screen readers; contrast of WCAG 2.1, 1.4.3."""
    page = opened()
    page.wait_for_selector("#recent li")
    assert page.evaluate(browsers.NAMELESS) == []
    browsers.check_contrasts(page)


def test_by_keyboard_all_controls_are_reached(opened):
    page = opened()
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    wanted = {"go", "step", "learning_rate", "batch_size", "clear-graph", "save-snapshot"}
    wanted |= {"load-snapshot", "pad", "undo", "clear", "brush", "choose-photo", "camera"}
    assert wanted <= reached


def test_10_all_data_are_there_from_the_start_and_a_closed_page_costs_nothing(opened, session):
    page = opened()
    live.wait(lambda: session.watchers >= 1)
    assert whole(page.locator("#what").inner_text().split(" on ")[1]) == len(
        session.dataset.train.labels
    )
    page.close()
    live.wait(lambda: session.watchers == 0)


def test_a_server_that_stops_is_seen(browser, session):
    with live.served(session) as (address, stop):
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        page.wait_for_selector("#figures dd")
        stop()
        page.wait_for_selector("#banner:has-text('stopped')")
        assert page.locator("#go").is_disabled()
        assert page.locator("#headline").inner_text() == "Not connected."
        context.close()
