"""Draw what was trained and evaluated: `python -m experiments.report WORKDIR...`."""

import argparse
import io
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from etils import epath
from matplotlib.figure import Figure

from experiments import cli, evaluate, page, plots, records, trained
from experiments.evaluate import Evaluation
from experiments.page import Picture, Section
from experiments.trained import Member, Trained
from mnist_jax import data, parallel, training
from mnist_jax.data import Dataset
from mnist_jax.layers import Conv, MaxPool

INTERRUPTED = 130
_HINT = "See python -m experiments.report --help."
_HEADER = (
    *("workdir", "members", "prediction", "networks run", "trained s", "accuracy %", "NLL"),
    *("ECE %", "scaled ECE %", "AURC %", "unfamiliar AUROC %"),
)


class Run(NamedTuple):
    """What is known about a workdir."""

    name: str
    loaded: Trained
    dataset: Dataset
    history: list[dict[str, Any]]  # metrics.jsonl
    train_seconds: float | None  # None before the training's end
    evaluation: Evaluation


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = _parse(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = cli.show_warning
    cli.use_compilation_cache()
    parallel.use_cpu_cores()
    started = time.perf_counter()
    folder = given.output or given.workdirs[0] / "report"
    try:
        for workdir in given.workdirs:
            records.read_config(workdir)  # before any of them takes long
        _make_folder(folder)
        runs = [_read(workdir) for workdir in given.workdirs]
    except (ValueError, data.DataUnavailable) as error:
        message, _, hint = str(error).partition("\n")
        cli.fail(message, hint or _HINT)
    except KeyboardInterrupt:
        print("Interrupted; nothing was drawn.", file=sys.stderr)
        return INTERRUPTED
    sections = [Section(run.name, _lines(run), list(_pictures(run))) for run in runs]
    for i, section in enumerate(sections):
        for picture in section.pictures:
            prefix = f"{i}-" if len(sections) > 1 else ""
            (folder / f"{prefix}{picture.name}.png").write_bytes(picture.png)
    title = "Report: " + ", ".join(run.name for run in runs)
    table = [_HEADER, *(row for run in runs for row in rows(run))]
    columns = [column for column in zip(*table, strict=True) if any(column[1:])]
    header, *body = zip(*columns, strict=True)
    html = page.render(title, header, body, sections)
    (folder / "index.html").write_text(html)
    print(f"Drawn in {time.perf_counter() - started:.0f} s: {folder / 'index.html'}")
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.Parser(
        prog="python -m experiments.report",
        description="Draw one or several workdirs as one HTML page and its PNGs. A workdir that "
        "experiments.evaluate has not seen yet is evaluated first; run that yourself for shifts, "
        "unfamiliar images and dropout.",
    )
    parser.add_argument(
        "workdirs", nargs="+", type=epath.Path, metavar="WORKDIR", help="of experiments.run"
    )
    parser.add_argument(
        "--output",
        type=epath.Path,
        metavar="FOLDER",
        help="where the page goes (default: report in the first WORKDIR)",
    )
    given = parser.parse(argv)
    for i, workdir in enumerate(given.workdirs):
        if workdir in given.workdirs[:i]:
            cli.fail(f"WORKDIR {workdir} is given twice.", _HINT)
    return given


def _make_folder(folder: epath.Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.html").write_text("")
    except OSError as error:
        raise ValueError(f"{folder} cannot be written: {error.strerror}.") from None


def _read(workdir: epath.Path) -> Run:
    loaded = trained.load(workdir)
    dataset = trained.load_dataset(loaded)
    evaluation = evaluate.read(loaded)
    if evaluation is None:
        print(f"{workdir} has no evaluation of its last state yet.")
        evaluation = evaluate.evaluate(loaded, dataset)
        evaluate.save(workdir, evaluation)
    metrics, results = workdir / "metrics.jsonl", workdir / "results.json"
    history = (
        [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    )
    seconds = json.loads(results.read_text())["train_seconds"] if results.exists() else None
    return Run(workdir.name or str(workdir), loaded, dataset, history, seconds, evaluation)


def rows(run: Run) -> Iterator[list[str]]:
    """The run's lines of the table: a member on average, the members together, with dropout."""
    results = run.evaluation.results
    members = results["members"]
    unfamiliar = results["unfamiliar"] or {"members": [], "ensemble": {}}
    seconds = "" if run.train_seconds is None else f"{run.train_seconds:,.0f}"
    kind = _kind(run.loaded)

    def row(who: str, networks: int, scores: Sequence[Any], found: Sequence[Any]) -> list[str]:
        def mean(when: str, metric: str) -> float | None:
            values = [one[when][metric] for one in scores if one[when]]
            return float(np.mean(values)) if values else None

        cells = [kind, who, str(networks), seconds, _percent(mean("before", "accuracy"))]
        cells += [_number(mean("before", "nll")), _percent(mean("before", "ece"))]
        cells += [_percent(mean("after", "ece")), _percent(mean("before", "aurc"), 3)]
        aurocs = [by["auroc"] for by in found]
        return [run.name, *cells, _percent(float(np.mean(aurocs)) if aurocs else None)]

    alone = [by["entropy"] for by in unfamiliar["members"]]
    if len(members) == 1:
        yield row("alone", 1, members, alone)
    else:
        yield row("one, on average", 1, members, alone)
        by = unfamiliar["ensemble"]
        for rule, name, score in (
            ("mean_probability", "mean probability", "entropy"),
            ("sum_logits", "summed logits", None),
        ):
            found = [by[score]] if score in by else []
            yield row(name, len(members), [results["rules"][rule]], found)
    dropout = results["mc_dropout"]
    if dropout:
        by = unfamiliar.get("mc_dropout", {})
        found = [by["entropy"]] if by else []
        count = dropout["passes"] * len(members)
        yield row(f"{dropout['passes']} x dropout", count, [dropout], found)


def _kind(loaded: Trained) -> str:
    """Such as "7 layers", "deep, averaged" or "5 snapshots of deep"."""
    config = loaded.config
    kinds = [
        f"{len(seeds)} {name}" if len(config.seeds) > 1 else name for name, seeds in config.kinds
    ]
    text = " + ".join(kinds)
    if config.snapshots > 1:
        text = f"{len(loaded.members) // len(config.seeds)} snapshots of {text}"
    return text if config.ema is None else f"{text}, weights averaged"


def _percent(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{100 * value:.{digits}f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _lines(run: Run) -> list[str]:
    results = run.evaluation.results
    lines = [
        f"{_kind(run.loaded)}, trained for {len(run.history)} epochs on {run.dataset.name} "
        f"({len(run.dataset.train.labels):,} images), evaluated on {results['test_size']:,} test "
        f"images; temperatures from {results['validation_size']:,} validation images."
    ]
    if not results["shifts"]:
        lines.append(
            f"Not evaluated under shift yet: python -m experiments.evaluate "
            f"{run.loaded.workdir} --shift all"
        )
    return lines


def _pictures(run: Run) -> Iterator[Picture]:
    results, logits = run.evaluation.results, run.evaluation.logits["test"]
    images, labels = run.dataset.test
    names = run.dataset.class_names
    together = len(logits) > 1
    curves = results["curves"]
    first = run.loaded.members[0]
    if run.history:
        yield _picture(
            "learning_curves",
            "Learning curves",
            "Cost of the training batches, with dropout and before each step, so it can be above "
            "that of the validation images." + (" Thin lines are members." if together else ""),
            plots.learning_curves(run.history),
        )
    if together:
        yield _picture(
            "by_size",
            "Accuracy by ensemble size",
            "Mean over all ensembles of that many of these members; the bars are their standard "
            "deviation, which is no error bar for other members.",
            plots.by_size(results["sizes"]),
        )
    reliable = curves["mean_probability"]
    yield _picture(
        "reliability",
        "Reliability" + (" of the mean probability" if together else ""),
        "Where predictions are as sure as they are right, the line is on the diagonal; below it "
        "they are too sure. The grey bars are what chance would give calibrated predictions.",
        plots.reliability(reliable["before"], reliable["after"]),
    )
    yield _picture(
        "risk_coverage",
        "Refusing the least certain",
        "From right to left more images are refused, those of the smallest largest probability "
        "first; the line is the share of errors among those that are answered.",
        plots.risk_coverage(curves, together),
    )
    yield _picture(
        "confusion",
        "Which is taken for which",
        "Right answers are on the diagonal; the darker a square beside it, the more errors.",
        plots.confusion(reliable["confusion_matrix"], names),
    )
    votes = " Below: the members' votes." if together else ""
    yield _picture(
        "hardest",
        "Hardest test images",
        "Those whose true class got the least probability. Above each: the true class, then the "
        f"answer and its probability, coloured where it is wrong.{votes}",
        plots.hardest(images, labels, logits, names),
    )
    maps = feature_maps(first, images[0])
    kernel = _first_kernel(first)
    yield _picture(
        "filters",
        f"First-layer filters of {first.name}",
        "One square a filter, its weights as colours.",
        plots.filters(kernel),
    )
    yield _picture(
        "feature_maps",
        f"A {names[labels[0]]}, layer by layer",
        f"What each convolution and pool of {first.name} makes of the first test image; bright is "
        "large.",
        plots.feature_maps(maps),
    )
    if results["shifts"]:
        yield _picture(
            "shifts",
            "Under shift",
            "The same test images made harder. Trust is in the lower row: where accuracy falls and "
            "the calibration error (ECE) rises, predictions are wrong and sure.",
            plots.under_shift(results["shifts"]),
        )


def _picture(name: str, title: str, caption: str, figure: Figure) -> Picture:
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return Picture(name, title, caption, png.getvalue())


def _first_kernel(member: Member) -> np.ndarray:
    """Of the first convolution, `[height, width, 1, features]`."""
    return np.asarray(member.params["Conv_0"]["kernel"])


def feature_maps(member: Member, image: np.ndarray) -> dict[str, np.ndarray]:
    """The input and what each convolution and pool gives, by name, `[height, width, channels]`.

    Args:
        image: uint8 `[28, 28, 1]`.
    """
    pixels = training.to_float(jnp.asarray(image[None]))
    maps = {"input": np.asarray(pixels[0])}

    def watch(
        call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        out = call(*args, **kwargs)
        if isinstance(context.module, Conv | MaxPool):
            maps["/".join(context.module.path)] = np.asarray(out[0], np.float32)
        return out

    with nn.intercept_methods(watch):
        training.apply(member.network, member.params, pixels)
    return maps


if __name__ == "__main__":
    sys.exit(main())
