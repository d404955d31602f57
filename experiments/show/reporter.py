"""What `experiments.report` does once JAX is imported: one page about trained members."""

import argparse
import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from experiments.console import cli
from experiments.show import boards, features, page, plots
from experiments.show import sentences as marked
from experiments.show.page import Picture
from experiments.workdir import evaluator, records, trained
from experiments.workdir.evaluator import Evaluation
from experiments.workdir.trained import Trained
from mnist_jax import data, ensemble
from mnist_jax.data import Dataset, Split
from mnist_jax.data.positions import Positions
from mnist_jax.words import counted

MOST_WRONG = 48  # pictures of wrong answers
MOST_BOARDS = 12  # of wrong answers
LEAST_SURE = 12  # pictures of right ones
MOST_LAYERS = 12  # of a network, whose output is shown
_HINT = "See python -m experiments.report --help."
_NONE = "–"  # noqa: RUF001
_RULE = "mean_probability"  # the ensemble's, where one is shown

_HEAD = (
    *("run", "members", "epochs", "accuracy %, mean member", "accuracy %, mean probability"),
    *("accuracy %, summed logits", "NLL, nats", "ECE %, before → after scaling", "AURC %"),
    "training, s",
)
_ABOUT_TABLE = (
    "Accuracies are of the test data. NLL, ECE and AURC are those of the members' mean "
    "probability, and of the network where there is one: NLL is the mean negative log of the "
    "probability given to the right answer; ECE is how far stated probabilities are from how often "
    "they come true, before and after scaling by a temperature fitted on the validation data; "
    "AURC is the mean error over all shares of the data that it may refuse. All three: lower is "
    "better."
)
_KEY_OF_ENSEMBLES = (
    "Each run has a colour, in every picture. An unbroken line of it is the run's prediction as it "
    "is: the ensemble's mean probability, or the one network's; a dashed one that prediction after "
    "temperature scaling; pale lines are its members. Black lines are other ways to combine the "
    "members, grey ones what to compare with. Mistakes are vermilion."
)
_KEY_OF_NETWORKS = (
    "Each run has a colour, in every picture. An unbroken line of it is the network's prediction "
    "as it is, a dashed one that prediction after temperature scaling. Grey lines are what to "
    "compare with. Mistakes are vermilion."
)
_DIFFERENT_DATA = (
    "These runs are tested on different data, so they are in a table for each: numbers of "
    "different tables cannot be compared."
)


class Run(NamedTuple):
    """All that is known of one workdir."""

    name: str  # on the page
    loaded: Trained
    dataset: Dataset
    evaluation: Evaluation
    history: list[dict[str, Any]]  # metrics.jsonl
    outcome: dict[str, Any]  # results.json; empty where the training was not finished
    number: int = 0  # among the runs on the page

    @property
    def color(self) -> str:
        """What it is drawn in."""
        return plots.run_color(self.number)

    @property
    def what(self) -> str:
        """What an input of the networks is."""
        return self.loaded.config.input_is

    @property
    def data_name(self) -> str:
        """The data set and where it was found."""
        return f"{self.dataset.name} ({self.dataset.source})"


Pictures = dict[str, Picture]  # by the name of the PNG, without its ending


def run(given: argparse.Namespace) -> int:
    """Do what the command line asks for; returns the exit code.

    Raises:
        SystemExit: code 2, with an error of two lines on stderr, for what is wrong with it.
    """
    cli.start_jax()
    output = given.output or given.workdirs[0] / "report" / "index.html"
    try:
        sources = [_load(workdir) for workdir in given.workdirs]
        _make_folder(output)
        names = _names(given.workdirs)
        runs = [read(name, *source) for name, source in zip(names, sources, strict=True)]
        write(runs, output)
    except (ValueError, data.DataUnavailable) as error:
        message, _, hint = str(error).partition("\n")
        cli.fail(message, hint or _HINT)
    except KeyboardInterrupt:
        print("Interrupted; the report was not finished.", file=sys.stderr)
        return cli.INTERRUPTED
    print(f"The report is {output}; its pictures lie beside it.")
    return 0


