"""Members as one page of HTML that needs nothing but a browser: draw, and see what they say."""

import base64
import html
import json
import re
import urllib.parse
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from experiments.interchange import chain, files, page_weights
from experiments.interchange.chain import Layer, Unsupported
from experiments.interchange.model import Model
from experiments.interchange.page_weights import Weights, percent
from experiments.workdir import records
from mnist_jax.words import counted

_OWN = resources.files("experiments.interchange") / "page"
_SHARED = resources.files("experiments.live_page") / "page"  # both pages are one family
_SCRIPT = ("talk.js", "pad.js", "maps.js")  # of the live page
_WORKER = ("digit.js", "network.js", "worker.js")


def write(exported: Model, path: Path) -> str:
    """Write the file; returns what to say of it.

    Raises:
        ValueError: it cannot be written, or the page cannot hold the network.
    """
    try:
        chains = _chains(exported)
    except Unsupported as error:
        raise ValueError(
            f"--to html cannot hold this network: {error}.\n"
            f"It holds {chain.HELD}, of digits or letters in 28 x 28 grey pixels; "
            "--to onnx holds others."
        ) from None
    weights = page_weights.choose(exported, chains)
    content = page(exported, chains, weights)
    with files.new_file(path) as unfinished:
        unfinished.write_text(content, encoding="utf-8")
    checked = weights.checked
    said = f"not checked, since {weights.reason}" if checked is None else checked.describe()
    return f"HTML, weights in {weights.precision.describe()}: {said}"


def page(exported: Model, chains: Sequence[Sequence[Layer]], weights: Weights) -> str:
    """The whole document."""
    title = _title(exported)
    icon = "data:image/svg+xml," + urllib.parse.quote((_SHARED / "icon.svg").read_text("utf-8"))
    parts = {
        "title": html.escape(title),
        "version": html.escape(exported.metadata["mnist_jax"]),
        "icon": icon,
        "style": _joined(_SHARED / "style.css", _OWN / "style.css"),
        "model": _as_json(_described(exported, chains, weights)),
        "weights": base64.b64encode(weights.content).decode(),
        "worker": _joined(*(_OWN / name for name in _WORKER)),
        "script": _joined(*(_SHARED / name for name in _SCRIPT), _OWN / "page.js"),
    }
    template = (_OWN / "index.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def _joined(*paths: Any) -> str:
    """Files one behind the other; as one script they need no imports and exports."""
    text = "\n".join(path.read_text("utf-8").strip() for path in paths)
    return re.sub(r"^(import .*;\n|export )", "", text, flags=re.MULTILINE)


def _as_json(content: Any) -> str:
    """As a script's content, in which `<` may begin its end."""
    return json.dumps(content).replace("<", "\\u003c")


def _chains(exported: Model) -> list[list[Layer]]:
    """Each member's layers.

    Raises:
        Unsupported: other inputs than the page can draw, or other networks than it knows.
    """
    config, about = exported.trained.config, exported.trained.trained_on
    if config.reads_sentences or config.reads_positions:
        raise Unsupported(f"it takes {exported.input.name}, not images")
    if about.image_shape != (chain.SIDE, chain.SIDE, 1):
        raise Unsupported(f"it takes images of {' x '.join(map(str, about.image_shape))}")
    if not about.characters:
        raise Unsupported("it was trained on images that nobody draws, not on digits or letters")
    return [
        chain.layers_of(member.network, member.variables["params"]) for member in exported.members
    ]


def _described(
    exported: Model, chains: Sequence[Sequence[Layer]], weights: Weights
) -> dict[str, Any]:
    """All that the page is told, beside the weights."""
    members = [
        {
            "name": member.name,
            "layers": [
                {"kind": one.kind, "name": one.name, "text": one.text, "settings": one.settings}
                | {"weights": arrays}
                for one, arrays in zip(layers, described, strict=True)
            ],
        }
        for member, layers, described in zip(exported.members, chains, weights.layers, strict=True)
    ]
    threshold = _threshold(exported)
    return {
        "headline": _headline(exported, weights),
        "classes": exported.metadata["classes"],
        "threshold": threshold,
        "rule": _rule(threshold),
        "members": members,
        "about": _about(exported, weights),
    }


def _title(exported: Model) -> str:
    counts = Counter(member.network_name for member in exported.members)
    names = ", ".join(f"{n} x {name}" if n > 1 else name for name, n in counts.items())
    return f"mnist_jax: {names}"


def _threshold(exported: Model) -> float | None:
    """Of the entropy, as `predict` has it; it is of all members together."""
    if len(exported.members) < len(exported.trained.members):
        return None
    threshold = records.read_threshold(exported.trained.workdir)
    return threshold if threshold is not None and np.isfinite(threshold) else None


def _rule(threshold: float | None) -> str:
    if threshold is None:
        return "No entropy is known above which to be unsure."
    return (
        f"Unsure is what has an entropy above {threshold:.3g}, as 5 % of the right answers on "
        "validation images have."
    )


def _headline(exported: Model, weights: Weights) -> str:
    members = counted(len(exported.members), "member")
    accuracy = _accuracy(exported, weights)
    of = exported.metadata["data"]["name"]
    return (
        f"{members}" if accuracy is None else f"{members}, {accuracy} of {of}'s test images right"
    )


def _accuracy(exported: Model, weights: Weights) -> str | None:
    """On test images: as checked or, without them, as the training left it."""
    if weights.checked is not None:
        return percent(weights.checked.after)
    results = exported.metadata["results"] or {}
    together = len(exported.members) == len(exported.trained.members)
    found = results.get("ensemble", {}).get("test_accuracy") if together else None
    return None if found is None else percent(found)


def _about(exported: Model, weights: Weights) -> list[tuple[str, str]]:
    """What the page says of itself, names and texts."""
    size = len(weights.content) * 4 / 3 / 1e6
    accuracy = _accuracy(exported, weights)
    return [
        ("Members", ", ".join(member.name for member in exported.members)),
        ("Trained on", exported.metadata["data"]["name"]),
        ("Trained by", exported.metadata["command"]),
        ("Test accuracy", "not known" if accuracy is None else accuracy),
        ("Weights", f"{weights.precision.describe()}; {size:.1f} MB compressed"),
        *([] if weights.checked is None else [("Checked", weights.checked.describe())]),
        ("Made by", f"mnist_jax {exported.metadata['mnist_jax']}"),
    ]
