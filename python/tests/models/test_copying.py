import torch
from torch import nn

from agflow.models.copying import copy_of, own_methods


class Choosing(nn.Module):
    """Takes one of its own methods as its forward pass."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.forward = self.doubled

    def doubled(self, x):
        return 2 * self.layer(x)


def test_a_module_keeps_the_method_of_its_class_that_it_chose():
    model = Choosing()
    assert own_methods(model) == []
    twin = copy_of(model)
    nn.init.zeros_(model.layer.weight)
    nn.init.zeros_(model.layer.bias)
    assert twin(torch.ones(1, 2)).any()
    assert twin.forward.__self__ is twin
