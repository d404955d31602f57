"""The command line: a flag for each field of `Config`, and what all commands share."""

import argparse
import dataclasses
import sys
import types
import typing
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple, NoReturn, TextIO

from etils import epath

from experiments import config as configs
from experiments import records
from experiments.config import Config
from mnist_jax.cache import use_compilation_cache as use_compilation_cache


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


class Parser(argparse.ArgumentParser):
    """Flags in full only, and mistakes in two lines."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Two lines on stderr, and exit code 2."""
        fail(message, f"See {self.prog} --help.")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Read the command line; a word too many is an error that names the nearest flag."""
        given, unknown = self.parse_known_args(argv)
        if unknown:
            word = unknown[0].split("=")[0]
            flags = [flag for action in self._actions for flag in action.option_strings]
            long_flags = [flag for flag in flags if flag.startswith("--")]
            fail(f"{word} is no flag of this command.", nearest(word, long_flags))
        return given


def fail(message: str, hint: str) -> NoReturn:
    """Two lines on stderr, and exit code 2."""
    print(f"error: {message}\n{hint}", file=sys.stderr)
    raise SystemExit(2)


def nearest(word: str, words: Sequence[str]) -> str:
    """A line that names the nearest right words."""
    near = get_close_matches(word, words, n=2, cutoff=0.5)
    return f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(words)}."


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


def parse(argv: Sequence[str]) -> Command | None:
    """Read the command line.

    Returns:
        None when `--list` asked for the ready configs, which are then printed.

    Raises:
        SystemExit: code 2 with an error of two lines; code 0 after `--help`.
    """
    parser, types_of_flags = _parser()
    given = parser.parse(argv)
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
    changes = {}
    for field, kind in types_of_flags.items():
        text = getattr(given, field)
        if text is not None:
            changes[field] = _value(field, text, kind)
    try:
        config = dataclasses.replace(config, **changes)
    except ValueError as error:
        field, _, rest = str(error).partition(" ")
        fail(f"--{field.replace('_', '-')} {rest}", "See python -m experiments.run --help.")
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


def _stored(given: argparse.Namespace) -> Config:
    if given.workdir is not None:
        fail("--resume and --workdir exclude each other.", "A run goes on in its own folder.")
    try:
        return records.read_config(given.resume)
    except ValueError as error:
        fail(f"--resume {error}", "Give the folder of an earlier run.")


def _check_changes(stored: Config, config: Config, force: bool) -> None:
    for option in dataclasses.fields(Config):
        was, now = getattr(stored, option.name), getattr(config, option.name)
        on_resume = option.metadata["on_resume"]
        if option.name == "epochs" and stored.snapshots > 1:
            on_resume = "never"  # it says when the snapshots are taken
        if was == now or on_resume == "free" or (on_resume == "forced" and force):
            continue
        hint = "Add --force to go on with the new value."
        if on_resume == "never":
            hint = "The saved state has no use for another; start a new run."
        fail(f"--{option.name.replace('_', '-')} was {was} and is now {now}.", hint)


def _parser() -> tuple[Parser, dict[str, Any]]:
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
        help="go on with the run in this folder, with its config; --epochs may be raised",
    )
    parser.add_argument(
        "--force", action="store_true", help="with --resume: go on with changed fields or data"
    )
    several = parser.add_argument_group("several processes, each started with the same flags")
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
        text = f"{option.metadata['help']} (default: {option.default})"
        group.add_argument(
            f"--{option.name.replace('_', '-')}",
            dest=option.name,
            metavar=_metavar(types_of_flags[option.name]),
            help=text.replace("%", "%%"),
        )
    return parser, types_of_flags


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """The types a value may have: (int, NoneType) for `int | None`."""
    return typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)


def _metavar(kind: Any) -> str:
    first = _alternatives(kind)[0]
    if typing.get_origin(first) is typing.Literal:
        return "{" + ",".join(typing.get_args(first)) + "}"
    return {int: "N", float: "X", str: "TEXT"}[first]


def _value(name: str, text: str, kind: Any) -> Any:
    """Turn a flag's text into its field's type."""
    flag = f"--{name.replace('_', '-')}"
    first, *others = _alternatives(kind)
    if types.NoneType in others and text.lower() == "none":
        return None
    if typing.get_origin(first) is typing.Literal:
        choices = typing.get_args(first)
        if text not in choices:
            fail(f"{flag} {text} does not exist.", nearest(text, choices))
        return text
    if first is int and str in others and not text.lstrip("+-").isdigit():
        return text
    try:
        return first(text)
    except ValueError:
        wanted = {int: "a whole number", float: "a number"}[first]
        fail(f"{flag} takes {wanted}, not {text!r}.", "See python -m experiments.run --help.")
