"""Experiments of the published DeepSDF code: specs.json, ModelParameters/<epoch>.pth,
LatentCodes/<epoch>.pth.

Their decoder sees [code, x, y, z], is positive outside and ends in tanh; ours sees [h, x, y, z, code] and is
positive inside: columns are put in order and the last layer is negated here (tanh is odd).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nif_cli import NifError
from nif_cli.data.shapes.formats import deepsdf
from nif_cli.geometry.transform import Transform
from nif_cli.torch_files import read_torch
from nif_cli.untrusted import number, read_json, shown, text, whole

LARGEST_SIZE = 2**16  # of a layer or a code


@dataclass
class Experiment:
    """What a folder holds, in our terms: the settings of `field=deepsdf`, weights of the network by our
    names, codes by instance id, and notes on what was not found."""

    field: dict[str, Any]
    weights: dict[str, Tensor]
    codes: Float[Tensor, "S Z"]
    transforms: dict[str, Transform]  # by instance id, in the order of the codes
    clamp: float
    code_norm: float
    epoch: int | str
    data: Path | None
    notes: list[str]


def read_experiment(folder: Path, epoch: str = "latest", data: str | None = None) -> Experiment:
    """NifError names what is missing, damaged, or of another architecture."""
    path = folder / "specs.json"
    if not path.is_file():
        what = (
            "no specs.json in it, so it is no experiment of DeepSDF" if folder.is_dir() else "no such folder"
        )
        raise NifError(f"experiment={folder}: {what}")
    specs = read_json(path, "specs of a DeepSDF experiment")
    network, dims, skips, size = _network(specs, path)
    normed = _check_architecture(specs, network, dims, skips, path)
    state = _load(folder / "ModelParameters" / f"{epoch}.pth", folder, epoch)
    theirs = state.get("model_state_dict") if isinstance(state, dict) else None
    if not isinstance(theirs, dict):
        raise NifError(f"{folder / 'ModelParameters' / f'{epoch}.pth'}: it has no model_state_dict")
    layers = len(dims)
    # weight norm where ours has it; else multiplied out
    whole = normed >= set(range(layers)) and layers not in normed
    weights = _weights(
        {k.removeprefix("module."): v for k, v in theirs.items()}, layers, skips, size, whole, folder
    )
    codes = _codes(folder / "LatentCodes" / f"{epoch}.pth", folder, epoch, size)
    notes: list[str] = []
    root = _data_folder(folder, specs, data, notes)
    ids, transforms = _instances(folder, specs, root, len(codes), notes)
    dropped = (
        number(network.get("dropout_prob") or 0, f"{path}: NetworkSpecs.dropout_prob", 0, 0.99)
        if network.get("dropout")
        else 0.0
    )
    bound = number(specs.get("CodeBound") or 0, f"{path}: CodeBound", 0, 1e6)
    longest = float(codes.norm(dim=1).max())
    reached = state.get("epoch", epoch)
    return Experiment(
        field={
            "width": dims[0],
            "layers": layers,
            "skips": skips,
            "weight_norm": whole,
            "dropout": dropped,
            "output": "tanh",
        },
        weights=weights,
        codes=codes,
        transforms=dict(zip(ids, transforms, strict=True)),
        clamp=number(specs.get("ClampingDistance", 0.1), f"{path}: ClampingDistance", 1e-6, 1e6),
        # as saved, a code may lie a little beyond the bound (it is put back at its next use), and is used as
        # it is
        code_norm=max(bound, 1.0001 * longest) if bound else 1e6,
        epoch=reached if isinstance(reached, int) else epoch,
        data=root,
        notes=notes,
    )


def _check_architecture(
    specs: dict[str, Any], network: dict[str, Any], dims: list[int], skips: list[int], path: Path
) -> set[int]:
    """The layers that are normalised. NifError for a network that is not read."""
    if specs.get("NetworkArch", "deep_sdf_decoder") != "deep_sdf_decoder":
        raise NifError(f"{path}: NetworkArch is {shown(specs['NetworkArch'])}; deep_sdf_decoder is read")
    for key, unread in (("xyz_in_all", True), ("use_tanh", True)):
        if network.get(key) == unread:
            raise NifError(f"{path}: NetworkSpecs.{key} is {str(unread).lower()}, which is not read")
    if not dims or len(set(dims)) > 1 or not all(0 < k < len(dims) for k in skips):
        raise NifError(
            f"{path}: dims {shown(dims)}, latent_in {shown(skips)}: layers of one width, with skips "
            "inside, are read"
        )
    normed = set(_wholes(network.get("norm_layers"), f"{path}: NetworkSpecs.norm_layers"))
    if normed and not network.get("weight_norm"):
        raise NifError(
            f"{path}: it has layer normalisation (norm_layers without weight_norm), which is not read"
        )
    return normed


def _network(specs: dict[str, Any], path: Path) -> tuple[dict[str, Any], list[int], list[int], int]:
    """NetworkSpecs, its dims and latent_in, and CodeLength."""
    network = specs.get("NetworkSpecs")
    if not isinstance(network, dict):
        raise NifError(f"{path}: not the specs of a DeepSDF experiment: it has no NetworkSpecs")
    dims = _wholes(network.get("dims"), f"{path}: NetworkSpecs.dims", 1)
    skips = _wholes(network.get("latent_in"), f"{path}: NetworkSpecs.latent_in")
    return network, dims, skips, whole(specs.get("CodeLength"), f"{path}: CodeLength", 1, LARGEST_SIZE)


def _wholes(value: Any, where: str, least: int = 0) -> list[int]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > 1000:
        raise NifError(f"{where} is {shown(repr(value))}; it must be a list of whole numbers, one a layer")
    return [whole(n, where, least, LARGEST_SIZE) for n in value]


def _load(path: Path, folder: Path, epoch: str) -> Any:
    if not re.fullmatch(r"\w+", epoch):
        raise NifError(f"epoch={epoch}: must be latest or a number")
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.pth"))[:10]) or "none"
        raise NifError(f"{path}: no such snapshot; there are: {there}")
    return read_torch(path, "snapshot of DeepSDF")


def _weights(
    theirs: dict[str, Tensor], layers: int, skips: list[int], size: int, whole: bool, folder: Path
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for i in range(layers + 1):
        name = f"network.hidden.{i}" if i < layers else "network.last"
        g, v = theirs.get(f"lin{i}.weight_g"), theirs.get(f"lin{i}.weight_v")
        weight, bias = theirs.get(f"lin{i}.weight"), theirs.get(f"lin{i}.bias")
        for part in (g, v, weight, bias):
            if part is not None and not (
                isinstance(part, Tensor) and part.is_floating_point() and bool(part.isfinite().all())
            ):
                raise NifError(f"{folder}: its ModelParameters hold no finite numbers in layer lin{i}")
        if bias is None or (weight is None and (g is None or v is None)):
            raise NifError(f"{folder}: its ModelParameters have no layer lin{i}, which specs.json promises")
        if v is not None and g is not None and not (whole and i < layers):
            if v.dim() != 2 or g.shape != (len(v), 1):
                raise NifError(
                    f"{folder}: its layer lin{i} has weight_g {list(g.shape)} and weight_v {list(v.shape)}"
                )
            weight = torch._weight_norm(v, g, 0)  # pyright: ignore[reportPrivateImportUsage]
            g = v = None
        matrix = v if v is not None else weight
        assert matrix is not None
        least = size + 3 if i == 0 or i in skips else 1
        if matrix.dim() != 2 or bias.dim() != 1 or matrix.shape[1] < least:
            raise NifError(
                f"{folder}: its layer lin{i} is {list(matrix.shape)}, {list(bias.shape)}; specs.json "
                "promises another"
            )
        if i == 0:  # [code, xyz] -> [xyz, code]
            matrix = torch.cat((matrix[:, size:], matrix[:, :size]), 1)
        elif i in skips:  # [h, code, xyz] -> [h, xyz, code]
            h = matrix.shape[1] - size - 3
            matrix = torch.cat((matrix[:, :h], matrix[:, h + size :], matrix[:, h : h + size]), 1)
        sign = -1.0 if i == layers else 1.0
        found[f"{name}.weight"], found[f"{name}.bias"] = sign * matrix.float(), sign * bias.float()
        if v is not None and g is not None:
            found[f"{name}.gain"] = g.float()
    return found


def _codes(path: Path, folder: Path, epoch: str, size: int) -> Float[Tensor, "S Z"]:
    """A state dict {weight}, or the plain tensor [S, 1, Z] (or list of them) of older snapshots."""
    state = _load(path, folder, epoch)
    codes = state.get("latent_codes") if isinstance(state, dict) else None
    if isinstance(codes, dict):
        codes = codes.get("weight")
    if isinstance(codes, list) and codes and all(isinstance(c, Tensor) for c in codes):
        codes = torch.stack([c.reshape(-1) for c in codes]) if len({c.numel() for c in codes}) == 1 else codes
    if not isinstance(codes, Tensor) or codes.dim() < 1 or codes.shape[-1] != size or codes.numel() == 0:
        shape = list(codes.shape) if isinstance(codes, Tensor) else type(codes).__name__
        raise NifError(f"{path}: its latent_codes are {shape}; specs.json says CodeLength {size}")
    if not codes.is_floating_point() or not bool(codes.isfinite().all()):
        raise NifError(f"{path}: its latent_codes are {codes.dtype}, or not finite")
    return codes.detach().float().reshape(-1, size)


def _data_folder(folder: Path, specs: dict[str, Any], data: str | None, notes: list[str]) -> Path | None:
    if data is not None:
        path = Path(data).expanduser()
        if not path.is_dir():
            raise NifError(f"data_root={data}: no such folder")
        return path
    source = text(specs.get("DataSource", ""), f"{folder / 'specs.json'}: DataSource")
    for base in (Path(), folder, *folder.resolve().parents):
        if source and (base / source).is_dir():
            return base / source
    source = shown(source)
    notes.append(
        f"its data ({source or 'unnamed'}) is not here: meshes stay in normalised space, or give "
        "data_root=<folder>"
    )
    return None


def _instances(
    folder: Path, specs: dict[str, Any], root: Path | None, count: int, notes: list[str]
) -> tuple[list[str], list[Transform]]:
    """The instance ids in the order of the codes: that of the training split."""
    split = text(specs.get("TrainSplit", ""), f"{folder / 'specs.json'}: TrainSplit")
    bases = [Path(), folder, *folder.resolve().parents, *([root, root.parent] if root else [])]
    path = next(
        (b / s for b in bases for s in (split, Path(split).name) if split and (b / s).is_file()), None
    )
    if path is None:
        split = shown(split)
        notes.append(
            f"its TrainSplit ({split or 'unnamed'}) is not here: shapes are called code_0000, ... in its "
            "order"
        )
        return [f"code_{k:04d}" for k in range(count)], [Transform()] * count
    entries = deepsdf.split_entries(path)
    ids = [e.id for e in entries]
    if len(ids) != count or len(set(ids)) != count:
        raise NifError(
            f"{path}: it names {len(set(ids))} shapes, and there are {count} codes: this is another split"
        )
    transforms, lacking = [], 0
    for e in entries:
        where = e.path(root, deepsdf.NORMALISATION) if root else None
        known = where is not None and where.is_file()
        lacking += root is not None and not known
        transforms.append(deepsdf.read_normalisation(where) if where is not None and known else Transform())
    if lacking:
        notes.append(
            f"{lacking} of {count} shapes have no NormalizationParameters: their meshes stay in normalised "
            "space"
        )
    return ids, transforms
