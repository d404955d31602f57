"""PyTorch: channels_last, the data in memory as tensors, fused Adam, eager or `torch.compile`.

On the GPU where it sees one, else on the CPU.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.benchmarks.sides import fastest, pytorch_networks
from experiments.benchmarks.workloads import (
    BATCH,
    EPS,
    LEARNING_RATE,
    SIDE,
    Network,
    Published,
    Weights,
)


class PyTorch:
    """PyTorch's side."""

    def __init__(self, compiled: bool = False) -> None:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # On a GPU by CUDA graphs, which save most of the time of small kernels' launches.
        mode = "reduce-overhead" if self.device.type == "cuda" else "default"
        self.compile = partial(torch.compile, mode=mode) if compiled else lambda model: model

    def losses(
        self, network: Network, weights: Weights, images: np.ndarray, labels: np.ndarray
    ) -> list[float]:
        model = build(network, dropout=0.0).to(self.device)
        load(model, weights)
        optimizer = make_optimizer(model)
        model = self.compile(model)
        x, y = to_tensor(images).to(self.device), to_target(labels).to(self.device)
        batches = zip(x.split(BATCH), y.split(BATCH), strict=True)
        return [train_step(model, optimizer, *batch).item() for batch in batches]

    def trainer(
        self, network: Network, members: int, images: np.ndarray, labels: np.ndarray
    ) -> Callable[[int], None]:
        x, y = to_tensor(images).to(self.device), to_target(labels).to(self.device)
        models = [build(network, network.dropout).to(self.device) for _ in range(members)]
        optimizers = [make_optimizer(model) for model in models]
        models = [self.compile(model) for model in models]
        return self._steps(models, optimizers, x, y, shuffled(len(y), self.device))

    def published_trainer(
        self, published: Published, images: np.ndarray, labels: np.ndarray
    ) -> Callable[[int], None]:
        as_tensor = from_packed if published.inputs == "planes" else to_tensor
        x, y = as_tensor(images).to(self.device), to_target(labels).to(self.device)
        model = pytorch_networks.build(published).to(self.device)
        optimizer = pytorch_networks.make_optimizer(published, model)
        model = self.compile(model)
        batches = shuffled(len(y), self.device, published.batch)
        return self._steps([model], [optimizer], x, y, batches)

    def _steps(
        self,
        models: Sequence[nn.Module],
        optimizers: Sequence[torch.optim.Optimizer],
        x: Tensor,
        y: Tensor,
        batches: Iterator[Tensor],
    ) -> Callable[[int], None]:
        """Steps of each model, one after another; they are done when it returns."""

        def run(steps: int) -> None:
            for model, optimizer in zip(models, optimizers, strict=True):
                for _ in range(steps):
                    batch = next(batches)
                    train_step(model, optimizer, x[batch], y[batch])
            if self.device.type == "cuda":
                torch.cuda.synchronize()

        return run

    def predictor(
        self, network: Network, weights: Weights, images: np.ndarray
    ) -> Callable[[], np.ndarray]:
        model = build(network, network.dropout).to(self.device)
        load(model, weights)
        model = self.compile(model.eval())
        x = to_tensor(images).to(self.device)

        @torch.inference_mode()
        def run(batch: int) -> np.ndarray:
            return torch.cat([model(chunk).cpu() for chunk in x.split(batch)]).numpy()

        return fastest(run)

    def recipe(
        self, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
    ) -> Callable[[], float]:
        """One epoch to 99 %, by github.com/tuomaso/train_mnist_fast, its last notebook."""
        x, y = (to_tensor(train[0]) - 0.1307) / 0.3081, to_target(train[1])
        test_x, test_y = (to_tensor(test[0]) - 0.1307) / 0.3081, to_target(test[1])

        def run() -> float:
            model = build_fast()
            optimizer = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.7, 0.9), fused=True)
            batches = torch.randperm(len(y)).split(256)
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, max_lr=0.01, total_steps=len(batches), cycle_momentum=False
            )
            model = self.compile(model)
            for batch in batches:
                train_step(model, optimizer, x[batch], y[batch])
                schedule.step()
            model.eval()
            with torch.inference_mode():
                right = [
                    (model(images).argmax(1) == labels).sum()
                    for images, labels in zip(test_x.split(2000), test_y.split(2000), strict=True)
                ]
            return (sum(right) / len(test_y)).item()

        return run


def build(network: Network, dropout: float) -> nn.Module:
    layers: list[nn.Module] = []
    side, width = SIDE, 1
    for features in network.convolutions:
        layers += [
            nn.Conv2d(width, features, 3, padding=1, bias=network.conv_bias),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.ReLU(),
            nn.Dropout(dropout),
        ]
        side, width = -(-side // 2), features
    layers.append(nn.Flatten())
    width *= side * side
    for features in network.dense:
        layers += [nn.Linear(width, features), nn.ReLU(), nn.Dropout(dropout)]
        width = features
    layers.append(nn.Linear(width, 10))
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def build_fast() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 24, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(24, 32, 3),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(800, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    ).to(memory_format=torch.channels_last)


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, eps=EPS, fused=True)


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> Tensor:
    optimizer.zero_grad()
    outputs = model(images)
    logits, *heads = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = F.cross_entropy(logits, labels)
    for head in heads:  # GoogLeNet's
        loss = loss + 0.3 * F.cross_entropy(head, labels)
    loss.backward()
    optimizer.step()
    return loss


def shuffled(n: int, device: torch.device, batch: int = BATCH) -> Iterator[Tensor]:
    """Each epoch's batches, without end."""
    while True:
        yield from torch.randperm(n, device=device)[: n // batch * batch].split(batch)


def to_tensor(images: np.ndarray) -> Tensor:
    x = torch.tensor(images).permute(0, 3, 1, 2).float() / 255
    return x.contiguous(memory_format=torch.channels_last)


def from_packed(planes: np.ndarray) -> Tensor:
    """Of Go: a float a plane, which takes more memory and no time in a step."""
    bits = np.unpackbits(planes, axis=-1, bitorder="little")
    x = torch.tensor(bits).permute(0, 3, 1, 2).float()
    return x.contiguous(memory_format=torch.channels_last)


def to_target(labels: np.ndarray) -> Tensor:
    return torch.tensor(labels, dtype=torch.int64)


@torch.no_grad()
def load(model: nn.Module, weights: Weights) -> None:
    """HWIO to OIHW, [in, out] to [out, in]; the first dense layer's rows from HWC to CHW."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    channels = 0  # of the last convolution, until the first dense layer
    for layer, (kernel, bias) in zip(layers, weights, strict=True):
        if kernel.ndim == 4:
            channels = kernel.shape[-1]
            layer.weight.copy_(torch.tensor(kernel).permute(3, 2, 0, 1))
        else:
            rows = torch.tensor(kernel)
            if channels:
                rows = rows.reshape(-1, channels, rows.shape[1]).transpose(0, 1).flatten(0, 1)
                channels = 0
            layer.weight.copy_(rows.T)
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
