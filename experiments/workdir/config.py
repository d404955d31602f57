"""What a run is made of: `Config`, and the ready ones in `experiments/configs/`."""

import ast
import dataclasses
import inspect
import json
import shlex
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from types import UnionType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from experiments import configs
from mnist_jax import data
from mnist_jax.data import sentences
from mnist_jax.data.names import GAMES, PictureKind
from mnist_jax.go import rules
from mnist_jax.words import counted

Network = Literal[
    "simple",
    "deep",
    "layers",
    "fast",
    "lenet5",
    "convnetjs",
    "alexnet",
    "googlenet",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet56",
    "resnet101",
    "resnet110",
    "resnet152",
    "sentence",
    "policy",
]
Dataset = Literal[
    "auto",
    "mnist",
    "fashion_mnist",
    "kmnist",
    "qmnist",
    "emnist/byclass",
    "emnist/bymerge",
    "emnist/balanced",
    "emnist/letters",
    "emnist/digits",
    "emnist/mnist",
    "mnist5k",
    "cifar10",
    "cifar100",
    "imagenette/160px-v2",
    "imagenette/320px-v2",
    "opinions",
    "glue/sst2",
    "trec",
    "games9x9",
]

OnResume = Literal["forced", "free", "never"]  # how a field may change when a run goes on


def _option(default: Any, text: str, on_resume: OnResume = "forced") -> Any:
    return field(default=default, metadata={"help": text, "on_resume": on_resume})


class Kind(NamedTuple):
    """The members that are one network; they are trained as one stack."""

    network: str
    seeds: list[int]


