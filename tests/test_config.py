"""The configuration: everything shipped composes and passes its own check; every mistake is one line that
names it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from nif_cli import NifError, conf_folder
from nif_cli.config import build, check, check_node, did_you_mean, locate, register
from nif_cli.runs import make_model
from nif_cli.schemas import SCHEMAS

CONF = conf_folder()
GROUPS = sorted(p.name for p in CONF.iterdir() if p.is_dir() and p.name != "hydra")
CHOICES = [
    (group, path.stem)
    for group in GROUPS
    for path in sorted((CONF / group).glob("*.yaml"))
    if path.stem not in ("sampling", "batches", "rays")  # a part of the data groups, no choice
]


ONE_SHAPE = (("field", "igr"), ("field", "voxel"), ("field", "spline"))  # these hold no codes


def composed(command: str, *overrides: str) -> dict:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(command, list(overrides))
        for key in ("path", "root"):  # what the user must give
            if isinstance(cfg.get("data"), DictConfig) and OmegaConf.is_missing(cfg.data, key):
                cfg.data[key] = "x.obj"
        for key in cfg:
            if OmegaConf.is_missing(cfg, key):
                cfg[key] = "x"
        return vars(check(cfg, command))


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=lambda c: c)
def test_every_choice_composes_and_passes(group, choice):
    # some choices go with one model only
    model = ["model=sdf"] if (group, choice) in ONE_SHAPE else []
    assert composed("prepare" if group == "engine" else "train", *model, f"{group}={choice}")


NETWORKS = [c for c in CHOICES if c[0] in ("field", "encoding", "encoder", "model")]


@pytest.mark.parametrize(("group", "choice"), NETWORKS, ids=lambda c: c)
def test_every_network_can_be_made_and_run(group, choice):
    """Every field, encoding and model: from its YAML to values at points."""
    sdf = (group, choice) in (*ONE_SHAPE, ("model", "sdf"))
    overrides = ["model=sdf", "data.path=x.obj"] if sdf else []
    if (group, choice) != ("model", "sdf"):
        overrides.append(f"{group}={choice}")
    if group == "encoding":
        overrides.insert(0, "field=mlp")
    if group == "encoder" or choice == "local":
        overrides.insert(0, "model=occupancy")
    if group == "field" and choice in ("nerf", "ngp"):
        overrides.insert(0, "model=nerf")
    if group == "field" and choice == "neus":
        overrides.insert(0, "model=neus")
    model = make_model(composed("train", *overrides))
    network = model.get_submodule("network")
    if choice in ("nerf", "ngp", "neus"):
        density, rgb = network(torch.rand(5, 3), torch.nn.functional.normalize(torch.rand(5, 3), dim=-1))
        assert torch.isfinite(density).all()
        assert torch.isfinite(rgb).all()
        return
    size: int = getattr(model, "code_size", 0)
    code = torch.zeros(1, size) if size else None
    if getattr(network, "local", False):
        code = torch.zeros(1, 3, size, 8, 8)
    dim = 2 if group != "encoder" and choice in ("image", "curve") else 3
    assert torch.isfinite(network(torch.rand(1, 5, dim), code)).all()


@pytest.mark.parametrize("experiment", [p.stem for p in (CONF / "experiment").glob("*.yaml")])
def test_every_experiments_model_can_be_made(experiment):
    assert make_model(composed("train", f"experiment={experiment}"))


@pytest.mark.parametrize("command", SCHEMAS)
def test_every_command_composes(command):
    """And every key of its schema is in its YAML, where help reads it."""
    config = composed(command)
    assert list(config)
    assert set(SCHEMAS[command].__dataclass_fields__) - {"experiment"} == set(config) - {"experiment"}


def test_the_papers_decoder():
    """field=deepsdf with a code of 256 has the 1,843,195 parameters of the published decoder."""
    model = make_model(composed("train", "field=deepsdf", "model.code_size=256"))
    assert sum(p.numel() for p in model.get_submodule("network").parameters()) == 1_843_195


def test_a_model_picks_its_data_and_field_and_the_users_choice_wins():
    assert "Meshes" in composed("train", "model=sdf", "data.path=x")["data"]["_target_"]
    assert "Siren" in composed("train", "model=sdf", "data.path=x")["field"]["_target_"]
    mine = composed("train", "model=sdf", "data=toy_shapes", "field=relu")
    assert "ToyShapes" in mine["data"]["_target_"]
    assert "MLP" in mine["field"]["_target_"]
    assert not mine["encoding"]


def test_numbers_are_numbers():
    """YAML 1.1 reads 1e-3 as a string; here it is a number, and so are integers where floats are asked
    for."""
    config = composed("train", "model.lr=1e-3", "model.clamp=1", "optimizer.eps=1e-9")
    assert config["model"]["lr"] == 1e-3
    assert isinstance(config["model"]["lr"], float)
    assert config["optimizer"]["eps"] == 1e-9


MISTAKES = {
    # what is typed: what the line must say
    "modle=sdf": ["no key 'modle'", "did you mean 'model'"],
    "modle.lr=1": ["modle", "did you mean 'model'"],
    "+modle=sdf": ["no key 'modle'", "did you mean 'model'"],
    "+modle.lr=1": ["no key 'modle'", "did you mean 'model'"],
    "model.lrr=1e-3": ["no key 'model.lrr'", "did you mean 'lr'"],
    "+model.lrr=1e-3": ["no key 'model.lrr'", "did you mean 'lr'"],
    "+data.sampels=10": ["no key 'data.sampels'", "did you mean 'samples'"],
    "+trainer.max_stepz=10": ["no key 'trainer.max_stepz'", "did you mean 'max_steps'"],
    "+field.widht=3": ["no key 'field.widht'", "did you mean 'width'"],
    "~model": ["model"],
    "model.lr=abc": ["model.lr='abc'", "number"],
    "model.lr=null": ["model.lr", "number"],
    "model.lr=true": ["model.lr", "number"],
    "model.lr=[1]": ["model.lr", "number"],
    "model.lr=-1": ["lr=-1", "positive"],
    "data.count=1.5": ["data.count=1.5", "whole number"],
    "data.count=0": ["count=0"],
    "data.families=[chiar]": ["chiar", "chair"],
    "data.split=tset": ["data.split='tset'", "train"],
    "field.width=many": ["field.width='many'"],
    "field.activation=rleu": ["field.activation='rleu'", "relu"],
    "seed=abc": ["seed", "abc"],
    "seed=-1": ["seed"],
    "seed=99999999999999": ["seed"],
    "device=gpu": ["device=gpu", "cuda"],
    "model=sfd": ["no model 'sfd'", "did you mean 'sdf'"],
    "field=sirem": ["no field 'sirem'", "did you mean 'siren'"],
    "data=meshs": ["no data 'meshs'", "did you mean 'meshes'"],
    "experiment=sdf_sirn": ["no experiment 'sdf_sirn'", "did you mean 'sdf_siren'"],
    "+experiment=sdf_sirn": ["sdf_sirn"],
    "optimizer=zzz": ["no optimizer 'zzz'", "adam", "sgd"],
    "callbacks=null": ["callbacks"],
    "data=meshes": ["data.path is missing", "file or folder"],
    "model=sdf": ["data.path is missing"],
    "model._target_=os.system": ["model._target_=os.system", "refused"],
    "+trainer.logger=false": ["trainer.logger", "nif itself"],
    "+trainer.accelerator=gpu": ["trainer.accelerator", "device"],
    "trainer.max_steps=-1": ["max_steps or max_time"],
    "trainer.max_time=-5": ["trainer.max_time"],
    "trainer.max_time=0": ["trainer.max_time", "1h30m"],
    "trainer.max_time=10:00": ["trainer.max_time", "1h30m"],
    "trainer.max_time=soon": ["trainer.max_time", "days:hours:minutes:seconds"],
    "trainer.precision=foo": ["trainer.precision='foo'"],
    "resume=nowhere": ["resume=nowhere", "no such folder"],
    "init_from=nowhere": ["init_from=nowhere", "no such folder"],
    "foo": ["foo"],
    "model.lr=": ["model.lr"],
    "=3": ["=3"],
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_is_one_line(nif, tiny, typed, tmp_path: Path):
    """It names the key and what would be right, comes before anything heavy, and leaves nothing behind."""
    message = nif("train", *tiny, typed).error
    for word in MISTAKES[typed]:
        assert word in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["extract", "resolutoin=64"], ["no key 'resolutoin'", "did you mean 'resolution'"]),
        (["extract", "+resolutoin=64"], ["no key 'resolutoin'"]),
        (["extract", "resolution=high"], ["resolution", "high"]),
        (["extract", "format=plyy"], ["format=plyy", "did you mean 'ply'"]),
        (["extract", "frame=orignal"], ["frame=orignal", "original"]),
        (["extract", "resolution=0"], ["resolution=0", "at least 2"]),
        (["extract", "resolution=-5"], ["resolution=-5"]),
        (["render", "szie=3"], ["no key 'szie'", "did you mean 'size'"]),
        (["render", "size=0"], ["size=0"]),
        (["render", "frames=0"], ["frames=0"]),
        (["render", "format=avi"], ["format=avi", "mp4"]),
        (["render", "camera=spin"], ["camera=spin", "turntable"]),
        (["render", "up=w"], ["up=w"]),
    ],
)
def test_mistakes_of_the_other_commands(nif, typed, words):
    message = nif(*typed).error
    for word in words:
        assert word in message


class TestOwnConfigs:
    """Groups of the user's own, through --config-dir."""

    def write(self, tmp_path: Path, name: str, text: str) -> str:
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return f"--config-dir={tmp_path / 'mine'}"

    def test_they_are_taken(self, nif, tmp_path: Path):
        option = self.write(tmp_path, "experiment/mine.yaml", "# @package _global_\nmodel:\n  lr: 0.125\n")
        shown = nif("train", option, "experiment=mine", "--cfg", "job")
        assert shown.code == 0
        assert "lr: 0.125" in shown.out

    @pytest.mark.parametrize(
        ("name", "text", "words"),
        [
            (
                "experiment/x.yaml",
                "# @package _global_\nmodle:\n  lr: 1\n",
                ["no key 'modle'", "did you mean 'model'"],
            ),
            (
                "experiment/x.yaml",
                "# @package _global_\nmodel:\n  lrr: 1\n",
                ["model.lrr", "did you mean 'lr'"],
            ),
            ("experiment/x.yaml", "# @package _global_\nmodel:\n  lr: fast\n", ["model.lr='fast'", "number"]),
            ("experiment/x.yaml", "# @package _global_\nseed: x\n", ["seed"]),
            ("experiment/x.yaml", "# @package _global_\nmodel: [\n", ["x.yaml"]),
            ("experiment/x.yaml", "# @package _global_\ndefaults:\n  - override /model: sfd\n", ["sfd"]),
            ("experiment/x.yaml", "# @package _global_\nmodel:\n  lr: ${nothing.here}\n", ["model.lr"]),
            (
                "field/x.yaml",
                "_target_: nif_cli.fields.mlp.MPL\n_partial_: true\n",
                ["MPL", "did you mean 'MLP'"],
            ),
            (
                "field/x.yaml",
                "_target_: torch.hub.load\n_partial_: true\n",
                ["field._target_=torch.hub.load", "refused"],
            ),
            ("field/x.yaml", "width: 3\n", ["field"]),
            ("field/x.yaml", "- 1\n", ["field"]),
        ],
    )
    def test_their_mistakes_are_one_line(self, nif, tiny, tmp_path: Path, name, text, words):
        option = self.write(tmp_path, name, text)
        group = name.split("/")[0]
        rest = [o for o in tiny if not o.startswith("field")] if group == "field" else tiny
        message = nif("train", option, *rest, f"{group}=x").error
        for word in words:
            assert word in message
        assert not (tmp_path / "outputs").exists()


