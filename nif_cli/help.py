"""What `nif help` and `nif <command> --help` say: read from the YAML files themselves, without Hydra, at
once."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Mapping

from nif_cli import NifError, __version__, choices
from nif_cli.choices import Row
from nif_cli.hints import did_you_mean

EXAMPLES = {
    "prepare": """\
  nif prepare input=chairs/ output=prepared                    DeepSDF samples of every mesh in a folder
  nif prepare input=shapenet/ output=prepared format=[deepsdf,onet] repair=solid
  nif prepare 'input="scans/*.ply"' output=prepared samples=100000 workers=8
  nif train data=deepsdf data.root=prepared/deepsdf            then train on it
  nif prepare input=photos/ output=scene/                      cameras of photographs, or of a video
  nif train scene/                                             then train on them""",
    "train": """\
  nif train                                                    a DeepSDF auto-decoder on built-in shapes
  nif train bunny.obj                                          what is in a file or folder is recognised
  nif train model=sdf data.path=bunny.obj                      one shape, one network
  nif train model=deepsdf data=meshes data.path=chairs/        a folder of meshes, a code for each
  nif train model=metasdf data=voxels data.path=chairs.npz data.test=100
      weights that become any chair in a few steps
  nif train model=metasdf data=image data.path=photos/ data.test=20 field.first_omega=30   ... or any image
  nif train model=sdf field=fourier data.path=bunny.obj model.lr=5e-4 trainer.max_time=10m
  nif train experiment=sdf_fast data.path=bunny.obj  one shape in a minute; sdf_sal data=points from a scan
  nif train model=image data.path=photo.jpg                    an image; model=texture a coloured mesh
  nif train -m experiment=frequencies field=relu,siren,hash data.path=photo.jpg   fields side by side
  nif train model=nerf data=transforms data.root=fox/ data.downscale=2
      a scene from photographs; also blender, llff, colmap
  nif train model=occupancy data=meshes data.path=chairs/ data.test=20     shapes from point clouds
  nif train model=occupancy encoder=image data=onet data.root=shapenet/    shapes from images
  nif train -m model=sdf field=mlp,siren data.path=bunny.obj
      a sweep; hydra/launcher=joblib runs it in parallel
  nif train resume=latest trainer.max_time=10m                 go on where a run stopped
  nif train init_from=outputs/sdf-meshes/... data.path=b.obj   start from another run's weights""",
    "extract": """\
  nif extract                                        meshes of the latest run
  nif extract run=outputs/sdf-meshes/... resolution=256 format=glb
  nif extract resolution=1024 largest=true refine=2 faces=200000
      as large as you like: work and memory follow the surface
  nif extract 'bounds=[0,0,0,10,10,5]' resolution=512 normals=true    a part of it, in your units
  nif extract instances=all checkpoint=best
  nif extract 'instances=["chair/*"]' frame=normalised
  nif extract 'instances=[chair/0000,chair/0003]' interpolate=8     shapes between two learned ones
  nif extract sample=5                               new shapes, drawn at random
  nif extract run=[outputs/a,outputs/b] compose=smooth_union blend=0.5
      a new shape of two; also difference, morph, ...
  nif extract format=html resolution=128             a page of all of them that opens from the disk
  nif extract format=glb texture=2048 faces=20000    of a run with colours; format=onnx: the field itself
  nif extract offset=0.4 shell=1.5  thicker, and hollow with walls of 1.5 (in the shape's own units)""",
    "render": """\
  nif render                                         one sheet of views for each shape of the latest run
  nif render format=mp4 frames=72 size=512
  nif render size=2000 crop=[100,100,200,150]        a part of an image (model=image), magnified
  nif render instances=1 up=z elevation=30
  nif render 'channels=[rgb,normal,depth]'           a file each; format=npy for their values
  nif render run=[outputs/a,outputs/b] compose=morph interpolate=48 frames=1 format=mp4
  nif render camera=spiral frames=60 format=mp4      a scene (model=nerf); camera=test: its held-out views
  nif render channels=[rgb,depth,normal] frames=4    depth, normals and opacity beside the colours
  nif render 'instances=[chair/0000,chair/0003]' interpolate=48 format=gif""",
    "view": """\
  nif view                                           the latest run, at http://127.0.0.1:8080
  nif view run=outputs/sdf-meshes/... resolution=256 open=true
  nif view port=9000 host=0.0.0.0                    for others on the network too; there is no password
  nif view run=[outputs/a,outputs/b] compose=smooth_union blend=0.5""",
    "reconstruct": """\
  nif reconstruct input=chair.ply                    a mesh or a scan, by the latest run
  nif reconstruct input=scans/ steps=800 restarts=8 picture=true
  nif reconstruct input=chair.obj observe=depth pose=3        complete it from one depth view
  nif reconstruct input=chair.obj observe=oriented keep=x+ points=2000 noise=0.005
  nif reconstruct input=chair.obj steps=10 save=run
      a run of model=metasdf: the adapted network, to be refined
  nif reconstruct input=photo.jpg points=20000 steps=10
      a run of model=metasdf data=image: an image from its pixels""",
    "evaluate": """\
  nif evaluate                                       the shapes that the latest run knows, against their truth
  nif evaluate protocol=[deepsdf,convonet] split=test instances=16
  nif evaluate protocol=blender  a run of model=nerf: its test views, as PNGs beside the truth
  nif evaluate run=outputs/... +data.path=more_chairs/ split=all observe=points points=300 noise=0.005
  nif evaluate split=test curve=[0,1,2,5,20,100] instances=8
      a run of model=metasdf against Adam from elsewhere
  nif evaluate mesh=a.ply reference=b.ply protocol=[onet,srb,two_way]""",
    "import-deepsdf": """\
  nif import-deepsdf experiment=DeepSDF/examples/chairs
  nif import-deepsdf experiment=DeepSDF/examples/planes epoch=1000 data_root=DeepSDF/data output_dir=planes
  nif extract run=planes                             then everything works on it""",
}


