"""The dispatcher: `nif <command> [overrides]`. Everything heavy is imported inside, so that help and
completion are instant."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path

from nif_cli import NifError, __version__, conf_folder
from nif_cli.terminal import lost, printable, printing

COMMANDS = {
    "prepare": "sample meshes into a dataset that other tools read too",
    "train": "learn a field from data; makes a run folder",
    "extract": "turn the fields of a run into meshes",
    "render": "make pictures of the fields of a run",
    "reconstruct": "meshes of new shapes from scans, samples, depth pictures or voxels",
    "evaluate": "how good the meshes of a run are, by the published protocols",
    "import-deepsdf": "a trained experiment of the published DeepSDF code as a run",
    "runs": "the runs on this disk: list, show, compare, best, rm, prune",
}
LONGEST = 1600  # characters of a message
ALIASES = {"extract-mesh": "extract"}
EXAMPLES = {
    "prepare": """\
  nif prepare input=chairs/ output=prepared                    DeepSDF samples of every mesh in a folder
  nif prepare input=shapenet/ output=prepared format=[deepsdf,onet] repair=solid
  nif prepare 'input="scans/*.ply"' output=prepared samples=100000 workers=8
  nif train data=deepsdf data.root=prepared/deepsdf            then train on it""",
    "train": """\
  nif train                                                    a DeepSDF auto-decoder on built-in shapes
  nif train model=sdf data.path=bunny.obj                      one shape, one network
  nif train model=deepsdf data=meshes data.path=chairs/        a folder of meshes, a code for each
  nif train model=metasdf data=voxels data.path=chairs.npz data.test=100
      weights that become any chair in a few steps
  nif train model=metasdf data=image data.path=photos/ data.test=20 field.first_omega=30   ... or any picture
  nif train model=sdf field=fourier data.path=bunny.obj model.lr=5e-4 trainer.max_time=00:00:10:00
  nif train experiment=sdf_fast data.path=bunny.obj  one shape in a minute; sdf_sal data=points from a scan
  nif train model=image data.path=photo.jpg                    a picture; model=texture a coloured mesh
  nif train -m experiment=frequencies field=relu,siren,hash data.path=photo.jpg   fields side by side
  nif train model=nerf data=transforms data.root=fox/ data.downscale=2
      a scene from photographs; also blender, llff, colmap
  nif train model=occupancy data=meshes data.path=chairs/ data.test=20     shapes from point clouds
  nif train model=occupancy encoder=image data=onet data.root=shapenet/    shapes from pictures
  nif train -m model=sdf field=mlp,siren data.path=bunny.obj
      a sweep; hydra/launcher=joblib runs it in parallel
  nif train resume=latest trainer.max_time=00:00:10:00         go on where a run stopped
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
  nif extract offset=0.4 shell=1.5  thicker, and hollow with walls of 1.5 (in the shape's own units)""",
    "render": """\
  nif render                                         one sheet of views for each shape of the latest run
  nif render format=mp4 frames=72 size=512
  nif render size=2000 crop=[100,100,200,150]        a part of a picture (model=image), magnified
  nif render instances=1 up=z elevation=30
  nif render 'channels=[rgb,normal,depth]'           a file each; format=npy for their values
  nif render run=[outputs/a,outputs/b] compose=morph interpolate=48 frames=1 format=mp4
  nif render camera=spiral frames=60 format=mp4      a scene (model=nerf); camera=test: its held-out views
  nif render channels=[rgb,depth,normal] frames=4    depth, normals and opacity beside the colours
  nif render 'instances=[chair/0000,chair/0003]' interpolate=48 format=gif""",
    "reconstruct": """\
  nif reconstruct input=chair.ply                    a mesh or a scan, by the latest run
  nif reconstruct input=scans/ steps=800 restarts=8 picture=true
  nif reconstruct input=chair.obj observe=depth pose=3        complete it from one depth view
  nif reconstruct input=chair.obj observe=oriented keep=x+ points=2000 noise=0.005
  nif reconstruct input=chair.obj steps=10 save=run
      a run of model=metasdf: the adapted network, to be refined
  nif reconstruct input=photo.jpg points=20000 steps=10
      a run of model=metasdf data=image: a picture from its pixels""",
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


def main(argv: list[str] | None = None) -> None:
    """Entry point of `nif`. Exit code 0, 1 (the user can mend it) or 2 (usage)."""
    args = sys.argv[1:] if argv is None else argv
    with printing():
        out = sys.stdout
        try:
            code = _main(list(args))
        except SystemExit as stop:  # a task that has said why
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except KeyboardInterrupt:
            print("nif: interrupted", file=sys.stderr)
            code = 130
    problem = lost(out)
    if problem:
        _say(problem)
        code = code or 1
    sys.exit(code)


def _main(args: list[str]) -> int:
    completing = bool(args) and args[0].startswith("-sc")
    if completing:  # bash calls `nif -sc query=bash` with the line typed so far in COMP_LINE
        return _complete(args)
    if not args or args[0] in ("-h", "--help", "help"):
        if len(args) > 1 and _command(args[1]):
            print(_help(_command(args[1])))  # type: ignore[arg-type]
        else:
            print(_overview())
        return 0
    if args[0] in ("-V", "--version"):
        print(f"nif {__version__}")
        return 0
    command = _command(args[0])
    if command is None:
        from difflib import get_close_matches

        close = get_close_matches(args[0], [*COMMANDS, *ALIASES], 1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(COMMANDS)}"
        print(f"nif: no command '{args[0]}'; {hint}", file=sys.stderr)
        return 2
    if command == "runs":  # takes names beside key=value: it reads its words itself
        return _runs(args[1:])
    if any(a in ("-h", "--help") for a in args[1:]):
        print(_help(command))
        return 0
    return _run(command, args[1:])


def _runs(args: list[str]) -> int:
    from nif_cli.commands import runs

    try:
        return runs.main(args)
    except Exception as error:
        return _tell(error, args)


def _command(word: str) -> str | None:
    word = ALIASES.get(word, word)
    return word if word in COMMANDS else None


def _overview() -> str:
    lines = "\n".join(f"  {name:<14} {what}" for name, what in COMMANDS.items())
    return (
        f"nif {__version__}: neural implicit fields, from data to meshes and pictures.\n\n"
        f"usage: nif <command> [key=value ...]\n\n{lines}\n\n"
        'nif <command> --help shows its keys.  Completion (also zsh; fish by "| source"): eval "$(nif -sc '
        'install=bash)"'
    )


def _help(command: str) -> str:
    """Read from the YAML files themselves, without Hydra: their keys, comments and choices."""
    if command == "runs":
        from nif_cli.commands.runs import USAGE

        return USAGE
    conf = conf_folder()
    groups, keys, about = [], [], []
    inside = False
    for line in (conf / f"{command}.yaml").read_text().splitlines():
        if line.startswith("# "):
            about.append(line[2:])
        elif line.startswith("defaults:"):
            inside = True
        elif inside and line.startswith("  - ") and ":" in line:
            group, _, chosen = line[4:].removeprefix("optional ").partition(":")
            names = sorted(
                p.stem
                for p in (conf / group.strip()).glob("*.yaml")
                if p.stem not in ("batches", "sampling", "rays")
            )
            if group.strip() != "hydra" and names:
                shown = [f"[{n}]" if n == chosen.strip() else n for n in names]
                groups.append(f"  {group.strip() + '=':<13} {' '.join(shown)}")
        elif line and not line.startswith((" ", "#")):
            inside = False
            key, _, rest = line.partition(":")
            value, _, comment = rest.partition("#")
            keys.append(f"  {key + '=' + value.strip():<22} {comment.strip()}".rstrip())
    text = [f"usage: nif {command} [key=value ...]", "", *about]
    if groups:
        text += ["", "groups (nif train model=sdf data=meshes --cfg job shows all their keys):", *groups]
    text += ["", "keys:", *keys, "", "examples:", EXAMPLES[command], ""]
    text.append(
        "also: --cfg job (print the configuration), --config-dir=DIR (your own groups), -m (sweep over a,b,c)"
    )
    return "\n".join(text)


def _complete(args: list[str]) -> int:
    """A shell asks with the line typed so far in COMP_LINE; the answer is a candidate a line, as it is, not
    quoted."""
    from nif_cli import completion

    if args[-1].startswith("install="):
        shell = args[-1].partition("=")[2]
        if shell not in completion.SCRIPTS:
            print(f"nif: install={shell}: there are {', '.join(completion.SCRIPTS)}", file=sys.stderr)
            return 2
        print(completion.SCRIPTS[shell])
        return 0
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    command = _command(words[1]) if len(words) > 1 else None
    if command == "runs" and (len(words) > 2 or line.endswith(" ")):
        from nif_cli.commands.runs import WHAT

        print("\n".join(w for w in WHAT if w.startswith(completion.last_word(line))))
        return 0
    if command is None or (len(words) == 2 and not line.endswith(" ")):
        start = words[1] if len(words) > 1 else ""
        print("\n".join(c for c in COMMANDS if c.startswith(start)))
        return 0
    word = completion.last_word(line)
    files = completion.files(word)
    if files is not None:
        print("\n".join(files))
        return 0
    stripped = line.replace(words[1], "", 1).replace("  ", " ", 1)
    point = int(os.environ.get("COMP_POINT", len(line))) - (len(line) - len(stripped))
    os.environ.update(COMP_LINE=stripped, COMP_POINT=str(point))
    out = io.StringIO()
    with redirect_stdout(out):
        code = _hydra(command, ["-sc", "query=bash"])
    print("\n".join(out.getvalue().split()))
    return code


def _run(command: str, args: list[str]) -> int:
    if command == "import-deepsdf":  # what users call it is the name of a configuration group
        args = ["folder=" + a.removeprefix("experiment=") if a.startswith("experiment=") else a for a in args]
    if command == "evaluate":  # the run's own data with a key changed: Hydra sees no data there
        args = [f"++{a}" if a.startswith("data.") else a for a in args]
    try:
        from nif_cli.words import as_typed

        return _hydra(command, as_typed(args))
    except Exception as error:
        return _tell(error, args)


def run_command(command: str, args: list[str]) -> Path:
    """For Python: a training by the words of the command line; its folder. What is wrong is raised, not
    told."""
    from nif_cli.words import as_typed

    errors: list[Exception] = []

    def failed(error: Exception, _: list[str]) -> int:
        errors.append(error)
        return 1

    try:
        _hydra(command, as_typed(args), failed)
    except SystemExit as stop:
        if errors:
            raise _mendable(errors[0], args) from errors[0]
        raise KeyboardInterrupt from stop  # it was stopped by a signal, and has saved
    except Exception as error:
        raise _mendable(error, args) from error
    from nif_cli.commands.train import folders

    return folders[-1]


def _mendable(error: Exception, args: list[str]) -> Exception:
    """An error as a NifError, where the user can mend it."""
    from nif_cli.hydra_errors import explain

    said = None if isinstance(error, NifError) else explain(error, args)
    return error if said is None else NifError(said)


def _tell(error: Exception, args: list[str]) -> int:
    """One line for an error; NIF_DEBUG=1 shows the traceback instead."""
    if os.environ.get("NIF_DEBUG") == "1":
        raise error
    if isinstance(error, NifError):
        message = str(error)
    else:
        from nif_cli.hydra_errors import explain

        bug = (
            f"internal error, please report it: {type(error).__name__}: {str(error)[:300]} (NIF_DEBUG=1 "
            "shows where)"
        )
        message = explain(error, args) or bug
    _say(message)
    return 1


def _say(message: str) -> None:
    if len(message) > LONGEST:  # a stranger's key or name is in it
        message = f"{message[: LONGEST // 2]} ... {message[-LONGEST // 4 :]}"
    with suppress(OSError, AttributeError):  # standard error may be closed or full too: the exit code remains
        print(f"nif: {printable(message)}", file=sys.stderr, flush=True)


def _hydra(command: str, args: list[str], failed: Callable[[Exception, list[str]], int] = _tell) -> int:
    """Run a command; `failed` tells an error and gives the exit code."""
    import importlib

    import hydra
    from omegaconf import DictConfig

    from nif_cli.composition import guarded
    from nif_cli.config import register, started

    unpickling = next(
        (a for a in args if a.startswith("--e") and "--experimental-rerun".startswith(a.partition("=")[0])),
        None,
    )
    if unpickling:
        raise NifError(
            f"{unpickling}: refused, it would run what a file holds; resume=<run> goes on with a run"
        )
    register()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, whole, and leave as one line
    full = [sys.argv[0], command, *args]

    def task(cfg: DictConfig) -> float | None:
        sys.argv = full  # Lightning's DDP starts its other processes with these
        try:
            with printing():
                return importlib.import_module(f"nif_cli.commands.{command.replace('-', '_')}").main(cfg)
        except Exception as error:  # told here, or Hydra would put a line of its own in front
            sys.exit(failed(error, args))

    before = sys.argv
    sys.argv = ["nif", *args]
    try:
        with started(), guarded():
            hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=command)(task)()
    finally:
        sys.argv = before
    return 0


if __name__ == "__main__":
    main()