REFUSED = [
    "nif_cli.cli.os.system",
    "nif_cli.runs.os.system",
    "nif_cli.runs.pickle.loads",
    "nif_cli.runs.Path",
    "nif_cli.runs.zipfile.ZipFile",
    "nif_cli.data.shapes.datamodule.ThreadPoolExecutor",
    "nif_cli.cli.main",
    "nif_cli.runs.write",
    "nif_cli.runs.load_model",
    "torch.hub.load",
    "torch.hub.load_state_dict_from_url",
    "torch.load",
    "torch.nn.Module.__init__",
    "torch.nn.functional.relu",
    "torch.nn.modules.module.torch.hub.load",
    "torch.utils.data.DataLoader",
    "torch.optim.lr_scheduler.partial",
    "os.system",
    "builtins.eval",
    "builtins.exec",
    "subprocess.Popen",
    "importlib.import_module",
    "hydra.utils.instantiate",
    "torch",
    "torch.nn",
    "nif_cli",
    "",
    ".",
    "..",
    "torch.nn.",
    "__main__.x",
    "nif_cli_evil.Thing",
    "torch_evil.Thing",
    3,
    None,
    ["torch.optim.AdamW"],
]


@pytest.mark.parametrize("target", REFUSED, ids=str)
def test_nothing_but_our_classes_is_built(target):
    with pytest.raises(NifError, match="_target_"):
        locate(target, "model")
    with pytest.raises(NifError, match="_target_"):
        build({"_target_": target, "command": "touch ran"}, "model")
    with pytest.raises(NifError, match="_target_"):
        build({"a": [{"b": {"_target_": target, "_partial_": True}}]}, "model")


