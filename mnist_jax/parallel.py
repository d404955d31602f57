"""Devices: the only file that knows about them.

Devices form a grid of groups x data: each group trains its own members, and the devices of one
group share each batch and add up their gradients. Functions here take and return values whose
device axis the caller never looks at: `init` or `place` make a state, `compile_train` and
`make_predict` work on it, `gather` gives it back as `[members, ...]`.

With several processes (`connect`) the grid is made of the devices of all of them. Every process
runs the same program on the same data and ends with the same results.
"""

import functools
import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.experimental import multihost_utils

from mnist_jax import data, ensemble, platforms, training
from mnist_jax.augment import Augment
from mnist_jax.training import Decode, Share, TrainState
from mnist_jax.words import counted

_Result = TypeVar("_Result")

_AXIS = "devices"
_DEVICE_COUNT_FLAG = "xla_force_host_platform_device_count"
# Inputs in a batch, and numbers in them, at most: 16 and 132 images of 224 x 224 x 3.
_PREDICT_BATCH = {"cpu": (100, 2_500_000)}  # XLA's choices for 40 or 50 images take twice as long
_PREDICT_BATCH_ACCELERATOR = (1000, 20_000_000)
_PREDICT_BLOCKS = 25  # batches in one call, where there are as many
_PREDICT_SOME = 16  # in a smaller batch, which takes less than one that is hardly filled
_PREDICT_FEW = 8  # so many inputs a device are predicted one by one
_MOST_PROGRAMS = 32  # a training and its prediction are five or six
_CONNECT_SECONDS = 120
_SILENCE_SECONDS = 30  # then a process counts as lost


