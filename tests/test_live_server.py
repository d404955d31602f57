"""The live page's server and training, without a browser."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from experiments import live as command
from experiments.live_page import server, snapshot
from experiments.live_page.session import Session
from experiments.workdir import trained
from mnist_jax import data
from tests import live
from tests.samples import digits, write_idx

JSON = {"content-type": "application/json"}
BASE = "http://127.0.0.1"


@pytest.fixture(scope="module")
def session():
    with live.working() as session:
        live.begin(session)
        yield session


@pytest.fixture(scope="module")
def client(session):
    app, _ = server.make_app(session)
    with TestClient(app, base_url=BASE) as client:
        yield client


def post(client, path, content=None, **headers):
    body = json.dumps({} if content is None else content)
    return client.post(path, content=body, headers=JSON | headers)


def state(session):
    return session.status["state"], session.setting.config, session.run


def test_training_goes_on_pauses_and_steps(session, client):
    assert post(client, "/live/go").status_code == 200
    before = session.status["step"]
    live.wait(lambda: session.status["step"] > before)
    assert post(client, "/live/pause").status_code == 200
    live.wait(lambda: session.status["state"] == "paused")
    step = session.status["step"]
    time.sleep(0.5)
    assert session.status["step"] == step
    for done in (1, 2):
        assert post(client, "/live/step").status_code == 200
        live.wait(lambda done=done: session.status["step"] == step + done)
    time.sleep(0.3)
    assert session.status["step"] == step + 2 and session.status["state"] == "paused"


def test_a_learning_rate_takes_effect_without_a_new_program(session, client):
    """With a rate of nearly 0 the weights stay as they are; with a large one they move."""
    post(client, "/live/pause")
    live.wait(lambda: session.status["state"] == "paused")

    def moved():
        _, before, _ = session.ask(session.state_on_host).result()
        step = session.status["step"]
        post(client, "/live/step")
        live.wait(lambda: session.status["step"] == step + 1)
        _, after, _ = session.ask(session.state_on_host).result()
        kernel = before.params["softmax"]["kernel"], after.params["softmax"]["kernel"]
        return np.abs(kernel[0] - kernel[1]).max()

    assert post(client, "/live/adjust", {"learning_rate": 1e-9}).status_code == 200
    assert moved() < 1e-6
    assert post(client, "/live/adjust", {"learning_rate": 0.05}).status_code == 200
    assert moved() > 1e-3
    assert session.status["config"]["learning_rate"] == 0.05
    post(client, "/live/adjust", {"learning_rate": 0.005})


def test_another_batch_size_goes_on_where_it_was(session, client):
    post(client, "/live/pause")
    live.wait(lambda: session.status["state"] == "paused")
    step, loss, examples = (session.status[name] for name in ("step", "loss", "examples"))
    assert post(client, "/live/adjust", {"batch_size": 80}).status_code == 200
    assert post(client, "/live/step").status_code == 200
    live.wait(lambda: session.status["examples"] == examples + 80)
    live.wait(lambda: session.status["state"] == "paused")
    assert session.status["config"]["batch_size"] == 80
    assert abs(session.status["step"] - step) < session.status["steps_per_epoch"]
    assert session.status["loss"] < loss + 1
    assert post(client, "/live/adjust", {"batch_size": 2000}).status_code == 200
    refused = post(client, "/live/adjust", {"batch_size": 4})
    assert refused.status_code == 200
    post(client, "/live/adjust", {"batch_size": 50})


def test_the_drawn_seven(session, client):
    post(client, "/live/go")
    step = session.status["step"]  # the accuracy is still that of some steps before
    live.wait(lambda: session.status["step"] > step + 200)
    live.wait(lambda: (session.status["validation_accuracy"] or [0])[-1] > 0.95)
    post(client, "/live/pause")
    live.wait(lambda: session.status["state"] == "paused")
    session.ask(session.publish).result()
    answer = client.post("/live/draw", content=live.drawn(live.SEVEN)).json()
    (digit,) = answer["digits"]
    assert digit["class"] == "7" and len(digit["members"]) == 2
    assert sum(digit["mean"]) == pytest.approx(1, abs=1e-3)
    photo = client.post("/live/draw?photo=1", content=live.drawn(live.SEVEN)).json()
    assert photo["digits"][0]["class"] == "7"
    nothing = live.drawn([(20, 20), (30, 260), (40, 20), (50, 260)], [(250, 100), (252, 103)])
    odd = client.post("/live/draw", content=nothing).json()["digits"]
    assert all(len(row["members"]) == 2 for row in odd)


def test_layers_of_a_test_image_and_of_a_drawing(session, client):
    looked = client.get("/live/layers?member=1&image=3")
    assert looked.status_code == 200 and looked.json()["layers"][0]["shape"] == [28, 28, 1]
    of_drawing = client.post("/live/layers?member=0", content=live.drawn(live.SEVEN))
    assert of_drawing.json()["label"] is None and len(of_drawing.json()["layers"]) >= 5
    label = session.dataset.test.labels[3]
    assert looked.json()["label"] == str(label)


def test_test_images_are_asked_for_by_what_they_show(session, client):
    """A browser keeps them, also those of an earlier process with other data."""
    images = session.dataset.test.inputs
    key = session.predictions.describe()["images"]
    answer = client.get(f"/live/image/{key}/3.png")
    assert "max-age" in answer.headers["cache-control"]
    np.testing.assert_array_equal(Image.open(BytesIO(answer.content)), images[3, ..., 0])
    for place in (len(images), -1):
        assert client.get(f"/live/image/{key}/{place}.png").status_code == 404
    run = session.run
    live.begin(session)
    assert session.run == run + 1 and session.predictions.describe()["images"] == key
    other = session.dataset.test._replace(inputs=images[::-1])
    assert key == data.fingerprint(session.dataset)
    assert data.fingerprint(dataclasses.replace(session.dataset, test=other)) != key
    assert Session().run > session.run


def test_a_snapshot_comes_back_as_it_was(session, client, tmp_path):
    post(client, "/live/pause")
    live.wait(lambda: session.status["state"] == "paused")
    content = client.get("/live/snapshot")
    assert "attachment" in content.headers["content-disposition"]
    _, before, now = session.ask(session.state_on_host).result()
    step = session.status["step"]
    post(client, "/live/go")
    live.wait(lambda: session.status["step"] > step)
    assert client.post("/live/snapshot", content=content.content).status_code == 200
    live.wait(lambda: session.status["state"] == "paused")
    _, after, restored = session.ask(session.state_on_host).result()
    assert restored == now and session.status["step"] == step
    for a, b in zip(*map(leaves, (before.params, after.params)), strict=True):
        np.testing.assert_array_equal(a, b)
    post(client, "/live/step")
    live.wait(lambda: session.status["step"] == step + 1)


def leaves(tree):
    import jax

    return jax.tree.leaves(tree)


def changed_snapshot(content, tmp_path, change):
    """A snapshot with another description or other arrays."""
    path = tmp_path / "snapshot.npz"
    path.write_bytes(content)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    about = json.loads(arrays["about.json"].tobytes())
    change(arrays, about)
    arrays["about.json"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(path, allow_pickle=False, **arrays)
    return path.read_bytes()


def set_config(**values):
    return lambda arrays, about: about["config"].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_config(dataset="/etc/passwd"), "data set"),
        (set_config(network="googlenet"), "network"),
        (set_config(network_options="layers=evil"), "none of"),
        (set_config(members=50), "members"),
        (set_config(data_dir="/etc"), "other fields"),
        (lambda arrays, about: about.update(kind="other"), "another kind"),
        (lambda arrays, about: arrays.pop("0001"), "arrays are not those"),
        (lambda arrays, about: arrays.update({"0001": np.zeros(3)}), "has an array of"),
        (lambda arrays, about: about["progress"].update(steps=-1), "progress"),
    ],
)
def test_bad_snapshots_are_one_clear_line_and_change_nothing(
    session, client, tmp_path, change, message
):
    content = client.get("/live/snapshot").content
    before = state(session)
    answer = client.post("/live/snapshot", content=changed_snapshot(content, tmp_path, change))
    assert answer.status_code == 400
    assert message in answer.json()["error"] and "\n" not in answer.json()["error"]
    assert state(session) == before


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x80\x04\x95pickle", b"{}"])
def test_files_that_are_no_snapshot(session, client, content):
    answer = client.post("/live/snapshot", content=content)
    assert answer.status_code == 400 and "no snapshot of this page" in answer.json()["error"]


def test_a_snapshot_is_never_unpickled(tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, **{"about.json": np.array([{"kind": snapshot.KIND}], object)})
    with pytest.raises(ValueError, match="no snapshot"):
        snapshot.read(path)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"content-type": "text/plain"}, 400),
        ({"content-type": "application/x-www-form-urlencoded"}, 400),
    ],
)
def test_other_origins_change_nothing(session, client, headers, code):
    before = state(session)
    answer = post(client, "/live/start", {"preset": "deep"}, **headers)
    assert answer.status_code == code and state(session) == before


def test_its_own_origin_may_post(client):
    answer = post(client, "/live/pause", origin=BASE, **{"sec-fetch-site": "same-origin"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/..%2f..%2fpyproject.toml",
        "/%2e%2e/server.py",
        "/page/index.html",
        "/server.py",
        "//etc/passwd",
        "/live/image/0/0.png",
        "/live/image//0.png",
        "/index.html%00.js",
        "/live/nothing",
    ],
)
def test_paths_that_are_none(client, path):
    answer = client.get(path)
    assert answer.status_code == 404 and b"[project]" not in answer.content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"null",
        b"[" * 20_000,
        b"\xff\xfe",
        b'{"preset": "simple", "preset2": 1}',
        b'{"learning_rate": 1e999}',
        b'{"members": 123456789012345678901234567890}',
    ],
)
def test_bad_json_changes_nothing(session, client, content):
    before = state(session)
    for path in ("/live/start", "/live/adjust", "/live/averages"):
        answer = client.post(path, content=content, headers=JSON)
        if answer.status_code != 200:
            assert answer.status_code == 400 and answer.json()["error"]
        else:
            assert content == b"{}" or path == "/live/start"
    assert state(session)[0] == before[0] and state(session)[1] == before[1]


def test_bodies_that_are_too_large(session, client):
    before = state(session)
    large = b"{" + b" " * 100_000 + b"}"
    for path in ("/live/start", "/live/adjust", "/live/pause"):
        assert client.post(path, content=large, headers=JSON).status_code == 413

    def endless():
        for _ in range(40):
            yield b"x" * 2**20

    assert client.post("/live/draw", content=endless()).status_code == 413
    huge = {"content-length": str(2**40)}
    assert client.post("/live/snapshot", content=b"", headers=huge).status_code == 413
    assert state(session) == before


def test_pictures_of_too_many_pixels(client):
    content = BytesIO()
    Image.new("1", (20_000, 20_000)).save(content, "PNG")
    answer = client.post("/live/draw?photo=1", content=content.getvalue())
    assert answer.status_code == 400 and "too large" in answer.json()["error"].lower()


def test_methods_that_are_not_those(client):
    assert client.get("/live/pause").status_code == 405
    assert client.delete("/live/events").status_code in (403, 405)
    assert client.put("/index.html").status_code in (403, 405)


def test_a_thousand_quick_requests_change_nothing(session):
    post_pause = JSON | {"content-length": "2"}
    with live.served(session) as (address, _), ThreadPoolExecutor(16) as pool:
        import httpx

        with httpx.Client(base_url=address, timeout=600) as client:
            client.post("live/pause", content="{}", headers=post_pause)
            live.wait(lambda: session.status["state"] == "paused")
            before = state(session)
            seven = live.drawn(live.SEVEN)

            def one(i):
                if i % 4 == 0:
                    return client.post("live/draw", content=seven).status_code
                if i % 4 == 1:
                    return client.get("live/choices").status_code
                if i % 4 == 2:
                    return client.post("live/start", content=b"{", headers=JSON).status_code
                return client.get("live/layers?image=999999999").status_code

            codes = set(pool.map(one, range(1000)))
            assert codes <= {200, 400, 503} and {200, 400} <= codes
            assert state(session) == before
            assert client.get("").status_code == 200


def test_a_token_is_wanted_by_every_path(session):
    app, _ = server.make_app(session, token="a-long-secret")
    with TestClient(app, base_url="http://192.168.1.5:8000") as client:
        for path in ("/", "/?token=wrong", "/style.css?token=a-long-secret", "/live/choices"):
            assert client.get(path).status_code == 403
        assert post(client, "/live/pause").status_code == 403
        answer = client.get("/?token=a-long-secret", follow_redirects=False)
        assert answer.status_code == 303 and "token" not in answer.headers["location"]
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie
        assert client.get("/").status_code == 200
        assert post(client, "/live/pause", origin="http://evil.example").status_code == 403
        assert post(client, "/live/pause").status_code == 200


def test_nothing_is_loaded_from_elsewhere(client):
    page = Path(server.__file__).parent / "page"
    for file in page.iterdir():
        text = file.read_text()
        for word in ('src="http', "@import", "url(http", "import(", 'from "http', 'fetch("http'):
            assert word not in text, (file, word)
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy


def test_two_pages_see_the_same_and_a_closed_one_costs_nothing(session):
    import httpx

    session.ask(session.pause).result()
    live.wait(lambda: session.status["state"] == "paused")
    with live.served(session) as (address, _):
        with (
            httpx.stream("GET", f"{address}live/events", timeout=600) as one,
            httpx.stream("GET", f"{address}live/events", timeout=600) as other,
        ):
            lines = [stream.iter_lines() for stream in (one, other)]  # let go, they would close
            first = [status_of(stream) for stream in lines]
            assert first[0] == first[1] and first[0]["state"] == session.status["state"]
            assert session.watchers == 2
        live.wait(lambda: session.watchers == 0)
        session.ask(session.pause).result()  # what was begun for the pages is done then
        version = session.predictions.version
        session.ask(session.go).result()
        step = session.status["step"]
        live.wait(lambda: session.status["step"] > step + 20)
        assert session.predictions.version == version
        session.ask(session.pause).result()


def status_of(lines):
    """The next status that a page is told."""
    name = None
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        if line.startswith("data: ") and name == "status":
            return json.loads(line.removeprefix("data: "))


def test_a_loss_that_explodes_is_said_and_can_be_started_anew(session, client):
    config = live.small(learning_rate=100.0, optimizer="momentum", weight_decay=10.0)
    session.ask(lambda: session.restart(config)).result(600)
    live.wait(lambda: session.status["state"] == "failed")
    assert "loss became" in session.status["message"]
    assert post(client, "/live/go").status_code == 400
    assert client.get("/live/layers").status_code == 400
    live.begin(session)
    assert session.status["message"] == ""


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--port", "99999"], "--port must be from 0 to 65535"),
        (["--port", "x"], "invalid int value"),
        (["--host", "0.0.0.0"], "needs a --token"),
        (["--token", "short"], "--token must be 8"),
        (["--token", "has spaces in it"], "--token must be 8"),
        (["--hots", "x"], "--hots is no flag"),
    ],
)
def test_wrong_command_lines(argv, message, capsys):
    with pytest.raises(SystemExit) as end:
        command.main(argv)
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and len(error.splitlines()) == 2


def test_what_was_trained_is_saved_on_ctrl_c_for_the_other_commands(tmp_path):
    data = write_idx(tmp_path / "data", "{split}-{kind}-idx{n}-ubyte", train=600, test=100)
    environment = os.environ | {"MNIST_JAX_DATA": str(data)}
    line = [sys.executable, "-m", "experiments.live", "--no-browser", "--port", "0"]
    root = Path(command.__file__).parent.parent
    environment["PYTHONPATH"] = str(root)
    process = subprocess.Popen(
        line,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        for text in process.stdout:
            if "The page is at" in text:
                break
        address = text.split()[4]
        import httpx

        with httpx.stream("GET", f"{address}live/events", timeout=600) as stream:
            lines, step = stream.iter_lines(), 0
            while step <= 10:
                step = status_of(lines).get("step", 0)
            process.send_signal(signal.SIGINT)  # with a page open
            told = "event: stopped" in lines
        output = process.stdout.read()
        assert process.wait(600) == 0 and told
    finally:
        process.kill()
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"Saved in runs/{folder.name}" in output and "Test accuracy" in output
    os.environ["MNIST_JAX_DATA"] = str(data)
    try:
        loaded = trained.load(folder)
        assert loaded.step >= step and loaded.members[0].name == "simple 0"
        call(environment, "evaluate", str(folder))
        picture = tmp_path / "digit.png"
        picture.write_bytes(server.as_png(digits(1)[0][0][..., None]))
        answer = call(environment, "predict", str(folder), str(picture), "--json")
        assert "class" in json.loads(answer)
        epochs = str(loaded.config.epochs)
        resumed = call(environment, "run", "--resume", str(folder), "--epochs", epochs)
        assert "Going on after epoch" in resumed
        with live.working() as session:
            dataset = trained.load_dataset(loaded)
            session.ask(lambda: session.view(loaded, dataset, 0.5)).result()
            shows_without_training(session)
    finally:
        del os.environ["MNIST_JAX_DATA"]


def call(environment, *command_line):
    """What a command prints."""
    name, *arguments = command_line
    line = [sys.executable, "-m", f"experiments.{name}", *arguments]
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shows_without_training(session):
    app, _ = server.make_app(session)
    with TestClient(app, base_url=BASE) as client:
        live.wait(lambda: session.status["state"] == "viewing")
        for path in ("/live/go", "/live/step", "/live/start", "/live/adjust"):
            assert post(client, path).status_code == 400
        assert client.get("/live/snapshot").status_code == 400
        answer = client.post("/live/draw", content=live.drawn(live.SEVEN))
        assert answer.status_code == 200 and answer.json()["digits"]
        assert client.get("/live/layers?image=1").status_code == 200
        session.watchers = 1
        live.wait(lambda: session.predictions.describe()["count"] == 100)
        session.watchers = 0
