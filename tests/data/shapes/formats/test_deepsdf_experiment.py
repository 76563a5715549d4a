"""Experiments in the layout of the published DeepSDF code, against a decoder written from the paper's
description."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

SIZE, WIDTH = 6, 32
# the published code's weight norm, which torch has a newer one of
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.nn.utils.weight_norm.*:FutureWarning")


class Decoder(nn.Module):
    """Section 4.2 and the supplement: fully connected layers on [code, xyz], the input again at the fourth,
    weight norm and ReLU on all but the last, tanh at the end. Positive outside. Names as in the published
    checkpoints."""

    def __init__(self, layers: int = 8, skip: int = 4):
        super().__init__()
        self.layers, self.skip = layers, skip
        inputs = SIZE + 3
        for i in range(layers + 1):
            enter = inputs if i == 0 else WIDTH
            leave = 1 if i == layers else WIDTH - inputs if i + 1 == skip else WIDTH
            linear = nn.Linear(enter, leave)
            if i < layers:
                linear = nn.utils.weight_norm(linear)
                linear.get_parameter("weight_g").data.mul_(1.5)
            setattr(self, f"lin{i}", linear)

    def forward(self, both: torch.Tensor) -> torch.Tensor:
        x = both
        for i in range(self.layers + 1):
            if i == self.skip:
                x = torch.cat((x, both), 1)
            x = getattr(self, f"lin{i}")(x)
            if i < self.layers:
                x = torch.relu(x)
        return torch.tanh(x)


IDS = [f"shape{k}" for k in range(5)]


def write_experiment(folder: Path, plain_codes: bool = False, **changes) -> tuple[Decoder, torch.Tensor]:
    torch.manual_seed(3)
    decoder, codes = Decoder(), torch.randn(5, SIZE) * 0.3
    for kind in ("ModelParameters", "LatentCodes"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    state = {f"module.{k}": v for k, v in decoder.state_dict().items()}
    torch.save({"epoch": 2000, "model_state_dict": state}, folder / "ModelParameters" / "latest.pth")
    saved = codes[:, None] if plain_codes else {"weight": codes}
    torch.save({"epoch": 2000, "latent_codes": saved}, folder / "LatentCodes" / "latest.pth")
    network = {
        "dims": [WIDTH] * 8,
        "dropout": list(range(8)),
        "dropout_prob": 0.2,
        "norm_layers": list(range(8)),
        "latent_in": [4],
        "xyz_in_all": False,
        "use_tanh": False,
        "latent_dropout": False,
        "weight_norm": True,
        **changes.pop("network", {}),
    }
    specs = {
        "Description": "a test",
        "NetworkArch": "deep_sdf_decoder",
        "DataSource": "data",
        "TrainSplit": "splits/train.json",
        "NetworkSpecs": network,
        "CodeLength": SIZE,
        "ClampingDistance": 0.1,
        "CodeBound": 1.0,
        **changes,
    }
    (folder / "specs.json").write_text(json.dumps(specs))
    return decoder, codes


def write_data(folder: Path) -> None:
    """The data folder and the split that the specs name, beside the experiment."""
    (folder / "splits").mkdir(parents=True)
    (folder / "splits" / "train.json").write_text(json.dumps({"Net": {"chairs": IDS}}))
    for k, name in enumerate(IDS):
        path = folder / "data" / "NormalizationParameters" / "Net" / "chairs" / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, offset=np.array([float(k), 0, 0]), scale=np.array([2.0]))


@pytest.mark.parametrize("plain_codes", [False, True])
def test_the_values_are_those_of_the_published_decoder_with_the_sign_turned(tmp_path, nif, plain_codes):
    from nif_cli import runs
    from nif_cli.field import Field

    decoder, codes = write_experiment(tmp_path / "examples" / "chairs", plain_codes)
    write_data(tmp_path)
    out = nif("import-deepsdf", "experiment=examples/chairs", "output_dir=imported")
    assert out.code == 0, out.err
    model = runs.load_model(Path("imported"))
    assert list(model.instances) == [f"chairs/{name}" for name in IDS]  # in the order of the split
    points = torch.rand(200, 3) * 2 - 1
    for k, id in enumerate(model.instances):
        field = model.field(id)
        assert isinstance(field, Field)
        with torch.no_grad():
            theirs = decoder(torch.cat((codes[k].expand(200, -1), points), 1))[:, 0]
            ours = field.value(points)
        assert (ours + theirs).abs().max() < 1e-6
        assert model.instances[id].transform.offset == (float(k), 0, 0)
        assert model.instances[id].transform.scale == 2


def test_weight_norm_in_some_layers_only_is_multiplied_out(tmp_path, nif):
    from nif_cli import runs
    from nif_cli.field import Field

    folder = tmp_path / "e"
    decoder, codes = write_experiment(folder, network={"norm_layers": [0, 1, 2]})
    state = torch.load(folder / "ModelParameters" / "latest.pth", weights_only=True)
    for i in range(3, 8):
        g, v = (state["model_state_dict"].pop(f"module.lin{i}.weight_{x}") for x in "gv")
        state["model_state_dict"][f"module.lin{i}.weight"] = g * v / v.norm(dim=1, keepdim=True)
    torch.save(state, folder / "ModelParameters" / "latest.pth")
    assert nif("import-deepsdf", "experiment=e", "output_dir=imported").code == 0
    model = runs.load_model(Path("imported"))
    points = torch.rand(50, 3)
    theirs = decoder(torch.cat((codes[0].expand(50, -1), points), 1))[:, 0]
    field = model.field("code_0000")
    assert isinstance(field, Field)
    assert (field.value(points) + theirs).abs().max() < 1e-6


def test_what_is_not_here_is_said(tmp_path, nif):
    write_experiment(tmp_path / "e")
    out = nif("import-deepsdf", "experiment=e", "output_dir=imported")
    assert out.code == 0
    assert "TrainSplit" in out.out
    assert "code_0000" in out.out
    assert "NormalizationParameters" in out.out or "normalised space" in out.out


def test_an_imported_run_is_a_run(tmp_path, nif):
    write_experiment(tmp_path / "e")
    assert nif("import-deepsdf", "experiment=e", "output_dir=imported").code == 0
    assert "init_from" in nif("train", "resume=imported").error
    again = nif("import-deepsdf", "experiment=e", "output_dir=imported")
    assert "output_dir" in again.error


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda f: (f / "specs.json").unlink(), "specs.json"),
        (lambda f: (f / "specs.json").write_text("{"), "specs"),
        (lambda f: (f / "ModelParameters" / "latest.pth").unlink(), "no such snapshot"),
        (lambda f: (f / "ModelParameters" / "latest.pth").write_bytes(b"x" * 100), "refused"),
        (
            lambda f: torch.save({"latent_codes": torch.zeros(5, 3)}, f / "LatentCodes" / "latest.pth"),
            "CodeLength",
        ),
        (lambda f: torch.save({"model_state_dict": {}}, f / "ModelParameters" / "latest.pth"), "lin0"),
    ],
)
def test_damaged_experiments(tmp_path, nif, spoil, word):
    write_experiment(tmp_path / "e")
    spoil(tmp_path / "e")
    assert word in nif("import-deepsdf", "experiment=e").error


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"network": {"xyz_in_all": True}}, "xyz_in_all"),
        ({"network": {"use_tanh": True}}, "use_tanh"),
        ({"network": {"weight_norm": False}}, "layer normalisation"),
        ({"network": {"dims": [512, 256]}}, "one width"),
        ({"NetworkArch": "other"}, "deep_sdf_decoder"),
    ],
)
def test_architectures_that_are_not_read(tmp_path, nif, changes, word):
    write_experiment(tmp_path / "e", **changes)
    assert word in nif("import-deepsdf", "experiment=e").error


class Evil:
    def __reduce__(self):
        return (print, ("code of a stranger ran",))


def test_pickled_code_is_refused(tmp_path, nif):
    write_experiment(tmp_path / "e")
    torch.save({"latent_codes": Evil()}, tmp_path / "e" / "LatentCodes" / "latest.pth")
    out = nif("import-deepsdf", "experiment=e")
    assert "could run code" in out.error
    assert "stranger ran" not in out.out