def as_written(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """With 32 bits and compiled, also where the caller has JAX's x64 mode on or its jit off."""

    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> _Result:
        with jax.enable_x64(False), jax.disable_jit(False):
            return function(*args, **options)

    return wrapped


class Predict(Protocol):
    """What `make_predict` gives."""

    def __call__(
        self, variables: Any, inputs: np.ndarray, dropout_seed: int | None = None
    ) -> np.ndarray:
        """Logits of every member.

        Args:
            variables: of `training.evaluated`, or a state's `params` alone, on the devices.
            inputs: as the data set stores them, such as images, uint8 or float32 in [0, 1],
                `[n, height, width, channels]`, on the host.
            dropout_seed: predict with dropout as in training, by masks from this seed (Gal and
                Ghahramani 2016: each such pass is a sample of a posterior).

        Returns:
            float32 `[members, n, classes]`, on the host.

        Raises:
            TypeError, ValueError: inputs that `data.check` refuses.
        """


def use_cpu_cores(count: int | None = None, members: int = 1) -> None:
    """Make CPU cores JAX devices, which is what lets pmap fill them all.

    Call it before JAX touches a device. It does nothing to GPUs and TPUs.

    Args:
        count: how many devices; default one a core. Members that do not divide evenly over the
            cores get a device each, up to 8 a core: the system then keeps all cores at work, where
            some would wait for the one with a member more. Each device has a copy of the data.
        members: that are to be trained.

    Raises:
        ValueError: `count` or `members` below 1.
        RuntimeError: JAX has started its backends with another number of CPU devices already.
    """
    for name, value in (("count", count), ("members", members)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}.")
    cores = cpu_cores()
    uneven = cores < members <= 8 * cores and members % cores
    jax.config.update("jax_num_cpu_devices", count or (members if uneven else cores))


def cpu_cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def each_core_is_a_device() -> bool:
    """Whether this process has as many CPU devices as cores, as after `use_cpu_cores`."""
    return len(jax.local_devices(backend="cpu")) >= cpu_cores()


def claim_cpu_cores(members: int = 1) -> None:
    """`use_cpu_cores` for a caller who did not think of it, where it is not too late.

    It does nothing where the number of CPU devices was chosen: by `jax_num_cpu_devices` or XLA's
    flag.

    Warns:
        UserWarning: once, that JAX has started with fewer CPU devices than there are cores.
    """
    _check_not_forked()
    flags = os.environ.get("XLA_FLAGS", "")
    chosen = jax.config.values["jax_num_cpu_devices"] != -1 or _DEVICE_COUNT_FLAG in flags
    if not chosen and not has_started():
        use_cpu_cores(members=members)
    elif not chosen and platforms.likely() == "cpu" and not each_core_is_a_device():
        _hint_at_cores()


@functools.cache  # once a process
def _hint_at_cores() -> None:
    warnings.warn(
        f"JAX has started already, with one CPU device for {cpu_cores()} cores, which makes "
        "training several times slower. Call mnist_jax.parallel.use_cpu_cores() before anything "
        "else of JAX.",
        stacklevel=4,
    )


def has_started() -> bool:
    """Whether JAX has looked for its devices, whose number stays the same from then on."""
    before = jax.config.values["jax_num_cpu_devices"]
    try:
        jax.config.update("jax_num_cpu_devices", 2 if before == 1 else 1)  # refused after the start
    except RuntimeError:
        return True
    jax.config.update("jax_num_cpu_devices", before)
    return False


_forked = False  # from a process in which JAX had started


def _note_fork() -> None:
    global _forked
    _forked = has_started()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def _check_not_forked() -> None:
    """Say what is wrong where JAX would wait for ever for threads that a fork does not have."""
    if _forked:
        raise RuntimeError(
            "This process was forked from one in which JAX had started, and JAX cannot work in it. "
            'Start processes by multiprocessing.get_context("spawn"), or by joblib with its '
            "default backend, loky; or fork before JAX does anything."
        )


def use_precision(name: str) -> None:
    """Choose the precision of float32 matrix products, for the whole process.

    Args:
        name: `"float32"` or `"tf32"`; anything else leaves the device its default: float32 on
            CPUs, TF32 on GPUs, bfloat16 on TPUs.
    """
    jax.config.update(
        "jax_default_matmul_precision",
        {"float32": "highest", "tf32": "tensorfloat32"}.get(name),
    )


def connect(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Make this process one of several that train together, before JAX touches a device.

    Args:
        coordinator: `host:port` of process 0; with None JAX finds all three itself, on Cloud TPU
            and Slurm.
        num_processes: how many there are.
        process_id: which of them this is, from 0.

    Raises:
        ValueError: arguments that make no sense, or None where JAX finds no cluster.
        RuntimeError: the others do not answer.
    """
    if coordinator is not None:
        if num_processes is None or num_processes < 1:
            raise ValueError(f"num_processes must be at least 1, not {num_processes}.")
        if process_id is None or not 0 <= process_id < num_processes:
            raise ValueError(f"process_id must be from 0 to {num_processes - 1}, not {process_id}.")
    jax.distributed.initialize(
        coordinator,
        num_processes,
        process_id,
        initialization_timeout=_CONNECT_SECONDS,
        heartbeat_timeout_seconds=_SILENCE_SECONDS,
        shutdown_timeout_seconds=_SILENCE_SECONDS,
    )


def is_lead() -> bool:
    """Whether this is the process that writes and prints: the first, or the only one."""
    return jax.process_index() == 0


def agree(value: int) -> int:
    """The largest of all processes' values, 0 or above: a signal to one is a signal to all."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int32(value)).max())


def first_devices(count: int | None = None) -> list[jax.Device]:
    """The first `count` devices of each process, or all; process by process.

    Raises:
        ValueError: `count` below 1, or a process has fewer.
        RuntimeError: this process was forked from one in which JAX had started.
    """
    _check_not_forked()
    by_process: dict[int, list[jax.Device]] = {}
    for device in jax.devices():
        by_process.setdefault(device.process_index, []).append(device)
    fewest = min(len(devices) for devices in by_process.values())
    if count is not None and not 1 <= count <= fewest:
        raise ValueError(f"devices must be from 1 to the {fewest} there are, not {count}.")
    return [device for i in sorted(by_process) for device in by_process[i][:count]]


@dataclass(frozen=True)
class Layout:
    """Which device trains which members on which part of a batch; made by `plan`."""

    devices: tuple[jax.Device, ...]  # group by group
    groups: int
    data: int  # devices in a group
    members: int

    @property
    def slots(self) -> int:
        """Members on one device; spare slots at the end train repeated members in vain."""
        return -(-self.members // self.groups)


def plan(
    members: int, devices: Sequence[jax.Device] | None = None, data: int | None = None
) -> Layout:
    """Lay members out over devices.

    Args:
        members: how many.
        devices: as `first_devices` gives them; default all.
        data: how many devices share one batch; by default as many as there are for each member.
            Some devices stay idle where their number is no multiple of it.

    Raises:
        ValueError: `members` or `data` below 1, `data` above the number of devices or, with
            several processes, no divisor of it.
    """
    if members < 1:
        raise ValueError(f"members must be at least 1, not {members}.")
    devices = tuple(first_devices() if devices is None else devices)
    several = devices[0].process_index != devices[-1].process_index
    if data is None:
        data = max(1, len(devices) // members)
        while several and len(devices) % data:
            data -= 1
    if not 1 <= data <= len(devices):
        raise ValueError(
            f"data must be from 1 to the {counted(len(devices), 'device')}, not {data}."
        )
    if several and len(devices) % data:
        raise ValueError(
            f"data must divide the {counted(len(devices), 'device')}, which {data} does not."
        )
    groups = len(devices) // data
    if not several:  # no process may be without a device
        groups = -(-members // -(-members // groups))
    return Layout(devices[: groups * data], groups, data, members)


def _pmap(layout: Layout, function: Callable, **options: Any) -> Any:
    def on_device(*args: Any) -> Any:
        with platforms.known(layout.devices[0].platform):
            return function(*args)

    # One axis name for all: arrays of another name are another sharding, and compile anew.
    return jax.pmap(on_device, axis_name=_AXIS, devices=layout.devices, **options)


_programs: dict[tuple, Any] = {}  # mapped functions, by what `_program` made them of


def _program(make: Callable[..., Any], layout: Layout, *parts: Any) -> Any:
    """`make(layout, *parts)`, the same mapped function for equal arguments.

    So JAX compiles it once for the same shapes. JAX never lets go of what it has compiled for a
    mapped function; so when there are too many, all that is compiled in this process is dropped.
    """
    key = (make, layout, *parts, os.environ.get("MNIST_JAX_KERNELS"))
    try:
        program = _programs.get(key)
    except TypeError:  # a network with a list in a field, say, is like no other
        key, program = (object(),), None
    if program is None:
        if len(_programs) >= _MOST_PROGRAMS:
            _programs.clear()
            jax.clear_caches()
        program = _programs[key] = make(layout, *parts)
    return program


def _here(layout: Layout) -> np.ndarray:
    """Which of the layout's devices are this process's; it maps over these only."""
    _check_not_forked()
    mine = [device.process_index == jax.process_index() for device in layout.devices]
    return np.flatnonzero(mine)


def _spread(layout: Layout, tree: Any) -> Any:
    """`[members, ...]` on the host to `[devices here, slots, ...]`; spare slots repeat members."""
    slot_member = np.arange(layout.groups * layout.slots) % layout.members
    by_group = slot_member.reshape(layout.groups, layout.slots)
    by_device = np.repeat(by_group, layout.data, axis=0)[_here(layout)]
    return jax.tree.map(lambda leaf: np.asarray(leaf)[by_device], tree)


def _from_all(layout: Layout, on_devices: Array) -> np.ndarray:
    """`[devices here, ...]` to `[devices, ...]` on the host."""
    # Another array of the same buffers: JAX keeps the copy made here as long as the array lives.
    parts = [shard.data for shard in on_devices.addressable_shards]
    here = np.asarray(
        jax.make_array_from_single_device_arrays(on_devices.shape, on_devices.sharding, parts)
    )
    if len(here) == len(layout.devices):
        return here
    return multihost_utils.process_allgather(here).reshape(-1, *here.shape[1:])


def _shards(layout: Layout) -> np.ndarray:
    """The place of each device here among those that share its batch."""
    return np.tile(np.arange(layout.data, dtype=np.int32), layout.groups)[_here(layout)]


@as_written
def replicate(layout: Layout, array: np.ndarray) -> Array:
    """One copy of an array on each device."""
    return _program(_map_replicate, layout)(_shards(layout), array)


def _map_replicate(layout: Layout) -> Any:
    return _pmap(layout, lambda _, x: x, in_axes=(0, None))


@as_written
def init(
    layout: Layout,
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    seeds: Sequence[int],
    input_: jax.ShapeDtypeStruct = training.IMAGE,
) -> TrainState:
    """All members' states before their first step, one a seed, made on the devices.

    `input_` is what `training.input_of` says of the data.
    """
    program = _program(_map_init, layout, network, optimizer, input_)
    return program(_spread(layout, np.asarray(seeds, np.uint32)))


def _map_init(
    layout: Layout,
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    input_: jax.ShapeDtypeStruct,
) -> Any:
    def on_device(seeds: Array) -> TrainState:
        return ensemble.init_state(network, optimizer, seeds, input_)

    return _pmap(layout, on_device)


@as_written
def place(layout: Layout, state: Any) -> Any:
    """Put a stacked state `[members, ...]` on the devices."""
    return _on_devices(layout, _spread(layout, state))


def _on_devices(layout: Layout, spread: Any) -> Any:
    """Put `[devices here, ...]` on the devices."""
    return _program(_map_identity, layout)(spread)


def _map_identity(layout: Layout) -> Any:
    return _pmap(layout, lambda x: x)


@as_written
def gather(layout: Layout, state: Any) -> Any:
    """Bring a state back to the host as NumPy arrays `[members, ...]`."""

    def leaf(on_devices: Array) -> np.ndarray:
        groups = _from_all(layout, on_devices)[:: layout.data]
        return groups.reshape(-1, *groups.shape[2:])[: layout.members]

    return jax.tree.map(leaf, state)


def member(layout: Layout, tree: Any, i: int) -> Any:
    """One member's part of a state, copied on the (first) device that trains it.

    Such a copy stays when the state's own buffers are used up. Of members of this process only.
    """
    group, slot = divmod(i, layout.slots)
    return jax.tree.map(
        lambda leaf: leaf.addressable_shards[group * layout.data].data[0, slot], tree
    )


@as_written
def sum_of_squares(layout: Layout, params: Any) -> np.ndarray:
    """Of each member's weights, float32 `[members]`: what weight decay is about."""
    return gather(layout, _program(_map_sum_of_squares, layout)(params))


def _map_sum_of_squares(layout: Layout) -> Any:
    def one_member(params: Any) -> Array:
        sums = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params)]
        return jnp.sum(jnp.stack(sums))

    return _pmap(layout, jax.vmap(one_member))


@as_written
def compile_train(
    layout: Layout,
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    seeds: Sequence[int],
    state: TrainState,
    inputs: Array,
    labels: Array,
    batch_size: int,
    steps: int,
    own_batches: bool = False,
    augment: Augment | None = None,
    input_weights: Array | None = None,
    decode: Decode = training.to_float,
) -> Callable[[TrainState, Array, Array, np.ndarray], tuple[TrainState, Array]]:
    """Compile the training of all members on all devices for some steps, or find it compiled.

    Args:
        seeds: one a member.
        state: from `init` or `place`; looked at for its shapes.
        inputs, labels: from `replicate`; looked at for their shapes.
        own_batches: each member has its own.
        augment: from `augment.create`.
        input_weights: of each input in the loss, float32 `[n]`, from `replicate`; default 1.
        decode: makes stored inputs into those of the network.

    Returns:
        A function of the state (its buffers are used up), inputs, labels, and int32 batches
        `[steps, batch_size]` or, with `own_batches`, `[members, steps, batch_size]`. It gives the
        new state and the losses, which `gather` brings back as `[members, steps]`.
    """
    of_this_size = (inputs.shape, inputs.dtype, steps)  # each is a program of its own
    options = own_batches, augment, decode
    mapped = _program(_map_train, layout, network, optimizer, batch_size, *options, of_this_size)
    spread_seeds = place(layout, np.asarray(seeds, np.uint32))
    shards = _on_devices(layout, _shards(layout))

    def on_each_device(batches: np.ndarray) -> np.ndarray:
        return _spread(layout, batches) if own_batches else batches

    empty = np.zeros((steps, batch_size), np.int32)
    batches = on_each_device(np.stack([empty] * layout.members) if own_batches else empty)
    compiled = mapped
    if jax.process_count() == 1:  # else pmap cannot compile ahead, and the first call does it
        lowered = mapped.lower(state, spread_seeds, shards, inputs, labels, batches, input_weights)
        compiled = lowered.compile()

    @as_written
    def train(
        state: TrainState, inputs: Array, labels: Array, batches: np.ndarray
    ) -> tuple[TrainState, Array]:
        mine = on_each_device(batches)
        return compiled(state, spread_seeds, shards, inputs, labels, mine, input_weights)

    return train


def _map_train(
    layout: Layout,
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    own_batches: bool,
    augment: Augment | None,
    decode: Decode,
    of_this_size: Any,
) -> Any:
    width = -(-batch_size // layout.data)
    groups = np.arange(len(layout.devices)).reshape(layout.groups, layout.data).tolist()
    if layout.data > 1 and hasattr(network, "axis_name"):  # it goes by the whole batch's statistics
        network = network.clone(
            axis_name=_AXIS, axis_index_groups=tuple(tuple(group) for group in groups)
        )

    def sum_over_shards(tree: Any) -> Any:
        return lax.psum(tree, _AXIS, axis_index_groups=groups) if layout.data > 1 else tree

    def on_device(
        state: TrainState,
        seeds: Array,
        shard: Array,
        inputs: Array,
        labels: Array,
        batches: Array,
        input_weights: Array | None,
    ) -> tuple[TrainState, Array]:
        # A batch that does not divide evenly is filled up with inputs of weight 0.
        missing = width * layout.data - batch_size
        filled = jnp.pad(batches, [(0, 0)] * (batches.ndim - 1) + [(0, missing)])
        mine = lax.dynamic_slice_in_dim(filled, shard * width, width, axis=-1)
        weights = (shard * width + jnp.arange(width) < batch_size) / batch_size
        share = Share(inputs, labels, mine, weights, shard, input_weights)
        return ensemble.train_epoch(
            network, optimizer, state, seeds, share, sum_over_shards, augment, decode
        )

    batch_axis = 0 if own_batches else None
    return _pmap(layout, on_device, in_axes=(0, 0, 0, 0, 0, batch_axis, 0), donate_argnums=0)


def predict_batch(layout: Layout, network: nn.Module, input_shape: tuple[int, ...]) -> int:
    """How many inputs a member predicts at once, where there are many."""
    platform = layout.devices[0].platform
    inputs, numbers = _PREDICT_BATCH.get(platform, _PREDICT_BATCH_ACCELERATOR)
    side = getattr(network, "image_size", None)  # to which the network scales images
    seen = input_shape if side is None else (side, side, input_shape[-1])
    return max(1, min(inputs, numbers // math.prod(seen)))


def make_predict(layout: Layout, network: nn.Module, decode: Decode = training.to_float) -> Predict:
    """Prediction by all members on all devices, compiled once for each of four numbers of inputs.

    `decode` makes stored inputs into those of the network.
    """
    mapped = _program(_map_predict, layout, network, decode)

    def predict_blocks(
        variables: Any, blocks: np.ndarray, dropout_seed: int | None, place: int
    ) -> np.ndarray:
        """Logits of `[data, blocks, batch, ...]`, the inputs from a place on."""
        seeds = np.array([dropout_seed or 0, place], np.uint32)
        use_dropout = dropout_seed is not None
        mine = blocks[_shards(layout)]
        logits = _from_all(layout, mapped(variables, mine, _here(layout), seeds, use_dropout))
        logits = logits.reshape(layout.groups, layout.data, *logits.shape[1:])
        members, classes = layout.groups * layout.slots, logits.shape[-1]
        return logits.swapaxes(1, 2).reshape(members, -1, classes)[: layout.members]

    @as_written
    def predict(variables: Any, inputs: np.ndarray, dropout_seed: int | None = None) -> np.ndarray:
        data.check(inputs)
        batch = predict_batch(layout, network, inputs.shape[1:])
        logits, place = [], 0
        for length in _predict_lengths(layout, batch, len(inputs)):
            chunk = inputs[place : place + length * layout.data]
            missing = length * layout.data - len(chunk)
            if missing:
                chunk = np.pad(chunk, ((0, missing), *((0, 0),) * (inputs.ndim - 1)))
            blocks = chunk.reshape(layout.data, -1, min(batch, length), *inputs.shape[1:])
            logits.append(predict_blocks(variables, blocks, dropout_seed, place))
            place += len(chunk)
        return np.concatenate(logits, axis=1)[:, : len(inputs)]

    return predict


def _predict_lengths(layout: Layout, batch: int, n: int) -> list[int]:
    """How many of `n` inputs a device predicts in each call.

    One input is quick, some are hardly more than there are, and many need few calls.
    """
    by_device = -(-n // layout.data)
    if by_device <= _PREDICT_FEW:
        return [1] * by_device
    if by_device <= 4 * _PREDICT_SOME or batch <= _PREDICT_SOME:
        some = min(batch, _PREDICT_SOME)
        return [some] * -(-by_device // some)
    calls, rest = divmod(by_device, _PREDICT_BLOCKS * batch)
    return [_PREDICT_BLOCKS * batch] * calls + [batch] * -(-rest // batch)


def _map_predict(layout: Layout, network: nn.Module, decode: Decode) -> Any:
    def on_device(
        variables: Any, blocks: Array, device: Array, seeds: Array, use_dropout: bool
    ) -> Array:
        def one_member(variables: Any, inputs: Array, key: Array) -> Array:
            rngs = {"dropout": key} if use_dropout else None
            decoded = decode(inputs)
            return training.apply(network, variables, decoded, train=use_dropout, rngs=rngs)

        def all_members(block: tuple[Array, Array]) -> Array:
            inputs, keys = block
            return ensemble.map_members(
                lambda variables, key: one_member(variables, inputs, key), variables, keys
            )

        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seeds[0]), seeds[1]), device)
        keys = jax.random.split(key, (len(blocks), layout.slots))
        logits = lax.map(all_members, (blocks, keys))  # [blocks, slots, batch, classes]
        return logits.swapaxes(0, 1).reshape(logits.shape[1], -1, logits.shape[-1])

    return _pmap(layout, on_device, in_axes=(0, 0, 0, None), static_broadcasted_argnums=4)


class PredictOwn(Protocol):
    """What `make_predict_own` gives."""

    def __call__(self, variables: Any, inputs: Array, places: np.ndarray) -> np.ndarray:
        """Logits of every member, of inputs of its own.

        Args:
            variables: as of `Predict`.
            inputs: `[n, ...]` from `replicate`.
            places: int32 `[members, m]`, which of them each member predicts.

        Returns:
            float32 `[members, m, classes]`, on the host.
        """


def make_predict_own(
    layout: Layout, network: nn.Module, decode: Decode = training.to_float
) -> PredictOwn:
    """Prediction by each member of inputs of its own, as of folds; arguments of `make_predict`."""
    mapped = _program(_map_predict_own, layout, network, decode)

    @as_written
    def predict(variables: Any, inputs: Array, places: np.ndarray) -> np.ndarray:
        batch = predict_batch(layout, network, inputs.shape[2:])  # behind devices and inputs
        blocks = np.pad(places, ((0, 0), (0, -places.shape[1] % batch)))
        blocks = blocks.reshape(len(places), -1, batch).astype(np.int32)
        logits = gather(layout, mapped(variables, inputs, _spread(layout, blocks)))
        return logits.reshape(len(places), -1, logits.shape[-1])[:, : places.shape[1]]

    return predict


def _map_predict_own(layout: Layout, network: nn.Module, decode: Decode) -> Any:
    def on_device(variables: Any, inputs: Array, places: Array) -> Array:
        def one_member(variables: Any, blocks: Array) -> Array:
            def one_block(block: Array) -> Array:
                return training.apply(network, variables, decode(inputs[block]))

            return lax.map(one_block, blocks)

        return ensemble.map_members(one_member, variables, places)

    return _pmap(layout, on_device)


def lower_train(
    layout: Layout,
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    images: tuple[int, ...],
    batch_size: int,
    steps: int,
) -> jax.stages.Lowered:
    """What `compile_train` compiles, by shapes alone: the layout's devices need not be here.

    Args:
        images: the shape of the training set, `[n, height, width, channels]`, of uint8 pixels.
    """
    state, seeds = _shapes(layout, network, optimizer, images[1:])
    arrays = [((), np.int32), (images, np.uint8), (images[:1], np.int32)]
    on_devices = [_on_each(layout, *array) for array in arrays]
    batches = jax.ShapeDtypeStruct((steps, batch_size), np.int32)
    mapped = _map_train(
        layout, network, optimizer, batch_size, False, None, training.to_float, None
    )
    return mapped.lower(state, seeds, *on_devices, batches, None)


def lower_predict(
    layout: Layout, network: nn.Module, image: tuple[int, ...], blocks: int = _PREDICT_BLOCKS
) -> jax.stages.Lowered:
    """What `make_predict` compiles for many images, as `lower_train`; `image` is `[28, 28, 1]`."""
    batch = predict_batch(layout, network, image)
    state, _ = _shapes(layout, network, optax.identity(), image)
    images = _on_each(layout, (blocks, batch, *image), np.uint8)
    places = _on_each(layout, (), np.int32)
    seeds = jax.ShapeDtypeStruct((2,), np.uint32)
    mapped = _map_predict(layout, network, training.to_float)
    return mapped.lower(training.evaluated(state), images, places, seeds, False)


def _shapes(
    layout: Layout,
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    image: tuple[int, ...],
) -> tuple[TrainState, jax.ShapeDtypeStruct]:
    """Of all devices' states and seeds, `[devices, slots, ...]`."""
    input_ = jax.ShapeDtypeStruct(image, jnp.float32)
    init = functools.partial(ensemble.init_state, network, optimizer, input_=input_)
    state = jax.eval_shape(init, np.zeros(layout.slots, np.uint32))
    return (
        jax.tree.map(lambda leaf: _on_each(layout, leaf.shape, leaf.dtype), state),
        _on_each(layout, (layout.slots,), np.uint32),
    )


def _on_each(layout: Layout, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((len(layout.devices), *shape), dtype)