def _names(workdirs: Sequence[epath.Path]) -> list[str]:
    """The folders' names, or their whole paths where two have the same name."""
    short = [os.path.basename(records.identity(workdir)) for workdir in workdirs]
    return short if len(set(short)) == len(short) else [str(workdir) for workdir in workdirs]


def _load(workdir: epath.Path) -> tuple[Trained, Dataset]:
    loaded = trained.load(workdir)
    for member in loaded.members:
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(member.variables)):
            raise ValueError(
                f"{workdir}: the weights of member {member.name} are not finite.\n"
                "There is nothing to show of it; train it again."
            )
    return loaded, trained.load_dataset(loaded)


def _make_folder(output: epath.Path) -> None:
    """See, before the work, that the page can be written, as far as can be told.

    Raises:
        ValueError: it cannot.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{output.parent} cannot be made: {error.strerror}.") from None
    if not records.writable(output.parent):
        raise ValueError(f"{output.parent} cannot be written.")


def read(name: str, loaded: Trained, dataset: Dataset) -> Run:
    """Everything about a workdir; it is evaluated where it was not yet.

    Args:
        name: what the page calls it.

    Raises:
        ValueError: predictions are not finite.
    """
    made = evaluator.read(loaded)
    if made is not None and not evaluator.is_of(made.results, dataset):
        what = loaded.config.input_is
        print(f"{name}: evaluation.json is of other {what}s than those trained for; making one.")
        (made,) = evaluator.evaluate(loaded, dataset)
    elif made is None:
        print(f"{name}: not evaluated yet; python -m experiments.evaluate does it now.")
        (made,) = evaluator.evaluate(loaded, dataset)
        try:
            evaluator.save(loaded.workdir, made)
        except OSError as error:
            print(f"{loaded.workdir} cannot be written ({error.strerror}); not saved.")
    if not all(np.isfinite(logits).all() for logits in made.logits.values()):
        raise ValueError(f"{loaded.workdir}: some predictions are not finite; train it again.")
    history = _read_text(loaded.workdir / "metrics.jsonl").splitlines()
    outcome = _read_text(loaded.workdir / "results.json")
    return Run(
        name,
        loaded,
        dataset,
        made,
        [json.loads(line) for line in history],
        json.loads(outcome) if outcome else {},
    )


def _read_text(path: epath.Path) -> str:
    return path.read_text() if path.exists() else ""


def write(runs: Sequence[Run], output: epath.Path) -> None:
    """Write the page and, beside it, its pictures."""
    numbers = itertools.count()
    groups = [[run._replace(number=next(numbers)) for run in group] for group in by_data(runs)]
    several = len(runs) > 1
    prefix = "" if output.stem == "index" else f"{output.stem}-"
    parts = list(_overview(groups, output.parent, prefix))
    entries = [page.Entry("all", "All runs")] if several else []
    for run in itertools.chain(*groups):
        print(f"Drawing {run.name}", flush=True)
        name = f"run-{run.number + 1}"
        parts.append(page.heading(run.name, 2, name, run.color))
        parts.append(page.paragraph(_introduction(run)))
        below = []
        for place, (title, notes, shown) in enumerate(sections(run), start=1):
            below.append(page.Entry(f"{name}-{place}", title))
            parts += [page.heading(title, 3, f"{name}-{place}"), *notes]
            parts += _put(shown, output.parent, f"{prefix}{run.number + 1}-" if several else prefix)
        entries.append(page.Entry(name, run.name, below))
    title = f"Report: {', '.join(run.name for run in runs)}"
    output.write_text(page.page(title, page.contents(entries), *parts))


def _put(shown: Pictures, folder: epath.Path, prefix: str) -> list[str]:
    """Write pictures into the folder; their HTML."""
    for name, picture in shown.items():
        (folder / f"{prefix}{name}.png").write_bytes(picture.png)
    return [page.pictures(list(shown.values()))] if shown else []


def _overview(groups: Sequence[Sequence[Run]], folder: epath.Path, prefix: str) -> Iterator[str]:
    """What stands before the runs: a table and common curves for each test data, and the key."""
    if sum(map(len, groups)) > 1:
        yield page.heading("All runs", 2, "all")
    if len(groups) > 1:
        yield page.paragraph(_DIFFERENT_DATA)
    for number, group in enumerate(groups, start=1):
        yield from _table(group)
        if len(group) > 1:
            which = f"all-{number}-" if len(groups) > 1 else "all-"
            yield from _put(_together(group), folder, f"{prefix}{which}")
    yield page.paragraph(_ABOUT_TABLE)
    members = max(len(run.loaded.members) for run in itertools.chain(*groups))
    yield page.paragraph(_KEY_OF_ENSEMBLES if members > 1 else _KEY_OF_NETWORKS)


def by_data(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs in groups that are tested on the same images, in the order they come in."""
    groups: list[list[Run]] = []
    for run in runs:
        for group in groups:
            if _same(group[0].dataset.test, run.dataset.test):
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


