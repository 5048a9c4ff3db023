"""Small convolutional networks whose groups are known."""

import torch
from torch import nn


class Residual(nn.Module):
    """x + f(x), with an activation behind the addition."""

    def __init__(self, width: int, inner: int, groups: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, width, 3, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x):
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + x).relu()


class ResNet(nn.Module):
    """A stem, two residual blocks and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layer1 = nn.Sequential(Residual(8, 6), Residual(8, 10))
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.layer1(self.stem(x).relu()).mean((2, 3)))


class SqueezeExcite(nn.Module):
    """Expand, depthwise, gate, project."""

    def __init__(self):
        super().__init__()
        self.expand = nn.Conv2d(3, 12, 1)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.fc1, self.fc2 = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.project = nn.Conv2d(12, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.depthwise(self.expand(x).relu()).relu()
        x = x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.head(self.project(x).mean((2, 3)))


class Concatenating(nn.Module):
    """Two branches, read together and flattened with their places."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 6, 1)
        self.norm = nn.BatchNorm2d(10)
        self.both = nn.Conv2d(10, 8, 3, stride=2, padding=1)
        self.fc1, self.fc2 = nn.Linear(8 * 16, 7), nn.Linear(7, 5)

    def forward(self, x):
        x = self.norm(torch.cat([self.a(x), self.b(x)], 1)).relu()
        return self.fc2(self.fc1(self.both(x).relu().flatten(1)).relu())


class Grouped(nn.Module):
    """A convolution in four groups between two others."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 1)
        self.conv2 = nn.Conv2d(16, 8, 3, groups=4)
        self.conv3 = nn.Conv2d(8, 6, 1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(self.conv3(self.conv2(self.conv1(x).relu()).relu()).mean((2, 3)))


class Halving(nn.Module):
    """Halves by ``chunk``: either loses as many channels as the other."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 1)
        self.left, self.right = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1)
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        left, right = self.conv1(x).chunk(2, 1)
        return self.fc(torch.cat([self.left(left), self.right(right)], 1).mean((2, 3)))


class Slicing(Halving):
    """Halves by a number that stands in the code: the first keeps all its channels."""

    def forward(self, x):
        x = self.conv1(x)
        left, right = self.left(x[:, :4]), self.right(x[:, 4:])
        return self.fc(torch.cat([left, right], 1).mean((2, 3)))


class Sorting(nn.Module):
    """Channels that an operator without a rule reads."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(self.conv2(self.conv1(x).sort(1).values).mean((2, 3)))


class Splitting(nn.Module):
    """Remembers the sizes by which it splits, beside a number that only looks like one."""

    def __init__(self):
        super().__init__()
        self.size, self.other = 6, 10
        self.conv1 = nn.Conv2d(3, 16, 1)
        self.small, self.large = nn.Conv2d(6, 4, 1), nn.Conv2d(10, 4, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        small, large = self.conv1(x).relu().split([self.size, self.other], 1)
        return self.fc(torch.cat([self.small(small), self.large(large)], 1).mean((2, 3)))


class Auxiliary(nn.Module):
    """A second classifier that only runs, and returns what it finds, in training mode."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1)
        self.extra, self.fc = nn.Linear(8, 5), nn.Linear(6, 5)

    def forward(self, x):
        x = self.conv1(x).relu()
        logits = self.fc(self.conv2(x).mean((2, 3)))
        return (logits, self.extra(x.mean((2, 3)))) if self.training else logits


class SignedStream(ResNet):
    """An activation behind the first addition that is no identity on what it meets."""

    def forward(self, x):
        return self.fc(self.layer1(self.stem(x)).mean((2, 3)))