def command_list(commands: Mapping[str, str]) -> str:
    lines = "\n".join(f"  {name:<14} {what}" for name, what in commands.items())
    return (
        f"nif {__version__}: neural implicit fields, from data to meshes and images.\n\n"
        f"usage: nif <command> [key=value ...]\n\n{lines}\n\n"
        "nif <command> --help shows its keys, nif help data the choices of a group, nif help data=meshes the "
        "keys of one.\n"
        'Completion (also zsh; fish by "| source"): eval "$(nif -sc install=bash)"'
    )


def of_command(command: str, words: Iterable[str] = ()) -> str:
    """The keys of a command; with words (field=siren) all those of the configuration that they choose."""
    words = [w for w in words if choices.WORD.fullmatch(w) or w.startswith("--config-dir=")]
    where = choices.folders(words)
    composed = choices.compose(command, words)
    text = [f"usage: nif {command} [key=value ...]", "", *_wrapped(composed.page.about, "")]
    shown = []
    for group, chosen in composed.groups.items():
        names = choices.names(group, where)
        if names:
            listed = " ".join(f"[{n}]" if n == chosen else n for n in names)
            shown += _wrapped(f"{group + '=':<13} {listed}", "  ", 16)
    if shown:
        text += ["", "groups (nif help data says what each is; nif help data=meshes shows its keys):", *shown]
    own = [g for g in composed.groups if composed.groups[g] is not None]
    root = {k: r for k, r in composed.rows.items() if k.split(".")[0] not in own}
    if any(choices.WORD.fullmatch(w) for w in words) and own:
        for group in own:
            rows = {k: r for k, r in composed.rows.items() if k.startswith(f"{group}.")}
            text += _section(f"{group}={composed.groups[group]}", group, rows, where)
    text += ["", "keys:", *_keys(root)]
    if not any(choices.WORD.fullmatch(w) for w in words):
        text += ["", "examples:", EXAMPLES[command]]
    text += [
        "",
        "also: --cfg job (print the configuration), --config-dir=DIR (your own groups), -m (sweep over "
        "a,b,c)",
    ]
    return "\n".join(text)