def _same(one: Split, other: Split) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def _table(group: Sequence[Run]) -> list[str]:
    """The data's name and the table of the runs that are tested on them."""
    names = dict.fromkeys(run.data_name for run in group)
    count = len(group[0].dataset.test.labels)
    rows = [(row, run.color) for run in group for row in summary(run)]
    cells, colors = zip(*rows, strict=True)
    return [
        page.paragraph(f"Tested on {counted(count, group[0].what)} of {' and of '.join(names)}:"),
        page.table(_HEAD, cells, words=[1], colors=colors),
    ]


def _together(group: Sequence[Run]) -> Pictures:
    """The learning curves of several runs in the same pictures."""
    begun = [run for run in group if run.history]
    if len(begun) < 2:
        return {}
    validated = all("ensemble" in row for run in begun for row in run.history)
    first = begun[0].dataset.validation
    same = all(_same(first, run.dataset.validation) for run in begun)
    ours = "" if same else " Not all runs are validated on the same data."
    about = {
        "cost": ("Training cost", "lower is better. The scale is logarithmic."),
        "accuracy": (
            "Validation accuracy",
            f"the share of right answers on data that are kept out of training.{ours}",
        ),
        "nll": (
            "Validation NLL",
            f"sure mistakes cost most; lower is better.{ours} The scale is logarithmic.",
        ),
    }
    shown = {}
    for metric in about if validated else ["cost"]:
        what, how = about[metric]
        curves = [(run.name, run.number, run.history) for run in begun]
        shown["cost" if metric == "cost" else f"validation_{metric}"] = Picture(
            plots.to_png(plots.compare(curves, metric)),
            f"{what} by epoch of {', '.join(run.name for run in begun)}.",
            f"{what} of all runs, by epoch: {how}",
        )
    return shown


def summary(run: Run) -> Iterator[list[str]]:
    """A run's rows of the table that compares runs; its columns are named by `_HEAD`."""
    results = run.evaluation.results
    members = [row["before"]["accuracy"] for row in results["members"]]
    together = results["rules"][_RULE]
    summed = results["rules"]["sum_logits"]["before"]["accuracy"]
    several = len(members) > 1
    seconds = run.outcome.get("train_seconds")
    yield [
        run.name,
        _members(run.loaded),
        f"{run.outcome.get('epochs', len(run.history)):g}",
        _percent(float(np.mean(members))),
        _percent(together["before"]["accuracy"]) if several else _NONE,
        _percent(summed) if several else _NONE,
        *_quality(together),
        _NONE if seconds is None else f"{seconds:,.0f}",
    ]
    dropping = results.get("mc_dropout")
    if dropping:
        passes = f"{counted(dropping['passes'], 'pass', 'passes')} each, dropout on"
        accuracy = _percent(dropping["before"]["accuracy"])
        yield [run.name, passes, "", "", accuracy, "", *_quality(dropping), ""]


def _members(loaded: Trained) -> str:
    """How many members of which networks, and what was done to their weights."""
    config = loaded.config
    counts = Counter(member.network_name for member in loaded.members)
    words = [" + ".join(f"{count} x {name}" for name, count in counts.items())]
    if config.snapshots > 1:
        words.append(f"{config.snapshots} snapshots a run")
    if config.ema is not None:
        words.append(f"averaged weights ({config.ema:g})")
    return ", ".join(words)


