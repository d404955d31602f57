"""The command line: a flag for each field of `Config`, and what all commands share."""

import argparse
import dataclasses
import os
import signal
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import groupby
from typing import Any, NamedTuple, NoReturn, TextIO, TypeVar

from etils import epath

import mnist_jax
from experiments.console import terminal
from experiments.console.clock import waiting
from experiments.workdir import config as configs
from experiments.workdir import records
from experiments.workdir.config import Config
from mnist_jax import pretrained, weights_file
from mnist_jax.cache import use_compilation_cache as use_compilation_cache
from mnist_jax.words import counted, on_one_line

FAILED = 1
INTERRUPTED = 128 + signal.SIGINT
_LONGEST_METAVAR = 16
_Item = TypeVar("_Item")
HELP = "See python -m experiments.run --help."
_SETTINGS = {  # what the commands are written for, whatever the environment says
    "jax_debug_infs": False,
    "jax_debug_nans": False,  # `loop` finds them itself, and in metrics NaN means undefined
    "jax_disable_jit": False,
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_transfer_guard": "allow",
}


class Command(NamedTuple):
    """What the command line of `experiments.run` asks for."""

    name: str
    config: Config
    workdir: epath.Path | None
    resume: bool
    force: bool
    coordinator: str | None  # "auto": JAX finds it
    num_processes: int | None
    process_id: int | None


class _Help(argparse.HelpFormatter):
    """Fills paragraphs, line breaks within them or not, and leaves indented lines as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        filled = []
        for as_it_is, lines in groupby(text.splitlines(), lambda line: not line or line[0] == " "):
            whole = list(lines)
            filled += whole if as_it_is else textwrap.wrap(" ".join(whole), width)
        return "\n".join(indent + line for line in filled)


class Parser(argparse.ArgumentParser):
    """Flags in full only, and mistakes in two lines."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Help, **options)
        version = f"mnist_jax {mnist_jax.__version__}"
        text = "show which version this is and stop"
        self.add_argument("--version", action="version", version=version, help=text)

    def error(self, message: str) -> NoReturn:
        """Two lines on stderr, and exit code 2."""
        fail(message, f"See {self.prog} --help.")

    def parse(
        self,
        argv: Sequence[str],
        values: Mapping[str, Sequence[str]] | None = None,
        mixed: bool = False,
    ) -> argparse.Namespace:
        """Read the command line; a word too many is an error that names the nearest flag.

        Args:
            values: of some flags, which may be given without the flag by mistake.
            mixed: names may stand on both sides of flags.
        """
        read = self.parse_known_intermixed_args if mixed else self.parse_known_args
        given, unknown = read(argv)
        if unknown:
            word = unknown[0].split("=")[0]
            message = f"{word} is no flag of this command."
            for flag, known in (values or {}).items():
                if not word.startswith("-") and (near := get_close_matches(word, known, n=1)):
                    fail(message, f"Did you mean {flag} {near[0]}?")
            flags = [flag for action in self._actions for flag in action.option_strings]
            fail(message, nearest_flag(word, [flag for flag in flags if flag.startswith("--")]))
        return given


def workdir(text: str) -> epath.Path:
    """The folder that an argument WORKDIR names: `pretrained` is the one that the package has."""
    return epath.Path(pretrained.FOLDER if text == "pretrained" else text)


def writable_workdir(folder: epath.Path) -> epath.Path:
    """The same folder; for `pretrained` a copy of it, which can be written into, and that is said.

    Raises:
        SystemExit: code 2 with an error of two lines, where it cannot be made.
    """
    if not records.is_pretrained(folder):
        return folder
    try:
        copy = records.copy_of_pretrained()
    except ValueError as error:
        message, _, hint = str(error).partition("\n")
        fail(message, hint)
    print(f"The networks that come with mnist_jax, copied to {copy}", flush=True)
    return copy


def fail(message: str, hint: str) -> NoReturn:
    """Two lines on stderr, and exit code 2."""
    print(f"error: {message}\n{hint}", file=sys.stderr)
    raise SystemExit(2)


