"""Saving and restoring a state with Orbax, so that a damaged file is found out."""

import contextlib
import ctypes
import hashlib
import json
import warnings
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from os import PathLike
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

_LATEST = 2


class CheckpointError(OSError):
    """A checkpoint could not be written, or none of those there can be read."""


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was passed over."""


class Saved(NamedTuple):
    """A checkpoint's content."""

    step: int
    state: Any  # a pytree of NumPy arrays
    details: dict[str, Any]  # what JSON can hold


@dataclass
class _KeepBestAndSome:
    """Orbax's preservation policy for one step, which changes, and for some that do not."""

    some: Collection[int]
    best: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        return [one.step == self.best or one.step in self.some for one in checkpoints]


class Checkpoints:
    """The last two saved states of a run, its best, and those of chosen steps, in one folder.

    Use it as a context manager: saving goes on in the background, and the end waits for it. A
    checkpoint appears under its name once it is whole. With `read_only` nothing is changed, also
    while another process saves there. `keep` names steps that later ones never push out.
    """

    def __init__(
        self, folder: str | PathLike[str], read_only: bool = False, keep: Collection[int] = ()
    ) -> None:
        self._folder = epath.Path(folder).absolute()
        self._read_only = read_only
        self._kept = _KeepBestAndSome(keep)
        policies = [checkpoint_managers.LatestN(_LATEST), self._kept]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        self._thread = ThreadPoolExecutor(1)
        self._saving: Future[None] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            try:
                with self._thread:
                    self._finish_save()
            finally:
                self._manager.close()
        except CheckpointError:
            if error is None:
                raise
        except Exception as failure:
            if error is None:
                raise self._cannot_write(failure) from failure

    def save(self, step: int, state: Any, details: dict[str, Any], best: bool = False) -> None:
        """Save a pytree of NumPy arrays as `step`; it returns before the files are written.

        Args:
            state: not to be changed until then.
            details: kept with the state; anything that JSON can hold.
            best: keep this one when later ones push it out, until another is best.

        Raises:
            CheckpointError: this or the save before could not be written.
        """
        self._finish_save()
        work = partial(self._save, step, state, details, best)
        if jax.process_count() > 1:  # there all processes wait for each other
            work()
        else:
            self._saving = self._thread.submit(work)

    def _save(self, step: int, state: Any, details: dict[str, Any], best: bool) -> None:
        if best:
            self._kept.best = step
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(_without_none(state)),
                    details=ocp.args.JsonSave(
                        {"details": details, "sha256": _digest(state, details)}
                    ),
                ),
            )
        except Exception as error:  # Orbax and TensorStore have many kinds
            raise self._cannot_write(error) from error

    def _finish_save(self) -> None:
        """Until Orbax has the state that was given to `save`; raises what went wrong there."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def steps(self) -> list[int]:
        """The steps there are, ascending."""
        self._finish_save()
        return sorted(self._manager.all_steps())

    def wait(self) -> None:
        """Until what was saved is written and the memory that took is the system's again.

        Raises:
            CheckpointError: it could not be written.
        """
        self._finish_save()
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._cannot_write(error) from error
        _return_freed_memory()

    def restore(self, like: Any) -> Saved | None:
        """The newest checkpoint that is whole, or None where there is none at all.

        A damaged one is passed over with a `CheckpointWarning`, and deleted unless `read_only`.

        Args:
            like: a pytree with the state's structure, shapes and dtypes.

        Raises:
            CheckpointError: there are checkpoints, but none is whole.
        """
        damaged: list[int] = []
        for step in reversed(self.steps()):
            try:
                saved = self._restore_one(step, like)
            except Exception as error:  # whatever damage makes of the files
                reason = _first_line(error)
                message = f"checkpoint {self._folder / str(step)} is damaged and left out: {reason}"
                warnings.warn(message, CheckpointWarning, stacklevel=2)
                damaged.append(step)
            else:
                self._make_way(damaged)
                return saved
        if damaged:
            raise CheckpointError(f"{self._folder}: every checkpoint is damaged, {damaged}.")
        return None

    def restore_step(self, step: int, like: Any) -> Saved:
        """The checkpoint of one step; `like` as in `restore`.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        try:
            return self._restore_one(step, like)
        except Exception as error:  # whatever damage makes of the files
            path = self._folder / str(step)
            raise CheckpointError(f"{path} cannot be read: {_first_line(error)}") from error

    def _make_way(self, damaged: list[int]) -> None:
        """Delete damaged checkpoints, which stand where the continued run will save its own."""
        for step in damaged if not self._read_only else []:
            self._manager.delete(step)

    def _restore_one(self, step: int, like: Any) -> Saved:
        found = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(_without_none(like)),
                details=ocp.args.JsonRestore(),
            ),
        )
        state = jax.tree.map(np.asarray, _with_none(like, found["state"]))
        details = found["details"]["details"]
        if _digest(state, details) != found["details"]["sha256"]:
            raise ValueError("its values are not those that were saved.")
        return Saved(step, state, details)

    def _cannot_write(self, error: Exception) -> CheckpointError:
        return CheckpointError(f"{self._folder}: a checkpoint could not be written: {error}")


def _without_none(tree: Any) -> Any:
    """Named tuples as dictionaries of what is not None.

    So a field that came later, as `batch_stats`, is in the files of those only that use it.
    """
    if hasattr(tree, "_asdict"):
        tree = {name: part for name, part in tree._asdict().items() if part is not None}
    if isinstance(tree, dict):
        return {name: _without_none(part) for name, part in tree.items()}
    return tuple(map(_without_none, tree)) if isinstance(tree, tuple) else tree


def _with_none(like: Any, tree: Any) -> Any:
    """A tree like `like` from what `_without_none` has made of one."""
    if hasattr(like, "_asdict"):
        return type(like)(**_with_none(like._asdict(), tree))
    if isinstance(like, dict):
        return {n: None if v is None else _with_none(v, tree[n]) for n, v in like.items()}
    return tuple(map(_with_none, like, tree)) if isinstance(like, tuple) else tree


def _return_freed_memory() -> None:
    """Give the system what glibc keeps of freed memory, which grows with each checkpoint."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def _digest(state: Any, details: dict[str, Any]) -> str:
    """SHA-256 of every byte of the arrays and of the details."""
    digest = hashlib.sha256(json.dumps(details, sort_keys=True).encode())
    for leaf in jax.tree.leaves(state):
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()
