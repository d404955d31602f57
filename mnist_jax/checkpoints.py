"""Saving and restoring a stacked state with Orbax."""

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp


class Checkpoints:
    """The last two saved states of a run, in one folder.

    Use it as a context manager: saving goes on in the background, and the end waits for it.
    """

    def __init__(self, folder: str | Path) -> None:
        options = ocp.CheckpointManagerOptions(max_to_keep=2)
        self._manager = ocp.CheckpointManager(Path(folder).absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def save(self, step: int, state: Any) -> None:
        """Save a pytree of arrays as `step`; it returns before the files are written."""
        self._manager.save(step, args=ocp.args.StandardSave(state))

    def latest_step(self) -> int | None:
        """The newest step there is, or None."""
        return self._manager.latest_step()

    def restore(self, step: int, like: Any) -> Any:
        """The state saved as `step`; `like` has its structure, shapes and dtypes."""
        return self._manager.restore(step, args=ocp.args.StandardRestore(like))
