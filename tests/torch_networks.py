"""The published networks in PyTorch, by torchvision's names where it has them.

Written from the papers' tables, apart from the package's networks, to check those against. Images
are `[n, channels, height, width]`.
"""

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)  # on busy cores threads that wait for each other take longest

INCEPTIONS = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}
BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


def pixels_last(x):
    """Flattened in the order of height, width, channels."""
    return x.permute(0, 2, 3, 1).flatten(1)


def response_norm(x):
    return F.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0)  # PyTorch's alpha is / size


class AlexNet(nn.Module):
    def __init__(self, features, towers, num_classes=10):
        super().__init__()
        self.towers = towers
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=towers)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=towers)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=towers)
        self.fc6, self.fc7 = nn.Linear(features, 4096), nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, num_classes)

    def norm(self, x):
        return torch.cat([response_norm(part) for part in x.chunk(self.towers, 1)], 1)

    def forward(self, x):
        x = F.max_pool2d(self.norm(F.relu(self.conv1(255 * x))), 3, 2)
        x = F.max_pool2d(self.norm(F.relu(self.conv2(x))), 3, 2)
        x = F.relu(self.conv4(F.relu(self.conv3(x))))
        x = F.max_pool2d(F.relu(self.conv5(x)), 3, 2)
        return self.fc8(F.relu(self.fc7(F.relu(self.fc6(pixels_last(x))))))


class Unit(nn.Module):
    def __init__(self, channels, features, window, stride=1, batch_norm=False):
        super().__init__()
        options = {"stride": stride, "padding": window // 2, "bias": not batch_norm}
        self.conv = nn.Conv2d(channels, features, window, **options)
        self.bn = nn.BatchNorm2d(features, eps=1e-3) if batch_norm else nn.Identity()

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    def __init__(self, channels, one, three_in, three, five_in, five, pooled, batch_norm):
        super().__init__()

        def unit(channels, features, window):
            return Unit(channels, features, window, batch_norm=batch_norm)

        self.branch1 = unit(channels, one, 1)
        self.branch2 = nn.Sequential(unit(channels, three_in, 1), unit(three_in, three, 3))
        inner = 3 if batch_norm else 5
        self.branch3 = nn.Sequential(unit(channels, five_in, 1), unit(five_in, five, inner))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), unit(channels, pooled, 1))

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Head(nn.Module):
    """`fc1` takes channels before pixels, as torchvision's; `places` are those of a side."""

    def __init__(self, channels, num_classes, batch_norm, places):
        super().__init__()
        self.conv = Unit(channels, 128, 1, batch_norm=batch_norm)
        self.fc1 = nn.Linear(128 * places**2, 1024)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x):
        return self.fc2(F.relu(self.fc1(self.conv(F.avg_pool2d(x, 5, 3)).flatten(1))))


class GoogLeNet(nn.Module):
    def __init__(self, num_classes=10, batch_norm=False, heads=True, places=4):
        super().__init__()
        self.batch_norm, self.heads = batch_norm, heads
        self.conv1 = Unit(3, 64, 7, 2, batch_norm)
        self.conv2 = Unit(64, 64, 1, 1, batch_norm)
        self.conv3 = Unit(64, 192, 3, 1, batch_norm)
        for name, sizes in INCEPTIONS.items():
            setattr(self, f"inception{name}", Inception(*sizes, batch_norm))
        if heads:
            self.aux1 = Head(512, num_classes, batch_norm, places)
            self.aux2 = Head(528, num_classes, batch_norm, places)
        self.fc = nn.Linear(1024, num_classes)

    def forward(self, x):
        """Logits, and the heads' in training."""
        norm = nn.Identity() if self.batch_norm else response_norm

        def pool(x, window=3):
            return F.max_pool2d(x, window, 2, ceil_mode=True)

        x = self.conv2(norm(pool(self.conv1(x))))
        x = self.inception3b(self.inception3a(pool(norm(self.conv3(x)))))
        x = after_4a = self.inception4a(pool(x))
        x = after_4d = self.inception4d(self.inception4c(self.inception4b(x)))
        x = pool(self.inception4e(x), 2 if self.batch_norm else 3)
        x = self.inception5b(self.inception5a(x)).mean((2, 3))
        if not (self.training and self.heads):
            return self.fc(x)
        return self.fc(x), self.aux1(after_4a), self.aux2(after_4d)


class Block(nn.Module):
    def __init__(self, channels, features, stride, bottleneck, shortcut, stride_in):
        super().__init__()
        if bottleneck:
            first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
            sizes = [(features, 1, first), (features, 3, second), (4 * features, 1, 1)]
        else:
            sizes = [(features, 3, stride), (features, 3, 1)]
        self.layers, inputs = len(sizes), channels
        for i, (outputs, window, by) in enumerate(sizes, start=1):
            conv = nn.Conv2d(inputs, outputs, window, by, window // 2, bias=False)
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", nn.BatchNorm2d(outputs))
            inputs = outputs
        self.stride, self.missing = stride, inputs - channels
        self.downsample = None
        if shortcut == "B" and (stride > 1 or self.missing):
            conv = nn.Conv2d(channels, inputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(inputs))

    def forward(self, x):
        out = x
        for i in range(1, self.layers + 1):
            out = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out))
            out = F.relu(out) if i < self.layers else out
        if self.downsample is not None:
            return F.relu(out + self.downsample(x))
        zeros = x.new_zeros(len(x), self.missing, *out.shape[2:])
        return F.relu(out + torch.cat([x[:, :, :: self.stride, :: self.stride], zeros], 1))


class ResNet(nn.Module):
    def __init__(self, depth, channels=3, num_classes=10, shortcut="B", stride_in="1x1"):
        super().__init__()
        self.small = depth not in BLOCKS
        features = 16 if self.small else 64
        stem = (3, 1, 1) if self.small else (7, 2, 3)
        self.conv1 = nn.Conv2d(channels, features, *stem, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        blocks = BLOCKS.get(depth, ((depth - 2) // 6,) * 3)
        bottleneck = depth >= 50 and not self.small
        self.stages = len(blocks)
        inputs = features
        for stage, number in enumerate(blocks):
            width = features * 2**stage
            made = []
            for i in range(number):
                stride = 2 if stage and not i else 1
                made.append(Block(inputs, width, stride, bottleneck, shortcut, stride_in))
                inputs = 4 * width if bottleneck else width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*made))
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = x if self.small else F.max_pool2d(x, 3, 2, 1)
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(x.mean((2, 3)))