def test_a_target_runs_no_program():
    """`nif_cli.__main__` is a module of ours; to look into it must not start the command line."""
    with pytest.raises(NifError, match="_target_"):
        locate("nif_cli.__main__.Thing", "model")


@pytest.mark.parametrize(
    "target",
    [
        "torch.optim.AdamW",
        "torch.optim.lr_scheduler.StepLR",
        "torch.nn.ReLU",
        "nif_cli.fields.mlp.MLP",
        "pytorch_lightning.Trainer",
        "pytorch_lightning.callbacks.EarlyStopping",
        "pytorch_lightning.loggers.TensorBoardLogger",
    ],
)
def test_our_classes_and_those_of_the_libraries_are_found(target):
    assert locate(target).__name__ == target.rpartition(".")[2]


def test_only_the_environment_adds_prefixes(monkeypatch):
    """NIF_ALLOW lets the user's own classes in, never functions, and no configuration can set it."""
    with pytest.raises(NifError, match="refused"):
        locate("fractions.Fraction")
    monkeypatch.setenv("NIF_ALLOW", "somewhere., fractions")
    assert locate("fractions.Fraction").__name__ == "Fraction"
    assert build({"_target_": "fractions.Fraction", "numerator": 1}, "x") == 1
    monkeypatch.setenv("NIF_ALLOW", "os,subprocess,torch.hub")
    for function in ("os.system", "subprocess.run", "torch.hub.load"):
        with pytest.raises(NifError, match="refused"):
            locate(function)


