"""How much memory a process may still take."""

import os
from contextlib import suppress
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
# What a container may use and uses, by either version of cgroups.
_LIMITS = (
    (_CGROUP / "memory.max", _CGROUP / "memory.current"),
    (
        _CGROUP / "memory" / "memory.limit_in_bytes",
        _CGROUP / "memory" / "memory.usage_in_bytes",
    ),
)


def available() -> int | None:
    """Bytes, of the machine or of the container that this is; None where they cannot be told."""
    bounds = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(line for line in lines if line.startswith("MemAvailable:"))
        bounds.append(int(free.split()[1]) * 1024)
    for limit, usage in _LIMITS:
        with suppress(OSError, ValueError):  # "max" is no limit
            bounds.append(int(limit.read_text()) - int(usage.read_text()))
    if not bounds:
        with suppress(OSError, ValueError, AttributeError):
            bounds.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return max(0, min(bounds)) if bounds else None
