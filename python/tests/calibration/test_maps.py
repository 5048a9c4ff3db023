"""Maps of convolutions: the right sums in every memory layout, whatever the model does to them."""

import copy
import subprocess

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from agflow._core import arrow
from agflow._core.loader import core
from agflow._core.maps import channel_matrix
from agflow.calibration.calibration import calibrate
from agflow.calibration.cuda import device_sums
from agflow.calibration.hooks import capture
from agflow.calibration.loss import per_image_loss
from agflow.calibration.options import CalibrationOptions
from agflow.calibration.session import statistics_session
from agflow.calibration.sink import StatisticsSink
from agflow.calibration.statistics import Statistics
from agflow.errors import NonFiniteError, ShapeError, UnsupportedModelError
from agflow.functional import utility
from agflow.models import Adapter, registry
from agflow.models.channel_group import ChannelGroup, Tap

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
SUMS = ("sum_abs_yg", "sum_yg", "sum_yg2", "sum_abs_y", "sum_y", "sum_y2", "sum_g2", "max_abs_yg")


class Convolutions(nn.Module):
    """Two residual blocks with everything that observing them trips over.

    Activations in place, a shortcut that is read before the tap is reached, a convolution that is
    called twice, and a mean, whose gradient is expanded.
    """

    def __init__(self, in_place=True):
        super().__init__()
        self.stem, self.shortcut = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.conv1, self.norm = nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.conv2, self.twice = nn.Conv2d(12, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.act, self.head = nn.ReLU(inplace=in_place), nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        side = self.shortcut(x)
        x = self.conv2(self.act(self.norm(self.conv1(x))))
        x = self.act(x + side)
        x = x + self.twice(x)
        x = x + self.twice(x)
        return self.head(x.mean((2, 3)))


def group(name, units, *taps, unit_width=1):
    return ChannelGroup(
        name, "conv", units, unit_width, units, units, reader=taps[0].module, taps=taps
    )


GROUPS = [
    group("stem", 8, Tap("conv1", axis=1)),  # read by the shortcut before
    group("after_norm", 12, Tap("norm", "output", axis=1)),  # overwritten by the activation
    group("middle", 12, Tap("conv2", axis=1)),
    group("pairs", 6, Tap("conv2", axis=1), unit_width=2),
    group("some", 5, Tap("conv2", "input", 3, 5, axis=1)),
    group("twice", 8, Tap("twice", axis=1)),
    group("both", 8, Tap("shortcut", axis=1), Tap("twice", axis=1)),
    group("pooled", 8, Tap("head", axis=1)),
    group("pooled_rows", 8, Tap("head")),
]


class OfConvolutions(Adapter):
    family, models = "convolutions_of_tests", "Convolutions"

    def recognises(self, model):
        return type(model) is Convolutions

    def layers(self, model):
        return GROUPS

    def weights(self, model, layer):
        return [(torch.ones(layer.units * layer.unit_width, 2), 0)]

    def cut(self, model, layer, keep_U):
        raise NotImplementedError

    def input_size(self, model):
        return 3, 6, 7

    def macs(self, model):
        return 10_000

    def describe(self, model):
        return {"in_place": model.act.inplace}

    def build(self, description):
        return Convolutions(**description)


@pytest.fixture(autouse=True)
def adapter(monkeypatch):
    monkeypatch.setattr(registry, "_registered", [OfConvolutions()])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Convolutions().eval()


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, 6, 7, generator=generator), torch.tensor([0, 1, 4, 2])


def by_autograd(model, images, labels):
    """{group: (Y [R, C], G [R, C])}: the definition, of a model that changes nothing in place."""
    model = copy.deepcopy(model)
    model.act = nn.ReLU()
    kept = {}
    x = images.clone().requires_grad_()
    hooks = []
    for layer in GROUPS:
        for tap in layer.taps:
            module, key = model.get_submodule(tap.module), (tap.module, tap.side)
            if key in kept:
                continue
            kept[key] = []
            if tap.side == "input":
                hook = module.register_forward_pre_hook(lambda _, y, k=key: kept[k].append(y[0]))
            else:
                hook = module.register_forward_hook(lambda _, y, out, k=key: kept[k].append(out))
            hooks.append(hook)
    loss = F.cross_entropy(model(x), labels, reduction="sum")
    found = {}
    for layer in GROUPS:
        places = [y for tap in layer.taps for y in kept[tap.module, tap.side]]
        gradients = torch.autograd.grad(loss, places, retain_graph=True)
        channels = layer.taps[0].channels
        found[layer.name] = tuple(
            torch.cat([rows(part.detach())[:, :, channels] for part in side], 1).flatten(0, 1)
            for side in (places, gradients)
        )
    return found