@pytest.mark.parametrize("typed", ["NIF_ALLOW=os", "+NIF_ALLOW=os", "+allowed=[os]", "+model.allowed=[os]"])
def test_no_configuration_adds_prefixes(nif, tiny, typed):
    assert "no key" in nif("train", *tiny, typed).error
    assert "refused" in nif("train", *tiny, "model._target_=os.system").error


def test_build_makes_nested_objects_first():
    layers = build({"_target_": "torch.nn.Sequential", "_partial_": True}, "x")
    assert layers().__class__ is torch.nn.Sequential
    found = build({"a": 1, "b": [{"_target_": "torch.nn.ReLU"}], "c": {"d": None}}, "x")
    assert (found["a"], found["c"]) == (1, {"d": None})
    assert isinstance(found["b"][0], torch.nn.ReLU)


def test_what_a_constructor_says_names_the_node():
    with pytest.raises(NifError, match=r"^encoding: frequencies=0"):
        build({"_target_": "nif_cli.fields.encodings.Positional", "dim": 3, "frequencies": 0}, "encoding")


@pytest.mark.parametrize("value", [1e308, float("nan"), 0.5, "many", [3]])
def test_what_a_constructor_declares_whole_is_whole(value):
    """Also where it would not stumble over it at once, as a checkpoint's configuration may say anything."""
    node = {"_target_": "nif_cli.encoders.pointcloud.PointNet", "code_size": 8, "width": 8, "blocks": 1}
    with pytest.raises(
        NifError, match=r"^encoder\.points .*whole number|^encoder\.points .*must be a number"
    ):
        build({**node, "points": value}, "encoder")
    made = build({**node, "points": 30.0}, "encoder")
    assert isinstance(made.size, int)
    assert made.size == 30


@pytest.mark.parametrize("value", [10**400, -(10**40), [1, {"deep": 2**64}]])
def test_no_whole_number_is_larger_than_a_library_takes(value):
    with pytest.raises(NifError, match=r"^data\.x\S*=\S+: no number here is that large$"):
        check_node({"x": value}, "data")
    check_node({"x": [2**63, -(2**63)]}, "data")


@pytest.mark.parametrize("spread", [[float("nan")], [0.1, float("inf")], [-1.0], [1e300], []])
def test_deviations_are_numbers_of_a_shapes_size(spread):
    with pytest.raises(NifError, match=r"^data: spread must be a list of standard deviations"):
        build({"_target_": "nif_cli.data.shapes.toy.ToyShapes", "spread": spread}, "data")


def test_suggestions_are_close_or_all():
    assert did_you_mean("modle", ["model", "data"]) == "; did you mean 'model'?"
    assert did_you_mean("zzz", ["model", "data"]) == "; there are model, data"
    assert did_you_mean("zzz", []) == ""
