"""The multilayer perceptron of DeepSDF (Park et al. 2019) and IGR (Gropp et al. 2020), with what they
vary."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nif_cli.fields.network import Encoding, Network


class Linear(nn.Module):
    """y = W [h, x, code] + b, where x (`again` features: the network's input, for a skip) and the code may be
    absent. The code is the same for all points of a shape, so its part is computed once a shape.

    With `weight_norm`, W = g v / ||v|| by rows (Salimans and Kingma 2016). Under torch.func.functional_call
    weights may be stacked, each shape with its own: weight [S, out, in], bias [S, out], gain [S, out, 1].
    """

    def __init__(
        self, features: int, out: int, code_size: int = 0, weight_norm: bool = False, again: int = 0
    ):
        super().__init__()
        self.features, self.again = features, again
        fan_in = features + again + code_size
        self.weight = nn.Parameter(torch.empty(out, fan_in))
        self.bias = nn.Parameter(torch.empty(out))
        nn.init.uniform_(self.weight, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))
        nn.init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))
        self.gain = nn.Parameter(self.weight.detach().norm(dim=1, keepdim=True)) if weight_norm else None

    def effective_weight(self) -> Tensor:
        """W with the weight norm applied, [out, features + again + Z] (or stacked, [S, ...])."""
        if self.gain is None:
            return self.weight
        if self.weight.dim() == 3:
            return self.gain * F.normalize(self.weight, dim=-1)
        return torch._weight_norm(self.weight, self.gain, 0)  # pyright: ignore[reportPrivateImportUsage]

    def forward(
        self,
        h: Float[Tensor, "*n H"],
        code: Float[Tensor, "S Z"] | None = None,
        x: Float[Tensor, "S N F"] | None = None,
        scale: float = 1.0,
        bias: bool = True,
    ) -> Float[Tensor, "*m O"]:
        """With a code, x or stacked weights: h is [S, N, H] (or, with x, flat), the result [S, N, O];
        without: any [..., H] -> flat [S * N, O]. h counts `scale` times: that is done to W, where it is
        cheap. `bias=False` (without code and x): the caller adds b.

        No result is a view: activations work in place on them, and on a view that would cost a copy.
        """
        weight = self.effective_weight()
        of_h = weight[..., : self.features] * scale if scale != 1 else weight[..., : self.features]
        stacked = weight.dim() == 3
        if code is None and x is None and not stacked:
            flat = h.flatten(0, -2)
            return torch.addmm(self.bias, flat, of_h.T) if bias else torch.mm(flat, of_h.T)
        rest = self.bias[:, None] if stacked else self.bias
        if code is not None:
            of_code = weight[..., self.features + self.again :]
            if stacked:
                rest = torch.baddbmm(rest, code[:, None], of_code.mT)
            else:
                rest = torch.addmm(rest, code, of_code.T)[:, None]
        if x is not None:
            of_x = weight[..., self.features : self.features + self.again]
            rest = torch.baddbmm(rest, x, of_x.mT.expand(len(x), -1, -1))
            h = h.reshape(*x.shape[:2], self.features)
        return torch.baddbmm(rest, h, of_h.mT.expand(len(h), -1, -1))


def _random_bytes(generator: np.random.SFC64 | None, like: Tensor) -> Tensor:
    words = (like.numel() + 7) // 8
    if generator is None:
        bits = (
            torch.empty(words, dtype=torch.int64, device=like.device)
            .random_(-(2**63), None)
            .view(torch.uint8)
        )
    else:
        bits = torch.from_numpy(generator.random_raw(words).view(np.uint8))
    return bits[: like.numel()].view(like.shape)


class _ReluDrop(torch.autograd.Function):
    """x + bias (if any), relu, then `dropped` of 256 values set to 0, all in place and in one go through the
    memory; the output alone is kept: where it is 0 so is the gradient. What survives is not scaled here. One
    random byte a value.
    """

    @staticmethod
    def forward(ctx, x: Tensor, bias: Tensor | None, dropped: int) -> Tensor:  # type: ignore[override]
        # on a CPU numpy's SFC64 is twice as fast (torch's seed decides), and a part is what stays in the
        # cache
        cpu = x.device.type == "cpu"
        generator = np.random.SFC64(int(torch.randint(2**62, ()))) if cpu else None
        rows = x.view(-1, x.shape[-1])
        for part in rows.split(1 + 2**17 // rows.shape[1] if cpu else max(1, len(rows))):
            if bias is not None:
                part.add_(bias)
            part.clamp_(min=0).mul_(_random_bytes(generator, part) >= dropped)
        ctx.has_bias = bias is not None
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (out,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # differentiated again, as for the eikonal equation
            grad = torch.ops.aten.threshold_backward(grad, out, 0)
        else:  # in place: the gradient comes fresh from the next layer's product and nobody else sees it
            torch.ops.aten.threshold_backward.grad_input(grad, out, 0, grad_input=grad)
        return grad, grad.flatten(0, -2).sum(0) if ctx.has_bias else None, None


class MLP(Network):
    """`layers` hidden layers of `width`, then a linear one: network(points [S, N, D], code [S, Z] or None) ->
    [S, N, C].

    skips: hidden layers (counted from 0) that see the input and the code again; the layer before narrows by
    as much, so that all stay `width` wide (DeepSDF). `dropout` is rounded to 1/256. `output: tanh` ends in
    tanh (DeepSDF); `init: geometric` starts as a sphere of `radius`, inside positive (IGR, Atzmon and Lipman
    2020).
    """

    stacks = True  # weights may be stacked, one set for each shape: see Linear

    def __init__(
        self,
        dim: int = 3,
        out: int = 1,
        code_size: int = 0,
        *,
        encoding: Callable[[int], Encoding] | None = None,
        width: int = 512,
        layers: int = 8,
        skips: Sequence[int] = (),
        activation: Literal["relu", "softplus"] = "relu",
        beta: float = 100.0,
        weight_norm: bool = False,
        dropout: float = 0.0,
        init: Literal["default", "geometric"] = "default",
        radius: float = 0.5,
        output: Literal["none", "tanh"] = "none",
    ):
        super().__init__()
        if width < 1 or not 1 <= layers <= 1000:
            raise ValueError(f"width={width}, layers={layers}: width must be at least 1, layers 1 to 1000")
        if not 0 <= dropout <= 0.99:
            raise ValueError(f"dropout={dropout}: must be in [0, 0.99]")
        if any(not 0 < s < layers for s in skips):
            raise ValueError(f"skips={list(skips)}: a skip enters one of the hidden layers 1..{layers - 1}")
        self.encoding = encoding(dim) if encoding is not None else None
        features = dim if self.encoding is None else self.encoding.features
        if skips and features + code_size >= width:
            raise ValueError(
                f"skips: the input ({features} features + a code of {code_size}) leaves nothing of "
                f"width={width}; give a width of at least {features + code_size + 1}, or skips=[]"
            )
        if init == "geometric" and (self.encoding is not None or code_size):
            raise ValueError(
                "init=geometric starts from a sphere of the coordinates: it needs encoding=none and a "
                "model without codes"
            )
        self.skips = frozenset(skips)
        self.beta, self._dropped = beta, round(256 * dropout)
        self.activation, self.output = activation, output
        hidden = []
        for i in range(layers):
            sees = i == 0 or i in self.skips
            # what a skip layer sees again, and the layer before leaves room for
            narrow = features + code_size
            enters = features if i == 0 else width - narrow if i in self.skips else width
            leaves = width - narrow if i + 1 in self.skips else width
            again = features if i in self.skips else 0
            hidden.append(Linear(enters, leaves, code_size if sees else 0, weight_norm, again))
        self.hidden = nn.ModuleList(hidden)
        self.last = Linear(width, out)
        if init == "geometric":
            self._geometric(radius, features)

    def fold(self, code: Tensor | None) -> tuple[MLP, Tensor | None]:
        """Weight norm multiplied out, nothing to differentiate but the inputs."""
        copy = deepcopy(self).requires_grad_(False).eval()
        for layer in copy.modules():
            if isinstance(layer, Linear) and layer.gain is not None:
                layer.weight, layer.gain = (
                    nn.Parameter(layer.effective_weight().detach(), requires_grad=False),
                    None,
                )
        return copy, code

    def _geometric(self, radius: float, features: int) -> None:
        with torch.no_grad():
            for i, layer in enumerate(self.hidden):
                assert isinstance(layer, Linear)
                # SAL, theorem 1: layers that keep the norm, then a mean: radius - |x|, inside positive
                std = math.sqrt(2) / math.sqrt(layer.weight.shape[0])
                layer.weight.normal_(0, std)
                layer.bias.zero_()
                # what enters again counts nothing at first, or it would be no sphere
                if i in self.skips:
                    layer.weight[:, -features:].zero_()
                if layer.gain is not None:
                    layer.gain.copy_(layer.weight.norm(dim=1, keepdim=True))
            width = self.last.weight.shape[1]
            self.last.weight.normal_(-math.sqrt(math.pi) / math.sqrt(width), 1e-4)
            self.last.bias.fill_(radius)

    def _hidden(
        self, layer: Linear, h: Tensor, code: Tensor | None, x: Tensor | None, scale: float
    ) -> Tensor:
        """A layer, its activation, and dropout without its scale: the next layer has that."""
        dropping = self.training and self._dropped > 0
        if self.activation == "softplus":
            h = F.softplus(layer(h, code, x, scale), self.beta)
            return _ReluDrop.apply(h, None, self._dropped) if dropping else h  # type: ignore[return-value]
        if not dropping:
            return F.relu(layer(h, code, x, scale), inplace=True)
        apart = code is None and x is None  # the bias is added on the way through the activation
        h = layer(h, code, x, scale, bias=not apart)
        return _ReluDrop.apply(h, layer.bias if apart else None, self._dropped)  # type: ignore[return-value]

    def forward(
        self, points: Float[Tensor, "S N D"], code: Float[Tensor, "S Z"] | None = None
    ) -> Float[Tensor, "S N C"]:
        x = points if self.encoding is None else self.encoding(points)
        h = x
        scale = 1.0  # what dropout owes the values that it left
        for i, layer in enumerate(self.hidden):
            skip = i in self.skips
            h = self._hidden(layer, h, code if skip or i == 0 else None, x if skip else None, scale)  # type: ignore[arg-type]
            scale = 256 / (256 - self._dropped) if self.training else 1.0
        h = self.last(h, scale=scale)
        h = h.reshape(*x.shape[:2], h.shape[-1])
        return torch.tanh(h) if self.output == "tanh" else h
