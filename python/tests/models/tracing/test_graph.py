"""torch.export of models as people write them: nothing of the model changes, refusals say why."""

import copy
import logging
import warnings

import pytest
import torch
from torch import nn

from agflow.errors import UnsupportedModelError
from agflow.models.tracing.graph import exported
from agflow.models.tracing.tracer import Tracer


class Network(nn.Module):
    """Two convolutions and a head; what the forward pass does is given."""

    def __init__(self, function):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, 5)
        self.norm, self.function = nn.BatchNorm2d(8), function

    def forward(self, images):
        return self.function(self, images)

    def end(self, x):
        return self.head(self.second(self.norm(x)).mean((2, 3)))


def images(count=1):
    return torch.zeros(count, 3, 16, 16)


def operators(program):
    return [n.target for n in program.graph.nodes if n.op == "call_function"]


def test_the_model_stays_as_it_is(capfd):
    def forgetful(self, x):
        self.cache, self.calls = self.first(x), self.calls + 1
        self.scale = self.scale * 2
        return self.end(self.cache)

    model = Network(forgetful).train()
    model.calls, model.scale, model.second.training = 3, torch.ones(2), False
    model.second.weight.requires_grad_(False)
    before, state = dict(vars(model)), copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        program = exported(model, images())
    assert vars(model) == before
    assert (model.training, model.second.training, model.norm.training) == (True, False, True)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert program.state_dict["first.weight"].data_ptr() == model.first.weight.data_ptr()
    assert capfd.readouterr() == ("", "")


def test_a_single_image_is_no_axis_that_broadcasts():
    program = exported(nn.Conv2d(3, 8, 3), images(1))
    (conv,) = [n for n in program.graph.nodes if n.op == "call_function"]
    assert conv.meta["val"].shape == (2, 8, 14, 14)
    tracer = Tracer(program)
    assert all(leaf.frozen for leaf in tracer.values[conv][0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_images_take_the_dtype_of_the_model(dtype):
    program = exported(nn.Conv2d(3, 8, 3).to(dtype), images())
    assert [n.meta["val"].dtype for n in program.graph.nodes if n.op == "call_function"] == [dtype]


def test_models_without_storage_are_read():
    with torch.device("meta"):
        model = Network(lambda self, x: self.end(self.first(x)))
    assert len(operators(exported(model, images()))) == 5


def test_a_region_without_gradients_is_part_of_the_graph():
    def partly(self, x):
        with torch.no_grad():
            y = self.first(x)
            z = y * 2
        return self.end(y + z)

    model = Network(partly).eval()
    program = exported(model, images())
    assert torch.ops.higher_order.wrap_with_set_grad_enabled not in operators(program)
    assert operators(program)[0] is torch.ops.aten.conv2d.default
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(program.module()(x), model(x))
    assert not [b for b in Tracer(program).barriers if b.operator]

    def ends_there(self, x):
        with torch.no_grad():
            return self.end(self.first(x))

    model = Network(ends_there).eval()
    program = exported(model, images())
    torch.testing.assert_close(program.module()(x), model(x))
    (barrier,) = Tracer(program).barriers
    assert str(barrier) == "head: 5 channels kept, the classes"


def test_a_region_without_autocast_is_part_of_the_graph():
    def exact(self, x):
        y = self.first(x)
        with torch.autocast(x.device.type, enabled=False):
            y = y.float() @ y.float().mT
        return self.end(y)

    model = Network(exact).eval()
    program = exported(model, images())
    assert torch.ops.higher_order.wrap_with_autocast not in operators(program)
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(program.module()(x), model(x))

    def coarse(self, x):
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.end(self.first(x))

    model = Network(coarse).eval()  # its numbers are others than without: it stays as it is
    torch.testing.assert_close(exported(model, images()).module()(x), model(x))


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_wrappers_are_read(wrap):
    program = exported(wrap(Network(lambda self, x: self.end(self.first(x)))), images())
    assert len(operators(program)) == 5


def branches(self, x):
    y = self.first(x)
    return self.end(y * 2 if y.sum() > 0 else y)


REFUSED = {
    "branches on values that it computes": branches,
    "RuntimeError: .numpy()": lambda self, x: self.end(torch.from_numpy(self.first(x).numpy())),
}
NOT_RUN = {
    "(ValueError: images of 32 pixels only): its forward takes ": lambda self, x: wants_32(x),
    "Long, Int; but got torch.FloatTensor": lambda self, x: nn.functional.embedding(
        x, torch.eye(3)
    ),
}


def wants_32(x):
    if x.shape[-1] != 32:
        raise ValueError("images of 32 pixels only.\nNothing else")


@pytest.mark.parametrize("reason", REFUSED | NOT_RUN)
def test_refusals_are_one_sentence(reason, capfd):
    with pytest.raises(UnsupportedModelError) as refused:
        exported(Network((REFUSED | NOT_RUN)[reason]), images())
    assert reason in str(refused.value)
    starts = "torch.export cannot read Network", "Network does not run"
    assert str(refused.value).startswith(f"{starts[reason in NOT_RUN]} on images of [2, 3, 16")
    assert ("whose forward makes its inputs" in str(refused.value)) == (reason in NOT_RUN)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("torch").level != logging.CRITICAL


def test_scripts_are_refused():
    script = torch.jit.trace(nn.Conv2d(3, 8, 3), images())
    with pytest.raises(UnsupportedModelError, match="give the Python module"):
        exported(script, images())
