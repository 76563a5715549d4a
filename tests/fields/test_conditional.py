"""Decoders conditioned layer by layer: the published sizes, and the same values when a code is folded in."""

import pytest
import torch
from narrowing import sure
from torch import nn

from nif_cli.fields.blocks import ResidualBlock
from nif_cli.fields.conditional import ConditionalResNet, Folded, Modulation


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def trained(network: ConditionalResNet) -> ConditionalResNet:
    """As after a training: nothing at its initial zeros and ones, running statistics of its own inputs."""
    torch.manual_seed(0)
    for p in network.parameters():
        nn.init.normal_(p, 0, 0.3)
    network.train()
    for _ in range(20):
        network(torch.rand(4, 64, 3) * 2 - 1, torch.randn(4, 6))
    return network.eval()


@pytest.mark.parametrize(("code", "parameters"), [(256, 2_106_625), (512, 3_548_417)])
def test_the_published_decoder(code, parameters):
    assert size(ConditionalResNet(code_size=code)) == parameters


def folded(network, code, points):
    network, rest = network.fold(code)
    return network(points, None if rest is None else rest[None])


@pytest.mark.parametrize("condition", ["cbn", "film", "concat"])
def test_a_folded_code_gives_the_same_values(condition):
    network = trained(ConditionalResNet(code_size=6, width=32, blocks=3, condition=condition))
    points, code = torch.rand(1, 500, 3) * 2 - 1, torch.randn(1, 6)
    with torch.no_grad():
        want, found = network(points, code), folded(network, code[0], points)
    assert isinstance(network.fold(code[0])[0], Folded) == (condition != "concat")
    assert want.std() > 0.01
    assert torch.allclose(found, want, atol=1e-5 * float(want.abs().max()), rtol=1e-5)
    assert not torch.allclose(network(points, -code), want, atol=1e-2)


def test_conditional_batch_norm_is_batch_norm_then_an_affine_map_of_the_code():
    modulation = Modulation(5, 7, normalise=True)
    for p in modulation.parameters():
        nn.init.normal_(p)
    reference = nn.BatchNorm1d(7, affine=False)
    h, code = torch.randn(3, 20, 7) * 4 + 2, torch.randn(3, 5)

    def want() -> torch.Tensor:
        flat = reference(h.flatten(0, 1)).view(3, 20, 7)
        return modulation.gamma(code)[:, None] * flat + modulation.beta(code)[:, None]

    assert torch.allclose(modulation(h, code), want(), atol=1e-5)
    assert torch.allclose(modulation.mean, sure(reference.running_mean))
    modulation.eval()
    reference.eval()
    assert torch.allclose(modulation(h, code), want(), atol=1e-5)
    scale, shift = modulation.affine(code[1])
    assert torch.allclose(scale * h[1] + shift, want()[1], atol=1e-5)


def test_without_a_code_it_starts_as_the_same_function():
    """gamma 1, beta 0 at first: no code matters before it is learned."""
    network = ConditionalResNet(code_size=4, width=16, blocks=2).eval()
    points = torch.rand(2, 9, 3)
    for m in network.modulations:
        nn.init.zeros_(m.get_parameter("gamma.weight"))
        nn.init.zeros_(m.get_parameter("beta.weight"))
    assert torch.allclose(network(points, torch.randn(2, 4)), network(points, torch.randn(2, 4)))


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="no code"):
        ConditionalResNet(code_size=0)
    with pytest.raises(ValueError, match="width=0"):
        ConditionalResNet(code_size=4, width=0)
    assert ConditionalResNet(code_size=0, condition="concat", width=8, blocks=1)(
        torch.rand(1, 5, 3)
    ).shape == (1, 5, 1)


def test_a_residual_block_starts_as_its_shortcut():
    x = torch.randn(4, 6)
    block = ResidualBlock(6)
    nn.init.zeros_(block.second.bias)
    assert torch.equal(block(x), x)
    wide = ResidualBlock(6, 3)
    nn.init.zeros_(wide.second.bias)
    assert torch.allclose(wide(x), x @ wide.get_parameter("shortcut.weight").T)