def names(flag: str, text: str, known: Sequence[str]) -> list[str]:
    """The names that a flag lists as `A,B`, each once.

    Raises:
        SystemExit: code 2 with an error of two lines for one that is not known.
    """
    found = list(dict.fromkeys(text.split(",")))
    for name in found:
        if name not in known:
            fail(f"{flag} {name} does not exist.", nearest(name, known))
    return found


def nearest(word: str, words: Sequence[str]) -> str:
    """A line that names the nearest right words."""
    near = get_close_matches(word, words, n=2)
    return f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(words)}."


def nearest_flag(word: str, flags: Sequence[str]) -> str:
    """A line that names the nearest flags.

    They are those whose words have these initials (lr: --learning-rate), or a word that begins so
    (rate: --learning-rate), or a spelling like this.
    """
    wanted = word.lstrip("-").lower().replace("_", "-")
    parts = {flag: flag.removeprefix("--").split("-") for flag in flags}
    meant = [flag for flag in flags if "".join(part[0] for part in parts[flag]) == wanted]
    meant = meant or [
        flag for flag in flags if any(part.startswith(wanted) for part in parts[flag]) and wanted
    ]
    return f"Did you mean {' or '.join(meant)}?" if meant else nearest(word, flags)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """In place of `warnings.showwarning`: one line on stderr."""
    print(f"warning: {message}", file=sys.stderr)


def start_jax() -> None:
    """Begin to use JAX: all CPU cores as devices, and what earlier commands have compiled.

    Raises:
        SystemExit: code 2 with an error of two lines, where JAX finds no device.
    """
    from mnist_jax import parallel

    use_compilation_cache()
    parallel.use_cpu_cores()
    check_devices()


def check_devices() -> None:
    """See that JAX finds a device; from then on it knows its devices.

    Raises:
        SystemExit: code 2 with an error of two lines.
    """
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX asserts it for a platform not installed
        reason = str(error).partition("\n")[0].partition(" (set JAX_PLATFORMS")[0].rstrip(".")
        for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME"):
            if os.environ.get(name):
                fail(
                    f"{name} is {os.environ[name]}, which JAX cannot use here"
                    + (f": {reason}." if reason else "."),
                    f"Unset {name}, or install the jax of that platform: jax[cuda13], jax[tpu].",
                )
        fail(f"JAX finds no device: {reason}.", "JAX_PLATFORMS=cpu takes the processor.")


def call(main: Callable[[], int], prints_results: bool = False) -> NoReturn:
    """Run a command as this process, and end it with the command's exit code.

    Args:
        prints_results: they are nowhere else, so that exit code 1 says that they could not be
            written. A reader that has gone (`| head`) has seen enough.
    """
    terminal.protect()
    try:
        _take_back_settings()
        code: Any = main()
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        code = INTERRUPTED
    except Warning as warning:
        print(
            f"error: {warning}\nIt is a warning, and PYTHONWARNINGS or -W makes warnings errors.",
            file=sys.stderr,
        )
        code = 2
    lost = terminal.failure(sys.stdout)
    if lost:
        kind = "error" if prints_results else "warning"
        print(f"{kind}: standard output could not be written: {lost.strerror}.", file=sys.stderr)
        code = code or int(prints_results)
    sys.exit(code)


def read_each(
    arguments: Sequence[str], read: Callable[[str], Iterable[_Item | ValueError]]
) -> tuple[list[_Item], bool]:
    """What all arguments hold, and whether some could not be read, which stderr says.

    Args:
        read: gives what one argument holds, with a ValueError in the place of what cannot be read,
            or raises one.
    """
    items: list[_Item] = []
    failed = False

    def say(error: ValueError) -> None:
        nonlocal failed
        print(f"error: {on_one_line(str(error))}", file=sys.stderr)
        failed = True

    for argument in arguments:
        try:
            for found in read(argument):
                say(found) if isinstance(found, ValueError) else items.append(found)
        except ValueError as error:
            say(error)
    return items, failed