def rows(maps):
    """[B, P, C] of maps [B, C, H, W] or of pooled ones."""
    return maps.reshape(*maps.shape[:2], -1).transpose(1, 2)


def captured(model, images, labels):
    found = {}

    def sink(index, count, y, g):
        assert count == len(images) and GROUPS[index].name not in found
        found[GROUPS[index].name] = tuple(x.reshape(-1, x.shape[-1]).clone() for x in (y, g))

    with capture(model, GROUPS, sink):
        per_image_loss(model(images), labels).backward()
    return found


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_maps_and_gradients_are_those_of_plain_autograd(model, images, layout):
    """Also where the model overwrites what was seen, reads it before, or comes by twice."""
    expected = by_autograd(model, *images)
    model, x = model.to(memory_format=layout), images[0].to(memory_format=layout)
    found = captured(model, x, images[1])
    assert found.keys() == expected.keys()
    for name, sides in expected.items():
        for one, other in zip(found[name], sides, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6, msg=name)
    assert torch.equal(found["pairs"][0], found["middle"][0])
    assert (found["after_norm"][0] < 0).any() and (found["middle"][0] >= 0).all()


def test_every_batch_is_seen_rightly_after_the_first(model, images):
    """What is overwritten is known from the first batch on; the model runs once from then on."""
    calls, seen = [], []
    with capture(model, GROUPS[1:2], lambda *pair: seen.append((pair[2] * pair[3]).sum())):
        model.stem.register_forward_hook(lambda *_: calls.append(None))
        for _ in range(3):
            per_image_loss(model(images[0]), images[1]).backward()
    assert len(calls) == 4 and len(seen) == 3 and seen[0] == seen[1] == seen[2]


def test_nothing_is_copied_where_nothing_is_overwritten(images):
    model = Convolutions(in_place=False).eval()
    memory, seen = [], []
    with capture(model, GROUPS[2:3], lambda _, count, y, g: seen.append(y.data_ptr())):
        model.conv2.register_forward_pre_hook(lambda _, y: memory.append(y[0].data_ptr()))
        per_image_loss(model(images[0]), images[1]).backward()
    assert seen == memory


def test_what_was_overwritten_outside_of_a_whole_pass_is_refused(model, images):
    with (
        capture(model, GROUPS[1:2], lambda *_: None),
        pytest.raises(UnsupportedModelError, match="overwrote the activations of after_norm"),
    ):
        x = model.stem(images[0].requires_grad_())
        model.act(model.norm(model.conv1(x))).sum().backward()


def test_passes_without_gradients_leave_nothing_behind(model, images):
    seen = []
    with capture(model, GROUPS, lambda index, *_: seen.append(index)):
        with torch.no_grad():
            model(images[0])
        per_image_loss(model(images[0]), images[1]).backward()
    assert sorted(seen) == list(range(len(GROUPS)))
    assert images[0].grad is None and not images[0].requires_grad


def numpy_sums(y_RC, g_RC, layer):
    y, g = y_RC.double().numpy(), g_RC.double().numpy()
    p = y * g
    parts = (np.abs(p), p, p**2, np.abs(y), y, y * y, g * g)
    found = {}
    for name, values in zip(SUMS, parts, strict=False):
        of_channels = np.add.accumulate(values, axis=0)[-1].reshape(layer.units, -1)
        found[name] = np.add.accumulate(of_channels, axis=1)[:, -1]
    found["max_abs_yg"] = np.abs(p).max(0).reshape(layer.units, -1).max(1)
    return found


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_statistics_equal_numpy_float64_bit_for_bit(model, images, layout, dtype, tmp_path):
    """So do those of the dumped tensors."""
    model = model.to(dtype, memory_format=layout)
    x = images[0].to(dtype, memory_format=layout)
    with torch.no_grad():
        assert model(x).shape == (4, 5)
    dump = tmp_path / "tensors"
    statistics = calibrate(
        model, [(x, images[1])], groups="conv", options=CalibrationOptions(dump=dump)
    )
    seen = captured(model, x, images[1])
    for layer in GROUPS:
        at = statistics.rows_of(layer.name)
        for name, values in numpy_sums(*seen[layer.name], layer).items():
            assert np.array_equal(statistics.columns[name][at], values), (layer.name, name)
        assert set(statistics.columns["rows"][at]) == {len(seen[layer.name][0])}
        assert set(statistics.columns["samples"][at]) == {4}
    output = tmp_path / "statistics.arrow"
    command = ["agflow", "statistics", "--tensors", dump, "--output", output]
    subprocess.run(command, check=True, capture_output=True)
    assert Statistics.load(output) == statistics


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5, 4, 7), (2, 16, 8, 8), (1, 9, 3), (4, 6), (2, 1, 3, 2)])
def test_every_layout_has_the_bits_of_rows(dtype, shape):
    """Contiguous, channels_last, sliced, permuted, the two sides in different ones; expanded."""
    generator = torch.Generator().manual_seed(0)

    def layouts(x):
        yield x
        if x.ndim == 4:
            yield x.contiguous(memory_format=torch.channels_last)
        yield torch.cat([x, x[:, :1], x], 1)[:, : x.shape[1]]
        yield torch.cat([x, x], -1)[..., : x.shape[-1]] if x.ndim > 2 else x.T.contiguous().T
        yield x.transpose(0, 1).contiguous().transpose(0, 1)
        yield torch.stack([x, x], -1)[..., 0]

    y, g = (torch.randn(shape, generator=generator).to(dtype) for _ in "yg")
    flat = [x.movedim(1, -1).reshape(-1, shape[1]).contiguous() for x in (y, g)]
    expected = utility(*flat)
    for one in layouts(y):
        for other in layouts(g):
            assert torch.equal(one, y) and torch.equal(other, g)
            assert np.array_equal(utility(one, other, axis=1, workers=2), expected)
    if dtype is not torch.bfloat16:
        assert np.array_equal(utility(y.numpy(), g.numpy(), axis=1), expected)
    wide = g[..., :1].expand(g.shape)
    again = wide.movedim(1, -1).reshape(-1, shape[1]).contiguous()
    assert np.array_equal(utility(y, wide, axis=1), utility(flat[0], again))


