"""`python -m experiments.export --to html`: the page in a real browser, beside JAX."""

import base64
import io
import json
import re
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.console import cli
from experiments.interchange import chain, packed, page_weights
from experiments.interchange.packed import Precision
from experiments.live_page import drawing
from experiments.workdir import records, trained
from experiments.workdir.config import Config
from mnist_jax import data, parallel
from tests import browser as browsers
from tests.browser import draw
from tests.test_data import write_digits
from tests.test_evaluate import workdir_of
from tests.test_export import call, fails

OURS = ("file:///", "blob:null/", "data:")
SEVEN = [(80, 60), (195, 60), (125, 225)]
EVIL = '</script><script>document.title="owned"</script><img src=x onerror=document.title="owned">'


@pytest.fixture(autouse=True)
def this_process(monkeypatch):
    """The tests have started JAX already, and keep no cache of compiled programs."""
    monkeypatch.setattr(parallel, "use_cpu_cores", lambda: None)
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits"), 20, 60)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, digits):
    """A workdir of members with different networks, who know when they are unsure."""
    members = "fast:2,deep:1,lenet5:1,convnetjs:1"
    config = Config(members=members, seed=5, dataset="mnist", data_dir=str(digits), validation=10)
    folder = workdir_of(tmp_path_factory.mktemp("mixed"), config)
    records.write_json(folder / "results.json", {"unsure": {"entropy": 1e-6}})
    return folder


@pytest.fixture(scope="module")
def file(mixed, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "mixed & more.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "use_cpu_cores", lambda: None)
        patch.setattr(cli, "use_compilation_cache", lambda: None)
        patch.setattr(page_weights, "_MOST_LOST", 1)  # drawn weights are right by chance
        assert call(mixed, "html", path) == 0
    return path


@pytest.fixture(scope="module")
def browser():
    with browsers.launched() as browser:
        yield browser


@pytest.fixture
def opened(browser):
    """Opens files without a network, in which nothing may go wrong."""
    with browsers.watched(browser, OURS) as (open_page, problems):

        def open_it(path, width=1280, **options):
            page = open_page(path.resolve().as_uri(), width, offline=True, **options)
            page.wait_for_selector("#headline:has-text('member')")
            return page

        yield open_it
    assert problems == []


ANSWERS = """async (requests) => {
  const text = (id) => document.getElementById(id).textContent;
  const worker = new Worker(URL.createObjectURL(new Blob([text("worker")])));
  const ask = (message) => new Promise((resolve) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.postMessage(message);
  });
  await ask({ model: JSON.parse(text("model")), weights: text("weights") });
  const answers = [];
  for (const { name, base64, ...size } of requests) {
    const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
    const answer = await ask({ [name]: bytes, ...size, shown: 0 });
    if (answer.error) throw new Error(answer.error);
    answers.push({ ...answer, pixels: [...(answer.pixels ?? [])], outputs: null });
  }
  worker.terminate();
  return answers;
}"""


def request(name, array, **size):
    """What the worker is asked: `pixels` of a digit, or `greys` of a drawing."""
    return {"name": name, "base64": base64.b64encode(array.tobytes()).decode(), **size}


def as_packed(workdir, images, precision):
    """JAX's probabilities with the weights that a page has, `[members, n, classes]`."""
    logits = []
    for member in trained.load(workdir).members:
        layers = chain.layers_of(member.network, member.variables["params"])
        own = packed.unpack_layers(layers, packed.pack_layers(layers, precision))
        logits.append(jax.jit(partial(chain.forward, own))(images))
    return np.asarray(jax.nn.softmax(np.stack(logits)))


@browsers.needs_chromium
def test_100_digits_agree_with_jax(opened, file, mixed):
    images = data.load("mnist5k").test.inputs[:100]
    requests = [request("pixels", image) for image in images]
    answers = opened(file).evaluate(ANSWERS, requests)
    wanted = as_packed(mixed, images, Precision(8))
    found = np.array([answer["probabilities"] for answer in answers]).transpose(1, 0, 2)
    np.testing.assert_allclose(found, wanted, atol=1e-4)  # 1e-3 is promised
    mean = np.array([answer["mean"] for answer in answers])
    np.testing.assert_allclose(mean, wanted.mean(axis=0), atol=1e-4)
    entropies = -np.sum(mean * np.log(mean + 1e-30), axis=-1)
    np.testing.assert_allclose([a["entropy"] for a in answers], entropies, atol=1e-5)
    alone = -np.sum(found * np.log(found + 1e-30), axis=-1).mean(axis=0)
    information = [answer["mutual_information"] for answer in answers]
    np.testing.assert_allclose(information, entropies - alone, atol=1e-5)
    assert max(information) > 0.1  # the members differ


def drawn_png(page):
    """What is on the drawing field."""
    address = page.evaluate("document.getElementById('pad').toDataURL()")
    return base64.b64decode(address.partition(",")[2])


@browsers.needs_chromium
def test_drawings_become_what_python_makes_of_them(opened, file):
    page = opened(file)
    rng = np.random.default_rng(0)
    strokes = [rng.integers(15, 265, (n, 2)).tolist() for n in (2, 3, 4, 6)]
    requests, wanted = [], []
    for width, stroke in [*zip((8, 14, 24, 36), strokes, strict=True), (18, SEVEN), (8, [(9, 9)])]:
        page.click("#clear")
        page.evaluate("width => { document.getElementById('brush').value = width }", width)
        draw(page, stroke)
        png = drawn_png(page)
        (digit,) = drawing.of_strokes(png, True, (28, 28, 1))
        greys = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
        requests.append(request("greys", greys, width=280, height=280))
        wanted.append(digit.image.ravel().astype(int))
    found = [answer["pixels"] for answer in page.evaluate(ANSWERS, requests)]
    assert abs(np.array(found) - wanted).max() <= 1


@browsers.needs_chromium
def test_a_drawing_is_answered_as_predict_would(opened, file, mixed):
    page = opened(file)
    assert page.title() == "mnist_jax: 2 x fast, deep, lenet5, convnetjs"
    page.wait_for_selector("#nothing:visible")
    draw(page, SEVEN)
    page.wait_for_selector("#latency:has-text('Answered in')")
    (digit,) = drawing.of_strokes(drawn_png(page), True, (28, 28, 1))
    members = as_packed(mixed, digit.image[None], Precision(8))[:, 0]
    mean = members.mean(axis=0)
    page.wait_for_selector(f"#class:text-is('{mean.argmax()}')")
    page.wait_for_selector(f"#sure:has-text('{100 * mean.max():.1f} % sure; votes: ')")
    rows = page.locator("#votes li")
    assert rows.nth(0).inner_text().startswith(f"mean: {mean.argmax()}, ")
    names = ["fast 5", "fast 6", "deep 7", "lenet5 8", "convnetjs 9"]
    for i, (name, own) in enumerate(zip(names, members, strict=True)):
        assert rows.nth(i + 1).inner_text().startswith(f"{name}: {own.argmax()}, ")
    assert page.locator("#unsure").is_visible()  # above 1e-6
    assert "mutual information" in page.locator("#facts").inner_text()
    page.wait_for_selector("#spoken:has-text('% sure')", state="attached")
    page.click("#undo")
    page.wait_for_selector("#nothing:visible")
    assert page.locator("#said").is_hidden()


@browsers.needs_chromium
def test_by_keyboard(opened, file):
    page = opened(file)
    reached = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"pad", "undo", "clear", "brush", "member"} <= reached
    page.focus("#pad")
    for pressed in ["ArrowUp"] * 8 + [" "] + ["ArrowDown"] * 16 + [" "]:
        page.keyboard.press(pressed)
    page.wait_for_selector("#said:visible")
    page.wait_for_selector("#pen:text-is('The pen is up.')")
    page.keyboard.press("Delete")
    page.wait_for_selector("#nothing:visible")


