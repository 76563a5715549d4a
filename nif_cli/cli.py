"""The dispatcher: `nif <command> [overrides]`. Everything heavy is imported inside, so that help and
completion are instant."""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path

from nif_cli import NifError, __version__, conf_folder
from nif_cli.terminal import Waiting, lost, printable, printing

COMMANDS = {
    "prepare": "sample meshes into a dataset that other tools read too; find the cameras of photographs",
    "train": "learn a field from data; makes a run folder",
    "extract": "turn the fields of a run into meshes",
    "render": "make images of the fields of a run",
    "view": "turn, cut and change the fields of a run in a browser",
    "reconstruct": "meshes of new shapes from scans, samples, depth images or voxels",
    "evaluate": "how good the meshes of a run are, by the published protocols",
    "import-deepsdf": "a trained experiment of the published DeepSDF code as a run",
    "runs": "the runs on this disk: list, show, compare, best, rm, prune",
}
LONGEST = 1600  # characters of a message
ALIASES = {"extract-mesh": "extract"}


def main(argv: list[str] | None = None) -> None:
    """Entry point of `nif`. Exit code 0, 1 (the user can mend it) or 2 (usage)."""
    args = sys.argv[1:] if argv is None else argv
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)  # nothing is looked through at the end: that takes torch's modules 0.6 s
    gc.disable()  # until all is imported, which makes no garbage: a quarter of the time
    with printing():
        out = sys.stdout
        try:
            code = _main(list(args))
        except SystemExit as stop:  # a task that has said why
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except KeyboardInterrupt:
            print("nif: interrupted", file=sys.stderr)
            code = 130
        finally:
            gc.enable()
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
        return _help(args[1:])
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
        return _help([command, *args[1:]])
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


def _help(words: list[str]) -> int:
    from nif_cli import help as pages

    words = [w for w in words if w not in ("-h", "--help")]
    command = _command(words[0]) if words else None
    try:
        if command == "runs":
            from nif_cli.commands.runs import USAGE

            print(USAGE)
        elif command:
            print(pages.of_command(command, words[1:]))
        elif any(not w.startswith("-") for w in words):
            print(pages.of_words(words, COMMANDS))
        else:
            print(pages.command_list(COMMANDS))
    except NifError as error:
        _say(str(error))
        return 2
    return 0


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
    if words[1:2] == ["help"]:  # groups and keys
        command = "train"
    if command is None or (len(words) == 2 and not line.endswith(" ")):
        start = words[1] if len(words) > 1 else ""
        print("\n".join(c for c in COMMANDS if c.startswith(start)))
        return 0
    word = completion.last_word(line)
    found = completion.answers(command, words[2:], word)
    if found is not None:
        print("\n".join(found))
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
    from nif_cli.attempts import Usage

    try:
        return _hydra(command, _written(command, args))
    except Usage as error:
        _say(str(error))
        return 2
    except Exception as error:
        return _tell(error, args)


def _written(command: str, args: list[str]) -> list[str]:
    """The words for Hydra."""
    from nif_cli.attempts import meant
    from nif_cli.words import as_typed

    args = meant(command, args)
    if command == "import-deepsdf":  # what users call it is the name of a configuration group
        args = ["folder=" + a.removeprefix("experiment=") if a.startswith("experiment=") else a for a in args]
    if command == "evaluate":  # the run's own data with a key changed: Hydra sees no data there
        args = [f"++{a}" if a.startswith("data.") else a for a in args]
    return as_typed(args)


def run_command(command: str, args: list[str]) -> Path:
    """For Python: a training by the words of the command line; its folder. What is wrong is raised, not
    told."""
    errors: list[Exception] = []

    def failed(error: Exception, _: list[str]) -> int:
        errors.append(error)
        return 1

    try:
        _hydra(command, _written(command, args), failed)
    except SystemExit as stop:
        if errors:
            raise _mendable(errors[0], args) from errors[0]
        if isinstance(stop.code, int) and stop.code > 128:  # a signal has stopped it, and it has saved
            raise KeyboardInterrupt from stop
        raise NifError(f"{' '.join(args)[:300]}: not words of nif {command}") from stop
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


Failed = Callable[[Exception, list[str]], int]


def _hydra(command: str, args: list[str], failed: Failed = _tell) -> int:
    """Run a command; `failed` tells an error and gives the exit code."""
    # what is asked for by a flag may be to be read by a program
    told = any(a.startswith("-") and a != "-m" for a in args)
    waiting = Waiting("" if told else f"nif {command}: starting ...")
    try:
        return _composed(command, args, failed, waiting)
    finally:
        waiting.done()


def _composed(command: str, args: list[str], failed: Failed, waiting: Waiting) -> int:
    import importlib

    import hydra
    from omegaconf import DictConfig

    from nif_cli.composition import guarded
    from nif_cli.config import register, started

    for a in args:
        if a.startswith("--e") and "--experimental-rerun".startswith(a.partition("=")[0]):
            raise NifError(f"{a}: refused, it would run what a file holds; resume=<run> goes on with a run")
    register()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, whole, and leave as one line
    # numba would wrap the terminal to colour its errors, and leave an escape sequence at the end
    os.environ.setdefault("NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING", "1")
    full = [sys.argv[0], command, *args]

    def task(cfg: DictConfig) -> float | None:
        sys.argv = full  # Lightning's DDP starts its other processes with these
        try:
            with printing():
                module = importlib.import_module(f"nif_cli.commands.{command.replace('-', '_')}")
                if not gc.isenabled():  # by main; in a process of somebody else's nothing is touched
                    if not gc.get_freeze_count():
                        gc.freeze()
                    gc.enable()
                waiting.done()
                return module.main(cfg)
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