def test_maps_are_not_copied():
    maps = torch.randn(3, 8, 5, 6)
    for x in (
        maps,
        maps.contiguous(memory_format=torch.channels_last),
        torch.randn(3, 11, 5, 6)[:, 2:10],
        maps.flatten(2),
        maps[:1],
    ):
        matrix = channel_matrix(x, 1)
        assert matrix.address == x.data_ptr() and matrix.rows == x.numel() // 8
    assert channel_matrix(maps.numpy(), 1).address == maps.data_ptr()
    cropped = maps[..., 1:]
    assert channel_matrix(cropped, 1).address != cropped.data_ptr()


def test_no_images_and_refusals():
    empty = channel_matrix(torch.zeros(0, 4, 2, 2), 1)
    assert (empty.rows, empty.channels) == (0, 4)
    for shape in ((3,), (2, 0, 3)):
        with pytest.raises(ShapeError, match="name the axis of the channels"):
            channel_matrix(torch.zeros(shape), 1)
    with pytest.raises(ShapeError, match="expected one shape"):
        utility(torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 5, 4), axis=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows_per_block", [None, 1, 7, 100])
def test_device_sums_of_maps(dtype, rows_per_block):
    """The sums that a CUDA device computes, in both layouts, equal those of rows."""
    y, g = (torch.randn(5, 6, 4, 5).to(dtype) for _ in "yg")
    expected = device_sums(*(x.permute(0, 2, 3, 1).reshape(-1, 6) for x in (y, g)))
    for layout in (torch.contiguous_format, torch.channels_last):
        sides = (x.contiguous(memory_format=layout).movedim(1, -1).flatten(1, 2) for x in (y, g))
        torch.testing.assert_close(
            device_sums(*sides, rows_per_block), expected, rtol=1e-12, atol=0
        )


def test_the_sink_takes_maps_of_a_device(model, images, monkeypatch):
    """The path of CUDA tensors, with those of the CPU: sums of a device, fetched afterwards."""
    monkeypatch.setattr(torch.Tensor, "is_cpu", False)
    with statistics_session({"name": "a", "macs": 1, "params": 1}, GROUPS) as session:
        sink = StatisticsSink(session, GROUPS, "refuse", None)
        with capture(model, GROUPS, sink.take):
            per_image_loss(model(images[0]), images[1]).backward()
        monkeypatch.undo()
        monkeypatch.setattr(registry, "_registered", [OfConvolutions()])
        sink.end_batch()
        table = arrow.call_for_batch(core().statistics_table, session)
    statistics = calibrate(model, [images], groups="conv")
    assert table["rows"].to_pylist() == statistics.columns["rows"].tolist()
    for name in SUMS:
        magnitude = {"sum_yg": "sum_abs_yg", "sum_y": "sum_abs_y"}.get(name, name)
        tolerance = 1e-12 * statistics.columns[magnitude].max()
        np.testing.assert_allclose(table[name], statistics.columns[name], rtol=0, atol=tolerance)


def test_what_is_not_finite_is_named_by_image_and_position(model, images, monkeypatch):
    monkeypatch.setattr(OfConvolutions, "layers", lambda self, model: GROUPS[2:3])
    x = images[0].clone()
    x[2, 1, 3, 4] = float("inf")
    with pytest.raises(NonFiniteError, match="NaN in g at position 0 of image 2, channel 0;"):
        calibrate(model, [(x, images[1])], groups="conv")