@dataclass(frozen=True)
class Config:
    """One run; every field is a flag of `python -m experiments.run`.

    Raises:
        ValueError: a value out of range, naming the field.
    """

    network: Network = _option("simple", "the CNN each member is", "never")
    members: int | str = _option(
        1, "networks trained side by side; or NETWORK:N,NETWORK:N to mix them", "never"
    )
    seed: int = _option(0, "member i is made from seed + i")
    data_seed: int = _option(0, "shuffles the training images")
    shuffles: Literal["shared", "own"] = _option(
        "shared", "all members see the same batches, or each its own"
    )
    augment: Literal["none", "shift", "affine", "crop-flip", "handwriting", "symmetries"] = _option(
        "none",
        "shift: move each training image by up to 2 pixels; affine: also turn it by up to 10 "
        "degrees and scale it by up to 10 %; crop-flip: move it by up to an eighth of its side and "
        "mirror every second one; handwriting: make digits those of other hands and pens, and "
        "some of them no digits; symmetries: turn and mirror each board at random",
    )
    image_size: int | None = _option(
        None,
        "scale images to so many pixels a side, as the network needs, on the device; None: as they "
        "are",
        "never",
    )
    normalize: Literal["none", "mean", "standard"] = _option(
        "none",
        "mean: subtract each channel's mean over the training images; standard: also divide by its "
        "deviation, which ResNets expect",
        "never",
    )
    network_options: str | None = _option(
        None,
        "fields of the network's own, as shortcut=B (resnet20), dense=True (lenet5), or several as "
        "NAME=VALUE,NAME=VALUE",
        "never",
    )
    variant: Literal["rand", "static", "non-static", "multichannel"] = _option(
        "rand",
        "of sentence's word vectors: random; given by --vectors and fixed; given and trained; both",
        "never",
    )
    vectors: str | None = _option(
        None,
        "file of word vectors: GloVe's text, word2vec's text or binary format, .npz of words and "
        "vectors",
        "free",
    )
    dropout: float | None = _option(None, "probability of zero in dropout; None: the network's own")
    conv_stddev: float | None = _option(
        None, "initial standard deviation of deep's convolutions; None: 0.01"
    )
    epochs: int = _option(15, "passes over the training images", "free")
    batch_size: int = _option(100, "images a step")
    optimizer: Literal["adam", "sgd", "momentum", "adadelta"] = _option(
        "adam",
        "adam (eps 1e-8), sgd (Nesterov), momentum (plain, weight decay through it), or adadelta "
        "(rho 0.95, eps 1e-6; its learning rate is 1)",
        "never",
    )
    learning_rate: float = _option(0.001, "the optimizer's, or the largest of the schedule")
    schedule: Literal["constant", "cosine", "onecycle", "steps"] = _option(
        "constant",
        "of the learning rate over the run; steps: a tenth of it after half, and again after three "
        "quarters",
    )
    beta1: float = _option(0.9, "adam's decay of the mean gradient; sgd's and momentum's momentum")
    beta2: float = _option(0.999, "adam's decay of the mean squared gradient")
    weight_decay: float = _option(0.0, "decoupled; times the learning rate; of momentum: L2")
    ema: float | None = _option(
        None,
        "evaluate a moving average of the weights, of this decay a step, such as 0.999",
        "never",
    )
    snapshots: int = _option(
        1,
        "go through the schedule so often and keep the weights at each end as one more member",
        "never",
    )
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = _option(
        "auto",
        "of products; auto: the device's own (CPU float32, GPU tf32, TPU bfloat16); bfloat16: of "
        "all values but the weights",
    )
    dataset: Dataset = _option(
        "auto",
        "auto: what --data-dir holds; without it mnist, or mnist5k where that cannot be had; of "
        "sentences opinions, which come with this package",
    )
    data_dir: str | None = _option(
        None,
        "folder or file of IDX, CIFAR's, .npz, .csv, or pictures, also photographs of any size, in "
        "a folder a class; of sentences, of lines CLASS SENTENCE, a file a class (.pos, .neg), or "
        ".tsv or .csv with a header; None: MNIST_JAX_DATA, then TFDS",
        "free",
    )
    picture_kind: PictureKind = _option(
        "auto",
        "what pictures in folders show: characters, which become what MNIST's digits are, or "
        "photographs, which stay as they are; auto: told by their looks, or, of grey ones of 28 x "
        "28, by the classes' names",
    )
    encoding: str = _option("utf-8", "of files of sentences, such as cp1252 or latin-1")
    validation: int | None = _option(
        None,
        "training images kept for validation; None: the data's own, or 5,000, but a tenth at most",
    )
    folds: int = _option(
        1,
        "cross-validate: cut all inputs, test ones too, into so many folds, train a member on all "
        "but each, and test it there, at the epoch that a tenth of its training inputs chooses",
        "never",
    )
    repeats: int = _option(1, "cross-validate so often, with other folds each time", "never")
    devices: int | None = _option(
        None, "how many to use, of each process; None: all (on a CPU: each core)", "free"
    )
    data_parallel: int | None = _option(
        None, "devices that share one member's batch; None: devices // members", "free"
    )

    save_seconds: float = _option(
        60.0, "longest time between checkpoints; each epoch ends with one too", "free"
    )

    def __post_init__(self) -> None:
        least = {"save_seconds": 0, "seed": 0, "data_seed": 0, "epochs": 1, "batch_size": 1}
        least |= {"weight_decay": 0, "validation": 0, "devices": 1, "data_parallel": 1}
        least |= {"snapshots": 1, "image_size": 1, "folds": 1, "repeats": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and not value >= bound:
                raise ValueError(f"{name} must be at least {bound}, not {value}.")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be above 0, not {self.learning_rate}.")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), not {self.dropout}.")
        for name in ("beta1", "beta2", "ema"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), not {value}.")
        if self.epochs % self.snapshots:
            raise ValueError(
                f"snapshots must divide the {counted(self.epochs, 'epoch')}, which "
                f"{self.snapshots} does not."
            )
        if self.folds == 1 and self.repeats > 1:
            raise ValueError(f"repeats {self.repeats} needs --folds of 2 or more.")
        if self.folds > 1:
            self._check_folds()
        for name, count in self._counts().items():
            if count < 1:
                raise ValueError(f"members must be at least 1, not {self.members}.")
            if name not in get_args(Network):
                raise ValueError(f"members has {name!r}; there are {', '.join(get_args(Network))}.")
        _read_options(self.network_options)
        if self.seeds[-1] >= 2**32 or self.data_seed >= 2**32:
            raise ValueError("seed + members and data_seed must be below 2 ** 32.")

        self._check_inputs()

    def _check_folds(self) -> None:
        """See that no option means something else where there are folds."""
        if self.reads_positions:
            raise ValueError("folds would cut games in two; positions are split by game.")
        if not isinstance(self.members, int):
            raise ValueError(f"members must be of one network with --folds, not {self.members!r}.")
        for name, default in (("validation", None), ("snapshots", 1), ("normalize", "none")):
            if getattr(self, name) != default:
                raise ValueError(f"{name} cannot be chosen with --folds.")

    def _check_inputs(self) -> None:
        """See that the network, the data set and the options are of the same kind of inputs."""
        if len(self.kinds) > 1 and self.input_is != "image":
            raise ValueError(
                f"members must all read {self.input_is}s, or none, not {self.members}."
            )
        known = {
            "image": data.NAMES,
            "sentence": sentences.NAMES,
            "position": GAMES,
        }
        if self.dataset not in known[self.input_is]:
            raise ValueError(
                f"dataset {self.dataset} has no {self.input_is}s, which {self.kinds[0].network} "
                f"reads; of those are {', '.join(known[self.input_is])}."
            )
        if self.reads_sentences:
            if self.variant == "rand" and self.vectors is not None:
                raise ValueError("vectors are of no use to variant rand, whose own are random.")
            if self.variant != "rand" and self.vectors is None:
                raise ValueError(f"variant {self.variant} needs --vectors, a file of word vectors.")
        only = {
            "image": {"normalize": "none", "image_size": None, "picture_kind": "auto"},
            "sentence": {"variant": "rand", "vectors": None, "encoding": "utf-8"},
        }
        for what, fields in only.items():
            for name, default in fields.items():
                if what != self.input_is and getattr(self, name) != default:
                    raise ValueError(f"{name} is for networks of {what}s.")
        of_positions = self.augment == "symmetries"
        if self.augment != "none" and self.input_is != ("position" if of_positions else "image"):
            raise ValueError(f"augment {self.augment} is not for networks of {self.input_is}s.")

    def _counts(self) -> dict[str, int]:
        if isinstance(self.members, int):
            return {self.network: self.members}
        try:
            counts = [(name, int(n)) for name, n in (s.split(":") for s in self.members.split(","))]
        except ValueError:
            raise ValueError(
                f"members must be a whole number, or like simple:2,deep:3, not {self.members!r}."
            ) from None
        if len(dict(counts)) < len(counts):
            raise ValueError(f"members must have each network once, not {self.members!r}.")
        return dict(counts)

    @property
    def kinds(self) -> list[Kind]:
        """The members by network; seeds count on from one kind to the next.

        With folds, the members of the first fold come first, and so on for all repeats.
        """
        first, kinds = self.seed, []
        for network, in_a_fold in self._counts().items():
            count = in_a_fold * self.folds * self.repeats
            kinds.append(Kind(network, list(range(first, first + count))))
            first += count
        return kinds

    @property
    def seeds(self) -> list[int]:
        """One a member."""
        return [seed for kind in self.kinds for seed in kind.seeds]

    @property
    def networks(self) -> set[str]:
        """Their names."""
        return set(self._counts())

    @property
    def reads_sentences(self) -> bool:
        """Whether the networks take sentences, and not images."""
        return "sentence" in self.networks

    @property
    def reads_positions(self) -> bool:
        """Whether the networks take positions of Go."""
        return "policy" in self.networks

    @property
    def input_is(self) -> str:
        """What one input is, in a word."""
        if self.reads_positions:
            return "position"
        return "sentence" if self.reads_sentences else "image"

    @property
    def predict_takes(self) -> str:
        """What is given to `experiments.predict`, as a command line has it."""
        takes = {"image": "IMAGE ...", "sentence": '"A SENTENCE"', "position": "GAME.sgf"}
        return takes[self.input_is]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Those of the data set by its name; a folder may hold others."""
        if self.reads_positions:
            return tuple(rules.to_vertex(19, point) for point in range(19 * 19))
        if self.reads_sentences:
            known = sentences.CLASS_NAMES
            return known["opinions" if self.dataset == "auto" else self.dataset]
        return data.CLASS_NAMES["mnist" if self.dataset == "auto" else self.dataset]

    @property
    def options(self) -> dict[str, Any]:
        """The options of `models.create` that are set."""
        options: dict[str, Any] = {"dropout_rate": self.dropout, "conv_stddev": self.conv_stddev}
        options["dtype"] = "bfloat16" if self.precision == "bfloat16" else None
        options["image_size"] = self.image_size
        options["variant"] = self.variant if self.reads_sentences else None
        options |= _read_options(self.network_options)
        return {name: value for name, value in options.items() if value is not None}


def from_json(content: Any) -> Config:
    """The config that `config.json` holds.

    Raises:
        ValueError: something else, a field that there is none of, or a value of another kind than
            the field's or out of range.
    """
    if not isinstance(content, dict):
        raise ValueError(f"its fields must be an object, not {json.dumps(content)[:20]}.")
    kinds = get_type_hints(Config)
    for name, value in content.items():
        if name not in kinds:
            raise ValueError(f"it has a field {name!r}, as of another version of mnist_jax.")
        if not _is_of(value, kinds[name]):
            raise ValueError(f"{name} cannot be {json.dumps(value)}.")
    return Config(**content)


def _is_of(value: Any, kind: Any) -> bool:
    """Whether JSON's value is of a field's type."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if isinstance(kind, UnionType):
        return any(_is_of(value, one) for one in get_args(kind))
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float if kind is float else kind)


