"""A cascade of the real DeiT-Tiny: shared blocks, lower resolution and server, against passes."""

import copy

import pytest
import torch

import agflow
from agflow.models import adapter_for, prefix_macs

pytestmark = pytest.mark.bench


@torch.no_grad()
def test_deit_tiny_with_shared_blocks_and_at_a_lower_resolution(deit, photographs):
    heavy, _ = deit
    x = torch.cat([images for images, _ in photographs])
    shared, adapter = copy.deepcopy(heavy), adapter_for(heavy)
    for layer in adapter.layers(heavy):
        if layer.kind == "mlp" and int(layer.name.split(".")[1]) >= 8:
            adapter.cut(shared, layer, torch.arange(192))
    for light, blocks in ((shared, 8), (agflow.models.at_image_size(heavy, 112), 0)):
        by_light, by_heavy = light(x), heavy(x)
        confidence = by_light.softmax(1).amax(1)
        threshold = float(confidence.sort().values[4:6].double().mean())
        cascade = agflow.Cascade(light, heavy, threshold, shared_blocks=blocks, max_batch=5)
        expected = torch.where(confidence[:, None] < threshold, by_heavy, by_light)
        torch.testing.assert_close(cascade(x), expected, rtol=1e-4, atol=1e-4)
        assert cascade.last_call.escalated == 5 and cascade.costs.shared == (
            prefix_macs(heavy, blocks) if blocks else 0
        )
        with agflow.Server(cascade, max_batch=4) as server:
            found = torch.stack(
                [future.result(60) for future in [server.submit(image) for image in x]]
            )
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
