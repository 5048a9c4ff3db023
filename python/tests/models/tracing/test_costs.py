import pytest
import torch
from small_networks import Grouped, SqueezeExcite
from torch import nn

from agflow.models.costs import Product, size
from agflow.models.counting import counted_macs
from agflow.models.tracing.network import traced_network


def products(model):
    return {product.name: product for product in traced_network(model, (3, 8, 8)).costs.products}


def test_convolutions_with_their_kernels_strides_and_groups():
    found = products(SqueezeExcite().eval())
    assert found["depthwise"] == Product(
        "convolution",
        "depthwise",
        size("expand"),
        rows=64,
        inputs=size(1),
        bias=True,
        kernel=9,
        groups=size("expand"),
    )
    assert found["head"] == Product("linear", "head", size(5), 1, size("project"), bias=True)
    grouped = products(Grouped().eval())["conv2"]
    assert (grouped.inputs, grouped.outputs) == (size(4), size((2, "conv1")))
    assert (grouped.groups, grouped.rows) == (size("conv1"), 36)


def test_a_weight_that_is_used_twice_is_one_weight():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
            self.fc = nn.Linear(4, 5)

        def forward(self, x):
            return self.fc(self.conv(self.conv(self.stem(x).relu()).relu()).mean((2, 3)))

    model = Twice().eval()
    costs = traced_network(model, (3, 8, 8)).costs
    assert costs.params() == sum(p.numel() for p in model.parameters())
    assert costs.macs() == 64 * (3 * 4 + 2 * 9 * 4 * 4) + 4 * 5


def test_attention_between_places_costs_multiplications_too():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 5)

        def forward(self, x):
            x = self.stem(x).flatten(2).transpose(1, 2)
            x = nn.functional.scaled_dot_product_attention(x, x, x)
            return self.fc((x @ x.transpose(1, 2) @ x).mean(1))

    costs = traced_network(Attending().eval(), (3, 8, 8)).costs
    assert costs.macs() == 64 * 3 * 4 + 4 * (64 * 64 * 4) + 4 * 5
    assert torch.tensor([product.rows for product in costs.products]).min() >= 1


def test_filters_that_are_buffers_count_as_no_parameters():
    class Blurring(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
            self.register_buffer("blur", torch.rand(4, 1, 3, 3))

        def forward(self, x):
            x = nn.functional.conv2d(self.conv1(x), self.blur, padding=1, groups=4)
            return self.conv2(x).mean((2, 3))

    model = Blurring().eval()
    costs = traced_network(model, (3, 8, 8)).costs
    assert costs.params() == sum(p.numel() for p in model.parameters())
    assert costs.macs() == 64 * (3 * 4 + 9 * 4 + 4 * 2)


class Biased(nn.Module):
    """Attention among 2x2 places whose bias is computed of coordinates and no image."""

    def __init__(self):
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 4, 4, 4), nn.Linear(4, 5)
        self.bias = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 4))
        self.place = nn.Conv2d(3, 4, 1)
        self.register_buffer("coordinates", torch.rand(4, 2))

    def forward(self, x):
        x = self.stem(x)
        x = x + self.place(x.new_ones(1, 3, 2, 2)).repeat(len(x), 1, 1, 1)
        x = x.flatten(2).transpose(1, 2)
        weights = torch.baddbmm(self.bias(self.coordinates).expand(len(x), 4, 4), x, x.mT)
        return self.fc((weights.softmax(-1) @ x).mean(1))


class Dynamic(nn.Module):
    """Each image has filters of its own, and all images of a batch meet."""

    def __init__(self):
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 5)
        self.filters = nn.Linear(3, 4 * 4)

    def forward(self, x):
        weights = self.filters(x.mean((2, 3))).view(-1, 4, 1, 1)
        maps = self.stem(x).view(1, -1, 8, 8)
        x = nn.functional.conv2d(maps, weights, groups=len(x)).view(len(x), 4, -1).mean(2)
        return self.fc((x @ x.T).softmax(1) @ x)


@pytest.mark.parametrize("model", [Biased(), Dynamic()])
def test_what_no_image_enters_is_counted_once_and_what_all_images_meet_in_for_each(model):
    costs = traced_network(model.eval(), (3, 8, 8)).costs
    assert costs.macs() == counted_macs(model, lambda: model(torch.rand(1, 3, 8, 8)), "model")
    assert costs.params() == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_cost_what_is_counted_of_them(kind):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.fc1, self.fc2 = nn.Conv2d(3, 4, 1), nn.Linear(12, 8), nn.Linear(8, 5)
            self.rows = kind(4, 6, batch_first=True, bidirectional=True)

        def forward(self, x):
            x = self.rows(self.stem(x).flatten(2).transpose(1, 2))[0]
            return self.fc2(self.fc1(x.mean(1)).relu())

    model = Recurrent().eval()
    network = traced_network(model, (3, 8, 8))
    gates = (3 if kind is nn.GRU else 4) * 6
    macs = 64 * 3 * 4 + 2 * 64 * gates * (4 + 6) + 12 * 8 + 8 * 5
    image = torch.rand(1, 3, 8, 8)
    assert network.costs.macs() == counted_macs(model, lambda: model(image), "model") == macs
    assert network.costs.params() == sum(p.numel() for p in model.parameters())
    assert [group.name for group in network.groups] == ["fc1"]
    assert "read by aten." in str(network.kept[0])