def _read_options(text: str | None) -> dict[str, Any]:
    """Numbers and True, False or None as such, anything else as words.

    Raises:
        ValueError: it is not of the form NAME=VALUE,NAME=VALUE, or has what is not an option.
    """
    options: dict[str, Any] = {}
    for part in text.split(",") if text else []:
        name, equals, value = part.partition("=")
        if not (name and equals and value):
            raise ValueError(f"network_options must be like shortcut=B,dense=True, not {text!r}.")
        if name in ("name", "num_classes", "parent"):
            raise ValueError(f"network_options has {name}, which is no option of a network.")
        if name in options:
            raise ValueError(f"network_options must have each option once, not {text!r}.")
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name] = value
    return options


def command_line(config: Config) -> str:
    """How it is trained: the flags of all fields that are not the default."""
    words = ["python", "-m", "experiments.run"]
    for option in dataclasses.fields(Config):
        value = getattr(config, option.name)
        if value != option.default:
            words += [f"--{option.name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def names() -> list[str]:
    """The ready configs' names."""
    return [module.name for module in iter_modules(configs.__path__)]


def get(name: str) -> tuple[Config, str]:
    """A ready config and its line of description."""
    module = import_module(f"experiments.configs.{name}")
    # From the source, since with PYTHONOPTIMIZE=2 there is no __doc__.
    return module.config, ast.get_docstring(ast.parse(inspect.getsource(module))) or ""
