"""The published networks in PyTorch, as its users write them."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.benchmarks.workloads import LEARNING_RATE, LEGAL, Published


def build(published: Published) -> nn.Module:
    """A workload's network, in channels_last."""
    makes: dict[str, Callable[[], nn.Module]] = {
        "lenet5": LeNet5,
        "alexnet": AlexNet,
        "googlenet": GoogLeNet,
        "resnet18": ResNet18,
        "resnet20": ResNet20,
        "policy": partial(Policy, *published.shape[1:], **published.options),
    }
    return makes[published.network]().to(memory_format=torch.channels_last)


def make_optimizer(published: Published, model: nn.Module) -> torch.optim.Optimizer:
    if published.optimizer == "momentum":
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    return torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)


class ScaledTanh(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.full((channels, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return 4 * F.avg_pool2d(x, 2) * self.coefficient + self.bias


class LeNet5(nn.Sequential):
    """With dense outputs, and C3 seeing all of S2: less to do than the paper's."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.ZeroPad2d(2), nn.Conv2d(1, 6, 5), ScaledTanh()),
            *(Subsampling(6), ScaledTanh()),
            *(nn.Conv2d(6, 16, 5), ScaledTanh()),
            *(Subsampling(16), ScaledTanh()),
            *(nn.Conv2d(16, 120, 5), ScaledTanh(), nn.Flatten()),
            *(nn.Linear(120, 84), ScaledTanh(), nn.Linear(84, 10)),
        )


def response_norm() -> nn.Module:
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)  # PyTorch's alpha is / size


class AlexNet(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(3, 96, 11, stride=4), nn.ReLU(inplace=True)),
            *(response_norm(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(96, 256, 5, padding=2), nn.ReLU(inplace=True)),
            *(response_norm(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(384, 384, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.MaxPool2d(3, 2), nn.Flatten()),
            *(nn.Linear(9216, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5)),
            *(nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5)),
            nn.Linear(4096, 10),
        )


def unit(channels: int, features: int, window: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, features, window, stride, window // 2)
    return nn.Sequential(convolution, nn.ReLU(inplace=True))


class Inception(nn.Module):
    """1x1; 3x3 behind 1x1; 5x5 behind 1x1; 1x1 behind a pool: side by side."""

    def __init__(self, channels: int, *sizes: int) -> None:
        super().__init__()
        only, three_in, three, five_in, five, pooled = sizes
        self.branches = nn.ModuleList(
            (
                unit(channels, only, 1),
                nn.Sequential(unit(channels, three_in, 1), unit(three_in, three, 3)),
                nn.Sequential(unit(channels, five_in, 1), unit(five_in, five, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), unit(channels, pooled, 1)),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def auxiliary_head(channels: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.AvgPool2d(5, 3), unit(channels, 128, 1), nn.Flatten()),
        *(nn.Linear(2048, 1024), nn.ReLU(inplace=True), nn.Dropout(0.7), nn.Linear(1024, 10)),
    )


class GoogLeNet(nn.Module):
    """Logits, and those of the two auxiliary heads."""

    def __init__(self) -> None:
        super().__init__()
        self.to_4a = nn.Sequential(
            *(unit(3, 64, 7, 2), nn.MaxPool2d(3, 2, ceil_mode=True), response_norm()),
            *(unit(64, 64, 1), unit(64, 192, 3)),
            *(response_norm(), nn.MaxPool2d(3, 2, ceil_mode=True)),
            Inception(192, 64, 96, 128, 16, 32, 32),
            Inception(256, 128, 128, 192, 32, 96, 64),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Inception(480, 192, 96, 208, 16, 48, 64),
        )
        self.to_4d = nn.Sequential(
            Inception(512, 160, 112, 224, 24, 64, 64),
            Inception(512, 128, 128, 256, 24, 64, 64),
            Inception(512, 112, 144, 288, 32, 64, 64),
        )
        self.rest = nn.Sequential(
            Inception(528, 256, 160, 320, 32, 128, 128),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Inception(832, 256, 160, 320, 32, 128, 128),
            Inception(832, 384, 192, 384, 48, 128, 128),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.4), nn.Linear(1024, 10)),
        )
        self.aux1, self.aux2 = auxiliary_head(512), auxiliary_head(528)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        after_4a = self.to_4a(x)
        after_4d = self.to_4d(after_4a)
        return self.rest(after_4d), self.aux1(after_4a), self.aux2(after_4d)


class Policy(nn.Module):
    """AlphaGo's; only legal moves have a probability."""

    def __init__(self, side: int, planes: int, filters: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(planes, filters, 5, padding=2), nn.ReLU(inplace=True)]
        for _ in range(11):
            layers += [nn.Conv2d(filters, filters, 3, padding=1), nn.ReLU(inplace=True)]
        self.trunk = nn.Sequential(*layers, nn.Conv2d(filters, 1, 1, bias=False), nn.Flatten())
        self.points = nn.Parameter(torch.zeros(side * side))

    def forward(self, planes: Tensor) -> Tensor:
        legal = planes[:, LEGAL].amax(dim=1).flatten(1)
        return self.trunk(planes) + self.points + (legal - 1) * 1e9


class Block(nn.Module):
    """Two 3x3 convolutions; the shortcut is filled up with zeros, or `projected`."""

    def __init__(self, channels: int, features: int, stride: int, projected: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, features, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)
        self.stride, self.missing = stride, features - channels
        self.downsample = None
        if projected and (stride > 1 or self.missing):
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, features, 1, stride, bias=False), nn.BatchNorm2d(features)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        if self.downsample:
            x = self.downsample(x)
        elif self.missing:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.missing))
        return F.relu(out + x, inplace=True)


def blocks(features: tuple[int, ...], number: int, projected: bool) -> list[nn.Module]:
    """Stages of so many blocks; all but the first begin with stride 2."""
    made: list[nn.Module] = []
    channels = features[0]
    for width in features:
        for i in range(number):
            stride = 2 if width > features[0] and i == 0 else 1
            made.append(Block(channels, width, stride, projected))
            channels = width
    return made


class ResNet20(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)),
            *blocks((16, 32, 64), 3, projected=False),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
        )


class ResNet18(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)),
            nn.MaxPool2d(3, 2, 1),
            *blocks((64, 128, 256, 512), 2, projected=True),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)),
        )