@contextmanager
def importing_jax(interrupted: str, prints_results: bool = False) -> Iterator[None]:
    """Say at once what the next second or more goes to, in which Ctrl-C ends the process.

    Commands are in two files: one that reads the command line and imports no JAX, and one with
    the work, which it imports within this context.

    Args:
        interrupted: what Ctrl-C says.
        prints_results: standard output is for these alone, so that the line is on standard error,
            is taken away again, and is only for a terminal.
    """
    what = f"mnist_jax {mnist_jax.__version__}: importing JAX"
    with (
        terminal.fleeting(f"{what} ...") if prints_results else waiting(what),
        _leaving_at_once(interrupted),
    ):
        yield


@contextmanager
def _leaving_at_once(message: str) -> Iterator[None]:
    """Ctrl-C ends the process, with a line: JAX's imports may swallow a KeyboardInterrupt."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # it is ignored, as behind nohup, or a caller's
        return

    def leave(*_: Any) -> NoReturn:
        print(f"\n{message}", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)

    signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _take_back_settings() -> None:
    """Undo what the environment says to JAX for the sake of other programs."""
    if os.environ.get("JAX_DISABLE_JIT", "").lower() in ("y", "yes", "t", "true", "on", "1"):
        message = "JAX_DISABLE_JIT is not heeded: a step that is not compiled takes minutes."
        print(f"warning: {message}", file=sys.stderr)
    for name, value in _SETTINGS.items():
        os.environ.pop(name.upper(), None)  # for a JAX that is imported later
        if "jax" in sys.modules:
            sys.modules["jax"].config.update(name, value)


def parse(argv: Sequence[str]) -> Command | None:
    """Read the command line.

    Returns:
        None when `--list` asked for the ready configs, which are then printed.

    Raises:
        SystemExit: code 2 with an error of two lines; code 0 after `--help`.
    """
    parser = _parser()
    given = parser.parse(argv, {"--config": configs.names()})
    if given.list:
        for name in configs.names():
            print(f"{name:10} {configs.get(name)[1]}")
        return None
    name = "deep" if given.config is None else given.config
    if name not in configs.names():
        fail(f"--config {name} does not exist.", nearest(name, configs.names()))
    config, _ = configs.get(name)
    stored = _stored(given) if given.resume else None
    if stored and given.config is None:
        config = stored
    config = with_flags(config, given, HELP)
    if stored:
        _check_changes(stored, config, given.force)
    return Command(
        name,
        config,
        given.resume or given.workdir,
        given.resume is not None,
        given.force,
        given.coordinator,
        given.num_processes,
        given.process_id,
    )


def with_flags(config: Config, given: argparse.Namespace, hint: str) -> Config:
    """A config with what flags of its fields' names say, where they were given.

    Raises:
        SystemExit: code 2 with an error of two lines for a value that a field does not take.
    """
    types_of_flags = typing.get_type_hints(Config)
    texts = {field: getattr(given, field, None) for field in types_of_flags}
    changes = {
        field: _value(field, text, types_of_flags[field], hint)
        for field, text in texts.items()
        if text is not None
    }
    try:
        changed = dataclasses.replace(config, **changes)
        if "network_options" not in changes and changed.networks != config.networks:
            # Those of a config are for its own network.
            changed = dataclasses.replace(changed, network_options=None)
        return changed
    except ValueError as error:
        field, _, rest = str(error).partition(" ")
        fail(f"--{field.replace('_', '-')} {rest}", hint)


def _stored(given: argparse.Namespace) -> Config:
    if given.workdir is not None:
        fail("--resume and --workdir exclude each other.", "A run goes on in its own folder.")
    try:
        if (given.resume / weights_file.NAME).exists():
            raise ValueError(f"{given.resume} holds weights alone.\nIt was made to predict with.")
        return records.read_config(given.resume)
    except ValueError as error:
        message, _, hint = str(error).partition("\n")
        fail(f"--resume {message}", hint or "Give the folder of an earlier run.")


def _check_changes(stored: Config, config: Config, force: bool) -> None:
    for option in dataclasses.fields(Config):
        was, now = getattr(stored, option.name), getattr(config, option.name)
        on_resume = option.metadata["on_resume"]
        if option.name in ("epochs", "batch_size") and stored.snapshots > 1:
            on_resume = "never"  # they say when the snapshots are taken
        elif option.name == "epochs" and stored.schedule != "constant":
            on_resume = "forced"  # it says where in the schedule a step is
        if was == now or on_resume == "free" or (on_resume == "forced" and force):
            continue
        hint = "Add --force to go on with the new value."
        if on_resume == "never":
            hint = "The saved state has no use for another; start a new run."
        elif option.name == "epochs":
            hint = (
                f"The {stored.schedule} schedule would be stretched over {counted(now, 'epoch')}, "
                "and the learning rate jump to another place of it. Add --force to go on so."
            )
        fail(f"--{option.name.replace('_', '-')} was {was} and is now {now}.", hint)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m experiments.run",
        description="Train a network, or an ensemble of them, and evaluate it on the test images.",
        epilog="The defaults are those of Config; a ready config has its own, and flags beat both.",
    )
    names = ", ".join(configs.names())
    parser.add_argument("--config", metavar="NAME", help=f"{names} (default: deep)")
    parser.add_argument("--list", action="store_true", help="show the ready configs and stop")
    parser.add_argument(
        "--workdir",
        type=epath.Path,
        metavar="FOLDER",
        help="where the results go; new or empty (default: runs/CONFIG-TIME)",
    )
    parser.add_argument(
        "--resume",
        type=epath.Path,
        metavar="FOLDER",
        help="go on with the run in this folder, with its config; --epochs may be raised (with "
        "--force where the learning rate has a schedule)",
    )
    parser.add_argument(
        "--force", action="store_true", help="with --resume: go on with changed fields or data"
    )
    several = parser.add_argument_group("several processes", "each started with the same flags")
    several.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="of process 0; auto: JAX finds it and the two below (Cloud TPU, Slurm)",
    )
    several.add_argument("--num-processes", type=int, metavar="N", help="how many there are")
    several.add_argument("--process-id", type=int, metavar="N", help="which this one is, from 0")
    group = parser.add_argument_group("fields of the config")
    types_of_flags = typing.get_type_hints(Config)
    for option in dataclasses.fields(Config):
        metavar = _metavar(types_of_flags[option.name])
        text = f"{option.metadata['help']} (default: {option.default})"
        if metavar == "NAME":
            text = f"{', '.join(_choices(types_of_flags[option.name]))}: {text}"
        group.add_argument(
            f"--{option.name.replace('_', '-')}",
            dest=option.name,
            metavar=metavar,
            help=text.replace("%", "%%"),
        )
    return parser


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """The types a value may have: (int, NoneType) for `int | None`."""
    return typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)


def _choices(kind: Any) -> tuple[str, ...]:
    """The names that a flag takes, where it takes names."""
    first = _alternatives(kind)[0]
    return typing.get_args(first) if typing.get_origin(first) is typing.Literal else ()


def _metavar(kind: Any) -> str:
    first = _alternatives(kind)[0]
    if choices := _choices(kind):
        named = "{" + ",".join(choices) + "}"
        return named if len(named) <= _LONGEST_METAVAR else "NAME"
    return {int: "N", float: "X", str: "TEXT"}[first]


def _value(name: str, text: str, kind: Any, hint: str) -> Any:
    """Turn a flag's text into its field's type."""
    flag = f"--{name.replace('_', '-')}"
    first, *others = _alternatives(kind)
    if types.NoneType in others and text.lower() == "none":
        return None
    if choices := _choices(kind):
        if text not in choices:
            fail(f"{flag} {text} does not exist.", nearest(text, choices))
        return text
    if first is int and str in others and not text.lstrip("+-").isdigit():
        return text
    try:
        return first(text)
    except ValueError:
        wanted = {int: "a whole number", float: "a number"}[first]
        fail(f"{flag} takes {wanted}, not {text!r}.", hint)