def of_words(words: list[str], commands: Iterable[str]) -> str:
    """`nif help data` (its choices), `nif help data=meshes field=siren` (their keys), `nif help resolution`
    (wherever there is such a key). NifError for a word that is none of these."""
    where = choices.folders(words)
    groups = choices.groups(where)
    composed = choices.compose("train", words)
    text: list[str] = []
    for word in (w for w in words if not w.startswith("--")):
        found = choices.WORD.fullmatch(word)
        group, name = (found["key"], found["value"]) if found else (word.rstrip("="), None)
        if group in groups and name:
            for one in name.split(","):
                if (group, one) == ("data", "auto"):
                    text += ["", "data=auto", f"  {AUTO}"]
                    continue
                choices.page_of(group, one, where)  # there is one, or a line says so
                rows = choices.compose("train", [*words, f"{group}={one}"]).rows
                text += _section(f"{group}={one}", group, rows, where)
        elif found and "." in group:
            continue  # a value, seen above
        elif group in groups:
            text += ["", *_choices(group, composed.groups.get(group), where)]
        elif lines := _wherever(group, commands, where):
            text += ["", *lines]
        else:
            known = [*commands, *groups, *(k.rpartition(".")[2] for k in composed.rows)]
            raise NifError(f"help {word[:100]}: no command, group or key{did_you_mean(group, known)}")
    return "\n".join(text).strip("\n")


AUTO = "whatever lies at data.path: the reader is picked, and said (as nif train <file or folder> does)"


def _choices(group: str, chosen: str | None, where: list[choices.Path]) -> list[str]:
    names = choices.names(group, where)
    width = max(map(len, names), default=0) + 2
    lines = [f"{group}=<one of these>  (nif help {group}={chosen or names[0]} shows its keys)"]
    if group == "data":
        lines.append(f" {' auto':<{width}} {AUTO}")
    for name in names:
        about = choices.page_of(group, name, where).sentence
        shown = f"[{name}]" if name == chosen else f" {name}"
        lines.append(f" {shown:<{width}} {about}".rstrip())
    return lines


def _section(title: str, group: str, rows: Mapping[str, Row], where: list[choices.Path]) -> list[str]:
    """A choice: what it is, what it chooses in other groups, its keys."""
    name = title.partition("=")[2]
    page = choices.merged(group, name, where)
    text = ["", title, *(_wrapped(page.about, "  ") if page.about else [])]
    others = dict(reversed(list(choices.chosen_by(group, name, where))))
    if others:
        text.append(f"  chooses {' '.join(f'{g}={c}' for g, c in others.items())}, unless you do")
    if page.rooted:
        return text + _keys(page.rows)
    prefix = f"{group}."
    target = rows.get(f"{prefix}_target_")
    if target:
        text.append(f"  {target.value}")
    lines = _keys({k: r for k, r in rows.items() if k.startswith(prefix)})
    return text + lines


def _keys(rows: Mapping[str, Row]) -> list[str]:
    shown = {k: r for k, r in rows.items() if k.rpartition(".")[2] not in ("_target_", "_partial_")}
    width = min(max((len(k) + len(r.value) for k, r in shown.items()), default=0) + 3, 34)
    lines = []
    for key, row in shown.items():
        lines += _wrapped(f"{key + '=' + row.value:<{width}} {row.comment}".rstrip(), "  ", width + 3)
    return lines


def _wherever(key: str, commands: Iterable[str], where: list[choices.Path]) -> list[str]:
    """A line for each command and each choice that has the key."""
    found: dict[str, list[str]] = {}
    last = key.rpartition(".")[2]
    for command in commands:
        path = where[0] / f"{command}.yaml"
        row = choices.read_page(path).rows.get(key) if path.is_file() else None
        if row:
            found.setdefault(f"{key}={row.value}\0{row.comment}", []).append(f"nif {command}")
    for group in choices.groups(where):
        for name in choices.names(group, where):
            page = choices.merged(group, name, where)
            for k, row in page.rows.items():
                full = k if page.rooted else f"{group}.{k}"
                if not page.rooted and (full == key or k == key or k.rpartition(".")[2] == last == key):
                    found.setdefault(f"{full}={row.value}\0{row.comment}", []).append(f"{group}={name}")
    lines = []
    for said, places in found.items():
        text, _, comment = said.partition("\0")
        lines += [*_wrapped(f"{text:<24} {comment}".rstrip(), "  ", 27)]
        lines += _wrapped(f"of {', '.join(places)}", "      ")
    return lines


def _wrapped(text: str, indent: str, hang: int | None = None) -> list[str]:
    """Lines no wider than the terminal; at least 80, at most 140 where it is wider or none."""
    width = max(80, min(shutil.get_terminal_size((140, 24)).columns, 140))
    under = indent if hang is None else " " * min(hang, width // 2)
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=under,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    ) or [""]
