"""A field as an ONNX graph: points in the user's units -> value, and colour where it has one."""

from __future__ import annotations

import copy
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nif_cli import NifError
from nif_cli.field import Field, Signal
from nif_cli.geometry.transform import Transform
from nif_cli.rendering.volume import RadianceField

OPSET = 18  # the first with bitwise operations, which hashed rows need
TOLERANCE = 1e-5  # of the largest value, between onnxruntime and torch
TRIED = 1000  # points that both are compared at
MISSING = "format=onnx needs onnx and onnxruntime: pip install 'nif-cli[onnx]'"


@dataclass
class Exported:
    content: bytes
    outputs: list[str]
    difference: float  # the largest between the graph and torch, as a part of the largest value
    nodes: int


class Graph(nn.Module):
    """What a graph computes: `value` positive inside and 0 on the surface, a length in the user's units where
    the field is a distance (then `unit` is what it is multiplied by), `color` sRGB and not clamped; of a
    radiance field seen along `directions`."""

    def __init__(self, field: Field | Signal, transform: Transform, unit: float):
        super().__init__()
        self.field, self.unit = field, unit
        dim = field.bounds.shape[1]
        self.offset = torch.tensor(transform.offset[:dim], dtype=torch.float64)
        self.scale = float(transform.scale)
        self.level = float(field.level) if isinstance(field, Field) else 0.0

    def forward(self, points: Tensor, directions: Tensor | None = None) -> tuple[Tensor, ...]:
        x = ((points.double() + self.offset) * self.scale).float()
        if isinstance(self.field, RadianceField):
            network, codes = self.field.network, self.field._codes(1)  # type: ignore[attr-defined]
            codes = [None if c is None else c.expand(x.shape[0], -1) for c in codes]
            density, color = network(x, directions, *codes)
            return (density - self.level) * self.unit, color
        found: tuple[Tensor, ...] = ()
        if isinstance(self.field, Field):
            found = ((self.field.value(x) - self.level) * self.unit,)
        return (*found, self.field.color(x)) if isinstance(self.field, Signal) else found


def exported(field: Field | Signal, transform: Transform, unit: float) -> Exported:
    """The graph of a field on the CPU, compared with torch at random points of its bounds. Inputs: points
    [N, D] float32 and, of a radiance field, unit directions [N, 3]; outputs: value [N], color [N, C].
    NifError where a package is missing, no graph can hold the field, or both differ."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise NifError(MISSING) from error
    graph, inputs = Graph(_frozen(field), transform, unit), examples(field, transform)
    names = ["points", "directions"][: len(inputs)]
    outputs = ["value"] * isinstance(field, Field) + ["color"] * isinstance(field, Signal)
    buffer = io.BytesIO()
    try:
        _traced(graph, tuple(i[:7] for i in inputs), buffer, names, outputs)
    except Exception as error:
        line = next((s.strip() for s in str(error).splitlines() if s.strip()), type(error).__name__)
        raise NifError(
            f"format=onnx: this field cannot be written as a graph ({type(field).__name__}: {line[:150]})"
        ) from error
    content = buffer.getvalue()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    made = session.run(outputs, {n: i.numpy() for n, i in zip(names, inputs, strict=True)})
    with torch.no_grad():
        truth = [t.numpy() for t in graph(*inputs)]
    difference = max(
        float(np.abs(np.asarray(a) - b).max() / max(1e-3, float(np.abs(b).max())))
        for a, b in zip(made, truth, strict=True)
    )
    if not difference < TOLERANCE:
        raise NifError(
            f"format=onnx: onnxruntime and torch differ by {difference:.1g} of the largest value; more than "
            f"{TOLERANCE:g} is no copy"
        )
    return Exported(content, outputs, difference, len(onnx.load_from_string(content).graph.node))


def _frozen(field: Any) -> Any:
    """A copy whose numbers are constants."""
    found = copy.copy(field)
    for name, value in vars(field).items():
        if isinstance(value, nn.Module):
            value = copy.deepcopy(value).eval().requires_grad_(False)
            if hasattr(value, "computes_in_half"):  # graphs compute in float32
                value.computes_in_half = False  # type: ignore[assignment]
        elif isinstance(value, Mapping):
            value = {k: v.detach() if isinstance(v, Tensor) else v for k, v in value.items()}
        elif isinstance(value, Tensor):
            value = value.detach()
        if not isinstance(getattr(type(field), name, None), property):
            object.__setattr__(found, name, value)
    return found


def examples(field: Field | Signal, transform: Transform) -> list[Float[Tensor, "N D"]]:
    """Points of the user's units within the bounds, and directions where colours depend on them."""
    low, high = field.bounds.double().cpu()
    random = torch.Generator().manual_seed(0)
    inside = low + torch.rand(TRIED, len(low), generator=random, dtype=torch.float64) * (high - low)
    offset = torch.tensor(transform.offset[: len(low)], dtype=torch.float64)
    inputs = [(inside / transform.scale - offset).float()]
    if isinstance(field, RadianceField):
        inputs.append(nn.functional.normalize(torch.randn(TRIED, 3, generator=random), dim=-1))
    return inputs


def _traced(
    graph: nn.Module, inputs: tuple[Tensor, ...], buffer: io.BytesIO, names: list[str], outputs: list[str]
) -> None:
    """By torch's exporter of traces: its other one would need a package more."""
    from torch.onnx import register_custom_op_symbolic  # type: ignore[attr-defined]

    for name, node in (("__xor_", "BitwiseXor"), ("__and_", "BitwiseAnd")):  # it has those of bools
        register_custom_op_symbolic(f"aten::{name}", _whole_numbers(node), OPSET)
    log, level = logging.getLogger("torch.onnx"), logging.getLogger("torch.onnx").level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad(), _silent():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph,
                inputs,
                buffer,  # type: ignore[arg-type]
                input_names=names,
                output_names=outputs,
                dynamic_axes={name: {0: "n"} for name in (*names, *outputs)},
                opset_version=OPSET,
                dynamo=False,
            )
    finally:
        log.setLevel(level)


@contextmanager
def _silent() -> Iterator[None]:
    """Nothing is printed: the exporter's C++ writes out what it fails at, thousands of lines."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _whole_numbers(node: str) -> Callable[..., Any]:
    def symbolic(g: Any, first: Any, second: Any) -> Any:
        whole = [g.op("Cast", x, to_i=torch.onnx.TensorProtoDataType.INT64) for x in (first, second)]
        return g.op(node, *whole)

    return symbolic