def _quality(row: dict[str, Any]) -> list[str]:
    before, after = row["before"], row["after"]
    ece = _percent(before["ece"])
    if after is not None:
        ece += f" → {_percent(after['ece'])}"
    return [f"{before['nll']:.4f}", ece, f"{100 * before['aurc']:.3f}"]


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{100 * share:.2f}"


def _introduction(run: Run) -> str:
    dataset = run.dataset
    sizes = [len(split.labels) for split in (dataset.train, dataset.validation, dataset.test)]
    config = run.loaded.config
    return (
        f"{_members(run.loaded)}, trained on {counted(sizes[0], run.what)} of {dataset.name} in "
        f"batches of {config.batch_size}; {sizes[1]:,} more for validation, {sizes[2]:,} for "
        f"testing. Optimizer {config.optimizer}, learning rate {config.learning_rate:g} "
        f"({config.schedule})."
    )


def sections(run: Run) -> Iterator[tuple[str, list[str], Pictures]]:
    """A run's part of the page: titles, HTML before the pictures, and pictures."""
    if run.history:
        yield "Learning", [], _learning(run)
    if len(run.loaded.members) > 1:
        yield "How many members it takes", [], _sizes(run)
    yield "Whether it knows when it is wrong", [], _certainty(run)
    if run.loaded.config.reads_sentences:
        yield "Mistakes", *_wrong_sentences(run)
        yield "Unfamiliar sentences", _unfamiliar(run), {}
        return
    if run.loaded.config.reads_positions:
        yield "Mistakes", _wrong_moves(run), {}
        yield "Unfamiliar positions", _unfamiliar(run), {}
        return
    yield "Mistakes", *_mistakes(run)
    yield "What it looks at", [], _features(run)
    yield "Harder images", *_shifts(run)
    yield "Unfamiliar images", _unfamiliar(run), {}


def _learning(run: Run) -> Pictures:
    history = run.history
    many = len(history[0]["member_costs"]) > 1
    thin = " Thin lines are single members." if many else ""
    shown = {
        "cost": Picture(
            plots.to_png(plots.cost(history, run.color)),
            f"Training cost by epoch: from {history[0]['cost']:.4f} to {history[-1]['cost']:.4f}.",
            f"How wrong the networks are on the {run.what}s they learn from, by epoch; lower is "
            f"better.{thin} The scale is logarithmic.",
        )
    }
    if all("ensemble" in row for row in history):
        together = [row["ensemble"] for row in history]
        first, last = (100 * row["validation_accuracy"] for row in (together[0], together[-1]))
        shown["validation_accuracy"] = Picture(
            plots.to_png(plots.validation(history, "accuracy", run.color)),
            f"Validation accuracy by epoch: from {first:.2f} % to {last:.2f} %.",
            f"The share of right answers on {run.what}s that are kept out of training.{thin}",
        )
        first, last = (row["validation_nll"] for row in (together[0], together[-1]))
        shown["validation_nll"] = Picture(
            plots.to_png(plots.validation(history, "nll", run.color)),
            f"Validation NLL by epoch: from {first:.4f} to {last:.4f} nats.",
            f"On the same {run.what}s, the mean negative log of the probability given to the right "
            f"answer: sure mistakes cost most; lower is better.{thin} The scale is logarithmic.",
        )
    return shown


def _sizes(run: Run) -> Pictures:
    rows = run.evaluation.results["sizes"]
    first, last = (rows[i][_RULE] for i in (0, -1))
    spread = (
        "Points are means over the ensembles that can be picked from these members, and bars their "
        "standard deviation: the luck of the choice, not an error bar for new members."
    )
    return {
        "size_accuracy": Picture(
            plots.to_png(plots.sizes(rows, "accuracy", run.color)),
            f"Test accuracy by number of members: {_percent(first['accuracy']['mean'])} % of one, "
            f"{_percent(last['accuracy']['mean'])} % of all {len(rows)} by mean probability.",
            f"Right answers of smaller and larger ensembles. {spread}",
        ),
        "size_nll": Picture(
            plots.to_png(plots.sizes(rows, "nll", run.color)),
            f"Test NLL by number of members: {first['nll']['mean']:.4f} of one, "
            f"{last['nll']['mean']:.4f} of all {len(rows)} by mean probability.",
            "The same for the negative log-likelihood; lower is better. Summed logits are surer of "
            "themselves the more members there are, so their NLL can rise.",
        ),
    }


