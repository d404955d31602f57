"""What `experiments.live` does once JAX is imported: serve the page until Ctrl-C, and save."""

import argparse
import shlex
import signal
import socket
import sys
import threading
import webbrowser
from concurrent.futures import Future
from types import FrameType

import uvicorn
from etils import epath

from experiments.console import cli
from experiments.live_page import choices, saving, server
from experiments.live_page.session import Session
from experiments.workdir import records, trained
from mnist_jax import loop
from mnist_jax.data import Dataset, DataUnavailable

_MOST_CONNECTIONS = 200


class _Server(uvicorn.Server):
    """Tells the pages' streams of events that it ends; it would wait for them."""

    def __init__(self, config: uvicorn.Config, pages: server.Pages) -> None:
        super().__init__(config)
        self._pages = pages

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._pages.stopping = True
        super().handle_exit(sig, frame)


def run(given: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code.

    Raises:
        SystemExit: code 2 with an error of two lines, for an address that cannot be listened at or
            a folder that is no workdir.
    """
    listening = _listen(given.host, given.port)
    cli.start_jax()
    session = Session()
    if given.workdir is not None:
        _view(session, given.workdir)
    app, pages = server.make_app(session, given.token)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=10,  # for drawings that are being answered
    )
    address = _address(given.host, listening.getsockname()[1], given.token)
    with loop.interrupts() as signals:
        session.start()
        if given.workdir is None:
            config_of_first = choices.read_form({"preset": "simple"})
            begun = session.ask(lambda: session.restart(config_of_first))
            begun.add_done_callback(_say_problem)
        print(f"The page is at {address} (Ctrl-C ends it)", flush=True)
        if not given.no_browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        running = _Server(config, pages)
        if hasattr(signal, "SIGHUP"):  # as from a terminal that closes
            signal.signal(signal.SIGHUP, running.handle_exit)
        running.run(sockets=[listening])
        session.stop()
        code = _save(session)
    return code if signal.SIGTERM not in signals else code or 128 + signal.SIGTERM


def _say_problem(done: "Future[None]") -> None:
    error = done.exception()
    if error is not None:
        print(f"error: {error}", file=sys.stderr)


def _listen(host: str, port: int) -> socket.socket:
    try:
        (family, kind, _, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)  # so that who is told the address can come at once
    except OSError as error:
        hint = "Another port: --port, or --port 0 for any that is free."
        cli.fail(f"{host}:{port} cannot be listened at: {error.strerror or error}.", hint)
    return listening


def _address(host: str, port: int, token: str | None) -> str:
    name = f"[{host}]" if ":" in host else {"0.0.0.0": "127.0.0.1"}.get(host, host)
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def _view(session: Session, workdir: epath.Path) -> None:
    """Load a workdir's members, and its data where they can be had."""
    try:
        loaded = trained.load(workdir)
    except ValueError as error:
        cli.fail(str(error), "WORKDIR is a folder that python -m experiments.run has made.")
    if loaded.config.reads_sentences:
        cli.fail(
            f"{workdir} reads sentences, and the page shows networks of images.", "See report."
        )
    dataset: Dataset | None = None
    try:
        dataset = trained.load_dataset(loaded)
    except (ValueError, DataUnavailable) as error:
        reason = str(error).partition("\n")[0]
        print(f"note: no test images: {reason}", file=sys.stderr)
    session.view(loaded, dataset, records.read_threshold(loaded.workdir))


def _save(session: Session) -> int:
    """Save what was trained, and evaluate it, as `experiments.run` does after Ctrl-C."""
    try:
        setting, state, now = session.state_on_host()
    except ValueError as error:
        print(f"\nNothing is saved: {error}")
        return 0
    if not now.images:
        print("\nNothing was trained, and nothing is saved.")
        return 0
    try:
        folder = saving.write_workdir(setting, state, now)
        print(f"\nSaved in {folder}; testing it (Ctrl-C leaves that out) ...", flush=True)
        dataset = setting.dataset
        validation = (
            session.predict(dataset.validation.inputs) if len(dataset.validation.labels) else None
        )
        results = saving.write_results(
            folder, setting, now, session.predict(dataset.test.inputs), validation
        )
    except (OSError, ValueError) as error:
        print(f"error: what was trained could not be saved: {error}", file=sys.stderr)
        return cli.FAILED
    print(f"Test accuracy: {results['ensemble']['test_accuracy']:.4f}")
    for command in ("predict {} IMAGE ...", "evaluate {}", "run --resume {}", "live {}"):
        print(f"  python -m experiments.{command.format(shlex.quote(str(folder)))}")
    return 0
