"""A live page for tests: a small network that trains on the embedded digits."""

import contextlib
import io
import socket
import threading
import time

import uvicorn
from PIL import Image, ImageDraw

from experiments.live_page import choices, server
from experiments.live_page.session import Session

SMALL = {
    "preset": "convnetjs",
    "dataset": "mnist5k",
    "members": 2,
    "optimizer": "adam",
    "learning_rate": 0.005,
    "weight_decay": 0.0,
    "batch_size": 50,
    "epochs": 1000,  # a training that ends would not be paused, nor go on
    "layers": "conv 5x5 8; pool 2; conv 5x5 16; pool 2",
}


def small(**changes):
    """The config of a network that is quick to compile and learns digits within seconds."""
    return choices.read_form(SMALL | changes)


def begin(session, config=None):
    """Start to train, and wait until it does."""
    session.ask(lambda: session.restart(config or small())).result(600)
    wait(lambda: session.status["run"] == session.run and session.status.get("step", 0) > 0)


def wait(condition, seconds=600):
    """Until something is so; the test fails where it does not come."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come about")


@contextlib.contextmanager
def served(session, token=None):
    """The page's address, from a server in a thread."""
    app, pages = server.make_app(session, token)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    wait(lambda: running.started)

    def stop():
        pages.stopping = running.should_exit = True
        thread.join(10)

    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/", stop
    finally:
        stop()


def drawn(*lines, width=18, size=(280, 280)):
    """A drawing as the page sends it: lines of points, black on white."""
    image = Image.new("L", size, 255)
    pen = ImageDraw.Draw(image)
    for line in lines:
        pen.line(line, fill=0, width=width, joint="curve")
        for x, y in line:
            r = width // 2
            pen.ellipse((x - r, y - r, x + r, y + r), fill=0)
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


SEVEN = [(80, 60), (195, 60), (125, 225)]


@contextlib.contextmanager
def working():
    """A session whose thread runs."""
    session = Session()
    session.start()
    try:
        yield session
    finally:
        session.stop()