def _certainty(run: Run) -> Pictures:
    results = run.evaluation.results
    row, curves = results["rules"][_RULE], results["curves"]
    single = len(run.loaded.members) == 1
    ece = f"ECE {_percent(row['before']['ece'])} %"
    if row["after"] is not None:
        ece += f" before and {_percent(row['after']['ece'])} % after temperature scaling"
    risk = curves[_RULE]["before"]["risk_coverage"]
    return {
        "reliability": Picture(
            plots.to_png(plots.reliability(curves[_RULE], run.color, run.what)),
            f"Reliability diagram: accuracy by confidence; {ece}.",
            f"Test {run.what}s are put in bins by the probability of the answer; of those answered "
            "with 80 %, 80 % should be right, on the grey line. Points above it: too modest; "
            f"below: too sure. Bars count the {run.what}s; pale points are of fewer than "
            f"{plots.FEW}, up to chance. {ece}.",
        ),
        "risk_coverage": Picture(
            plots.to_png(plots.risk_coverage(curves, single, run.color, run.what)),
            f"Risk-coverage curve: {_percent(risk[99])} % errors when all {run.what}s are "
            f"answered, {_percent(risk[89])} % when the tenth it is least sure of is refused.",
            f"The errors among the {run.what}s it still answers, when it may refuse those it is "
            "least sure of; a lower curve knows better when it is wrong. Where hardly any errors "
            f"are left, the axis is cut off. Answering all: {_percent(risk[99])} % errors; the "
            f"surest 90 %: {_percent(risk[89])} %.",
        ),
    }


def _wrong_sentences(run: Run) -> tuple[list[str], Pictures]:
    """The confusion matrix, and sentences with the words that decided marked."""
    logits, (tokens, labels) = run.evaluation.logits["test"], run.dataset.test
    names = run.dataset.class_names
    who = "the ensemble" if len(logits) > 1 else "the network"
    shown = _confusion(run)
    wrong = plots.wrong(logits, labels)
    some = f"; here are {MOST_WRONG}" if len(wrong) > MOST_WRONG else ""
    titles = {
        f"The {len(wrong):,} test sentences that {who} gets wrong{some}, the surest first.": wrong[
            :MOST_WRONG
        ],
        f"The right answers that {who} is least sure of.": plots.least_sure(
            logits, labels, LEAST_SURE
        ),
    }
    notes = [
        page.paragraph(
            "Words on blue speak for the answer that was given, words on vermilion against it, as "
            "much as the maxima over time that picked out their n-grams weigh in it; of several "
            "members it is the mean."
        )
    ]
    for title, numbers in titles.items():
        if not len(numbers):
            continue
        notes.append(page.paragraph(title))
        answers = np.asarray(logits[:, numbers].sum(axis=0).argmax(axis=-1))
        texts = plots.describe(logits, labels, numbers, names)
        vocabulary = run.loaded.trained_on.vocabulary
        found = marked.explain(run.loaded, tokens[numbers], answers, vocabulary)
        notes += [
            marked.as_html(one, f"{', '.join(lines)}.")
            for one, lines in zip(found, texts, strict=True)
        ]
    return notes, shown