@browsers.needs_chromium
def test_the_layers_of_each_member(opened, file):
    page = opened(file)
    draw(page, SEVEN)
    titles = page.locator("#layer-list h3")
    page.wait_for_selector("#layer-list h3:text-is('softmax')")
    wanted = ["images", "Conv_0", "MaxPool_0", "Conv_1", "MaxPool_1", "Dense_0", "Dense_1"]
    assert titles.all_inner_texts() == [*wanted, "softmax"]
    second = page.locator("#layer-list .layer").nth(1)
    assert "24 x 24 x 24" in second.inner_text() and "5 x 5" in second.inner_text()
    second.locator("canvas").click(position={"x": 70, "y": 10})
    page.wait_for_selector("#enlarged-text:has-text('Map 2 of 24')")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#enlarged-text:has-text('Map 3 of 24')")
    page.keyboard.press("Escape")
    page.select_option("#member", label="lenet5 8")
    page.wait_for_selector("#layer-list h3:text-is('C5')")
    assert "1 x 1 x 120" not in page.locator("#layer-list").inner_text()
    assert "Output 120" in page.locator("#layer-list").inner_text()


@browsers.needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits(opened, file, width, scheme):
    page = opened(file, width, color_scheme=scheme, has_touch=True)
    draw(page, SEVEN)
    page.wait_for_selector("#layer-list canvas")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(browsers.NAMELESS) == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.search(r"\d+", ground)[0]) < 60) == (scheme == "dark")
    browsers.check_contrasts(page)


