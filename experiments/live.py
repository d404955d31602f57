"""A network that trains in the browser, to watch and to draw for: `python -m experiments.live`."""

import argparse
import sys
import warnings
from collections.abc import Sequence

from experiments.console import cli

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SHORTEST_TOKEN = 8
_EPILOG = """\
examples:
  python -m experiments.live
  python -m experiments.live runs/ensemble-...
  python -m experiments.live pretrained
  python -m experiments.live --host 0.0.0.0 --token a-secret-of-yours

A page opens at http://127.0.0.1:8000/ on which a network trains at full speed: the curves, all
layers, test images, and digits that you draw. With WORKDIR it shows a trained ensemble and does not
train; pretrained is the one that comes with the package. Ctrl-C ends it; what was trained is saved
as a workdir in runs/, which evaluate, predict, report and run --resume take.

Only this machine is answered. With --host others are, who must know the --token: the page's address
for them ends in ?token=...

exit codes: 0; 1 where what was trained could not be saved; 2 for a wrong command.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = _parse(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = cli.show_warning
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        cli.fail(
            f"the page needs the package {error.name}.",
            "Install it: pip install 'mnist_jax[live]'.",
        )
    with cli.importing_jax("Interrupted; nothing was trained."):
        from experiments.live_page import runner
    return runner.run(given)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.Parser(
        prog="python -m experiments.live",
        description="Watch a network or an ensemble train in the browser, and draw digits for it.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "workdir",
        type=cli.workdir,
        nargs="?",
        metavar="WORKDIR",
        help="made by experiments.run: show its members, without training; pretrained: the "
        "networks that come with the package",
    )
    parser.add_argument(
        "--port", type=int, default=8000, metavar="N", help="of the page (default: 8000; 0: any)"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    parser.add_argument(
        "--host", default=_LOOPBACK[0], help="address to listen at (default: 127.0.0.1)"
    )
    parser.add_argument("--token", help="what the page's address must end in, for other machines")
    given = parser.parse(argv)
    if not 0 <= given.port < 65536:
        cli.fail(f"--port must be from 0 to 65535, not {given.port}.", "8000 is the default.")
    if given.host not in _LOOPBACK and given.token is None:
        cli.fail(
            f"--host {given.host} lets other machines in, which needs a --token.",
            "Choose a secret: --token, and open http://HOST:PORT/?token=...",
        )
    if given.token is not None and not _is_token(given.token):
        cli.fail(
            f"--token must be {_SHORTEST_TOKEN} letters, digits, - or _ at least.",
            "Such as python -c 'import secrets; print(secrets.token_urlsafe())' makes.",
        )
    return given


def _is_token(text: str) -> bool:
    letters = text.replace("-", "").replace("_", "")
    return len(text) >= _SHORTEST_TOKEN and letters.isalnum() and text.isascii()


if __name__ == "__main__":
    cli.call(main)