def _wrong_moves(run: Run) -> list[str]:
    """Boards on which another move than the one played is thought likeliest."""
    logits, (inputs, labels) = run.evaluation.logits["test"], run.dataset.test
    assert isinstance(run.dataset, Positions)
    mean = np.exp(np.asarray(ensemble.mean_probability(logits)))
    figures = [
        boards.as_html(
            inputs[number],
            mean[number],
            int(labels[number]),
            boards.describe(mean[number], int(labels[number]), run.dataset.test_turns[number]),
        )
        for number in plots.wrong(logits, labels)[:MOST_BOARDS]
    ]
    about = (
        "Test positions in which it is surest of another move than the one that was played. Whose "
        "turn it is has the black stones; the likeliest moves are numbered in blue, and the one "
        "played has a ring of vermilion."
    )
    return [page.paragraph(about), f'<div class="pictures">{"".join(figures)}</div>']


def _confusion(run: Run) -> Pictures:
    names, what = run.dataset.class_names, run.what
    matrix = np.array(run.evaluation.results["curves"][_RULE]["confusion_matrix"])
    errors = [
        (matrix[i, j], f"{names[i]} for {names[j]} ({counted(int(matrix[i, j]), 'time')})")
        for i, j in np.ndindex(matrix.shape)
        if i != j and matrix[i, j]
    ]
    most = ", ".join(text for _, text in sorted(errors, key=lambda error: -error[0])[:3])
    limited = ""
    if len(matrix) > plots.MOST_CLASSES:
        limited = (
            f" Shown are the {plots.SHOWN_CLASSES} of {len(matrix)} classes that have the most "
            "mistakes as true class or as answer; the others are taken together, so that their "
            "diagonal number is also of mistakes among themselves."
        )
    how = f"How many test {what}s of each class (rows) got which answer (columns)."
    if most:
        how += " Grey numbers on the diagonal are right; mistakes are vermilion. "
        how += f"Most often it takes {most}."
    return {
        "confusion": Picture(
            plots.to_png(plots.confusion(matrix, names, what)),
            f"Confusion matrix of the test {what}s; most often: {most or 'no mistakes'}.",
            how + limited,
        )
    }


def _mistakes(run: Run) -> tuple[list[str], Pictures]:
    logits, (images, labels) = run.evaluation.logits["test"], run.dataset.test
    names = run.dataset.class_names
    who = "the ensemble" if len(logits) > 1 else "the network"
    votes = ""
    if len(logits) > 1:
        votes = f" The last line has the answers of the members ({len(logits)})."
    below = f"Below each: its number among the test images and its class; what {who} said.{votes}"
    shown = _confusion(run)
    wrong = plots.wrong(logits, labels)
    chosen = {
        "wrong": wrong[:MOST_WRONG],
        "least_sure": plots.least_sure(logits, labels, LEAST_SURE),
    }
    some = f"; here are {MOST_WRONG}" if len(wrong) > MOST_WRONG else ""
    titles = {
        "wrong": f"The {counted(len(wrong), 'test image')} that {who} gets wrong{some}, the surest "
        "first",
        "least_sure": f"The right answers that {who} is least sure of",
    }
    for kind, numbers in chosen.items():
        if not len(numbers):
            continue
        texts = plots.describe(logits, labels, numbers, names)
        draw = partial(plots.gallery, images[numbers], texts, titles[kind])
        shown[kind] = Picture(
            plots.to_png(draw()),
            f"{titles[kind]}: " + "; ".join(", ".join(lines) for lines in texts) + ".",
            below,
            narrow=plots.to_png(draw(narrow=True)),
        )
    notes = [] if len(wrong) else [page.paragraph(f"All answers of {who} are right.")]
    return notes, shown