@browsers.needs_chromium
def test_names_are_text_and_weights_can_have_16_bits(opened, tmp_path, capsys):
    """Of a data set that cannot be had, and whose name and classes are somebody's jokes."""
    config = Config(network="fast", dataset="mnist", data_dir=str(tmp_path / "{{gone}}"))
    about = records.TrainedOn((EVIL, *"bcdefghijklm"), True)
    folder = tmp_path / "evil"
    workdir_of(folder, config, about=about)
    records.write_dataset(folder, EVIL, "drawn", about)
    assert call(folder, "html", tmp_path / "evil.html") == 0
    said = capsys.readouterr().out
    assert "float16: not checked, since" in said and "{{gone}}" in said
    page = opened(tmp_path / "evil.html")
    draw(page, SEVEN)
    page.wait_for_selector("#said:visible")
    assert page.title() == "mnist_jax: fast"
    about = page.locator("#about").inner_text()
    assert EVIL in about and "not known" in about and "{{gone}}" in about
    assert "No entropy is known" in about
    assert EVIL in page.locator("#classes").inner_text()
    assert page.locator("#votes li").count() == 1  # one member is its own mean
    assert page.locator("#votes .names span").count() == 10  # the likeliest of 13 classes
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1)).astype(np.uint8)
    answers = page.evaluate(ANSWERS, [request("pixels", image) for image in images])
    found = np.array([answer["probabilities"][0] for answer in answers])
    logits = trained.load(folder).predict(images)[0]
    np.testing.assert_allclose(found, jax.nn.softmax(logits), atol=0.01)
    np.testing.assert_allclose(found, as_packed(folder, images, Precision(16))[0], atol=1e-4)


def test_what_the_command_says_and_the_file_holds(mixed, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(page_weights, "_MOST_LOST", 1)
    output = tmp_path / "second.html"
    assert call(mixed, "html", output, "--member", "2") == 0
    said = capsys.readouterr().out
    assert "deep 7" in said and "It takes" not in said
    assert re.search(
        r"weights in 8 bits: of 60 test images [\d.]+ % are right, [\d.]+ % with", said
    )
    assert "probabilities differ by up to" in said
    text = output.read_text()
    model = json.loads(re.search(r'id="model">(.*?)</script>', text)[1])
    assert [member["name"] for member in model["members"]] == ["deep 7"]
    assert model["threshold"] is None  # known of all members together alone
    about = dict(model["about"])
    assert about["Trained by"].startswith("python -m experiments.run --members fast:2,deep:1")
    assert about["Made by"].startswith("mnist_jax ") and about["Test accuracy"].endswith(" %")
    assert text.count("</script>") == 4 and not re.search(r"^(import|export) ", text, re.MULTILINE)
    for word in ("https://", "@import", "url(", "import(", "{{"):
        assert word not in text, word
    assert [path.name for path in tmp_path.iterdir()] == ["second.html"]


def colour(folder):
    config = Config(network="convnetjs", dataset="cifar10")
    about = records.TrainedOn(tuple("abcd"), False, (32, 32, 3))
    return workdir_of(folder, config, about=about), "it takes images of 32 x 32 x 3"


def clothes(folder):
    config = Config(network="fast", dataset="fashion_mnist")
    return workdir_of(folder, config), "that nobody draws"


def residual(folder):
    config = Config(members="fast:1,resnet20:1", dataset="mnist")
    return workdir_of(folder, config), "its layers are no chain"


def sentences(folder):
    config = Config(network="sentence", dataset="opinions", network_options="width=8,maps=6")
    about = records.TrainedOn(("no", "yes"), False, (12,), vocabulary=("", "good", "bad"))
    return workdir_of(folder, config, about=about), "it takes tokens, not images"


def positions(folder):
    config = Config(network="policy", dataset="games9x9", network_options="filters=4")
    about = records.TrainedOn(tuple(map(str, range(81))), False, (9, 9, 6))
    return workdir_of(folder, config, about=about), "it takes planes, not images"


def half(folder):
    config = Config(network="fast", dataset="mnist", precision="bfloat16")
    return workdir_of(folder, config), "it computes in bfloat16"


@pytest.mark.parametrize("kind", [colour, clothes, residual, sentences, positions, half])
def test_what_a_page_cannot_hold_is_refused(kind, tmp_path, capsys):
    folder, reason = kind(tmp_path / "workdir")
    error = fails(capsys, folder, "html", tmp_path / "a.html")
    assert error[0].startswith("error: --to html cannot hold this network: ") and reason in error[0]
    assert "simple, deep, layers, fast, lenet5 and convnetjs" in error[1]
    assert [path.name for path in tmp_path.iterdir()] == ["workdir"]
