"""Files that are there as a whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def check_new(path: Path) -> None:
    """See that a file can be made, as far as that can be told before the work.

    Raises:
        ValueError: there is one, or its folder does not exist.
    """
    if os.path.isdir(path):
        raise ValueError(f"--output {path} is a folder.\nGive the name of a file.")
    if os.path.lexists(path):
        raise ValueError(f"--output {path} exists.\nChoose another name, or remove it.")
    if not os.path.isdir(path.parent):
        raise ValueError(f"--output {path}: there is no folder {path.parent}.\nMake it first.")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A name in the same folder to write to; what is there in the end takes the name wanted.

    Raises:
        ValueError: it cannot be written.
    """
    unfinished = path.parent / f"{path.name}.{os.getpid()}.tmp"
    try:
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"--output {path} cannot be written: {reason}.") from error
    finally:
        with suppress(OSError):  # it was not written, as under a name that is too long
            unfinished.unlink(missing_ok=True)