def _features(run: Run) -> Pictures:
    """Of the first member of each network: its first filters, and what it makes of one image."""
    first = {member.network_name: member for member in reversed(run.loaded.members)}
    image, label = run.dataset.test.inputs[0], run.dataset.test.labels[0]
    what = f"test image 0, of class {run.dataset.class_names[label]}"
    signs = "Brown is positive, violet negative, white zero"
    shown = {}
    for name, member in first.items():
        maps = features.feature_maps(member.network, member.variables, image)
        kernels = features.first_filters(member.variables["params"], maps)
        height, width, channels, count = kernels.shape
        shown[f"filters_{name}"] = Picture(
            plots.to_png(plots.filters(kernels, member.name)),
            f"The {count} filters of {height} x {width} pixels of the first convolution of member "
            f"{member.name}.",
            f"The weights of the first convolution of member {member.name}"
            + (
                ", red, green and blue as such, each filter scaled to its own largest weight: grey "
                "is zero. A filter responds most to what looks like it."
                if channels == 3
                else f". {signs}: a filter responds where the image is light under brown and dark "
                "under violet."
            ),
        )
        names = [list(maps)[i] for i in plots.evenly(len(maps), MOST_LAYERS)]
        layers = {f"{key}{_joined(maps[key])}": maps[key].values for key in names}
        title = f"What {member.name} makes of {what}"
        some = f" Here are {len(names)} of {len(maps)}, evenly over the depth."
        shown[f"features_{name}"] = Picture(
            plots.to_png(plots.features(image, layers, title)),
            f"{title}, layer by layer: {', '.join(names)}.",
            "The output of each convolution, each pooling and each block of layers, one small "
            f"picture a channel, each layer to its own scale. {signs}; a relu that follows cuts "
            f"the negative off.{some if len(names) < len(maps) else ''}",
            narrow=plots.to_png(plots.features(image, layers, title, narrow=True)),
        )
    return shown


def _joined(maps: features.Maps) -> str:
    return f" ({maps.joined})" if maps.joined else ""


def _shifts(run: Run) -> tuple[list[str], Pictures]:
    results = run.evaluation.results["shifts"]
    if not results:
        command = f"python -m experiments.evaluate {run.loaded.workdir} --shift all"
        return [page.paragraph(f"Not evaluated; {command} adds them.")], {}
    worst = {
        name: _percent(rows[-1]["rules"][_RULE]["before"]["accuracy"])
        for name, rows in results.items()
    }
    scaled = next(iter(results.values()))[0]["rules"][_RULE]["after"] is not None
    same = " The temperature is the one fitted on clean images." if scaled else ""

    def draw(metric: str, narrow: bool = False) -> bytes:
        return plots.to_png(plots.shift_curves(results, metric, run.color, narrow))

    return [], {
        "shift_accuracy": Picture(
            draw("accuracy"),
            "Accuracy by strength of shift; at the strongest "
            + ", ".join(f"{name} {accuracy} %" for name, accuracy in worst.items())
            + ".",
            "Right answers on the test images made harder and harder, from left to right.",
            draw("accuracy", narrow=True) if len(results) > 1 else None,
        ),
        "shift_ece": Picture(
            draw("ece"),
            "Calibration error (ECE) by strength of shift.",
            f"How far stated probabilities are from how often they come true, on the same images; "
            f"lower is better.{same}",
            draw("ece", narrow=True) if len(results) > 1 else None,
        ),
    }


def _unfamiliar(run: Run) -> list[str]:
    """How well uncertainty tells images of something else, as a table."""
    results = run.evaluation.results["unfamiliar"]
    if not results:
        command = f"python -m experiments.evaluate {run.loaded.workdir} --unfamiliar FOLDER"
        return [page.paragraph(f"Not evaluated; {command} adds them.")]
    rows = dict(
        zip([member.name for member in run.loaded.members], results["members"], strict=True)
    )
    if len(rows) > 1:
        rows["ensemble"] = results["ensemble"]
    if results.get("mc_dropout"):
        rows["dropout on"] = results["mc_dropout"]
    scores = list(rows[list(rows)[-1]])
    head = ["told apart by: AUROC % / AUPR %", *(score.replace("_", " ") for score in scores)]
    table = [
        [name]
        + [
            f"{_percent(by[score]['auroc'])} / {_percent(by[score]['aupr'])}"
            if score in by
            else _NONE
            for score in scores
        ]
        for name, by in rows.items()
    ]
    about = (
        f"{counted(results['size'], run.what)} of something else from {results['source']} are "
        f"mixed with the test {run.what}s. AUROC is how often the uncertainty of an unfamiliar "
        f"{run.what} is the larger one of a pair (50 %: guessing); AUPR is the mean precision "
        f"(guessing: "
        f"{_percent(results['share'])} %)."
    )
    return [page.table(head, table), page.paragraph(about)]
