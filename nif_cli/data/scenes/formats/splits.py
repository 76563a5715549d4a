"""Which views are trained on and which are held out, by the lists of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nif_cli import NifError, untrusted
from nif_cli.data.report import Report, doubt
from nif_cli.data.scenes.formats.naming import label
from nif_cli.data.scenes.poses import held_out_views
from nif_cli.data.scenes.scene import View
from nif_cli.untrusted import shown


def split(
    file: dict[str, Any], path: Path, frames: list[dict[str, Any]], views: list[View], hold_out: int
) -> tuple[list[View], list[View], Report]:
    """By the file's own lists, else every `hold_out`-th. Where only one part is named the other views are the
    other part; val serves as test where there is no test, and nothing of either is trained on."""
    lists = {part: file.get(f"{part}_filenames") for part in ("train", "val", "test")}
    if all(found is None for found in lists.values()):
        return *held_out_views(views, hold_out), Report()
    every, known, notes = {label(f["file_path"]) for f in frames}, {v.name for v in views}, []
    named: dict[str, set[str]] = {}
    for part, listed in lists.items():
        where = f"{path}: '{part}_filenames'"
        if listed is not None and not isinstance(listed, list):
            raise NifError(f"{where} is {shown(repr(listed))}; it must be a list of names")
        wanted = [label(untrusted.text(name, where)) for name in listed or []]
        named[part], note = _matched(wanted, every, where)
        notes += [note] * bool(note)
    test = named["test"] or named["val"]
    kept = named["test"] | named["val"]
    if named["train"] & kept:
        notes.append(
            f"{len(named['train'] & kept)} views named for training and for testing are not trained on"
        )
    train = (named["train"] or every) - kept
    if lists["train"] is not None and not kept and all(lists[part] is None for part in ("val", "test")):
        test = every - train
    if not train & known:
        raise NifError(
            f"{path}: its train_filenames, val_filenames and test_filenames leave no image to train on"
        )
    rest = len(known - train - test - kept)
    said = Report("".join(f", {note}" for note in notes))
    if rest:
        said += doubt(f", {rest} views are named in no list and left out")
    return [v for v in views if v.name in train], [v for v in views if v.name in test], said


def _matched(wanted: list[str], every: set[str], where: str) -> tuple[set[str], str]:
    """Those of `every` that a list names, in full or, where that is no other's, by the file's name alone.
    NifError for names that no frame has."""
    ends: dict[str, list[str]] = {}
    for name in every:
        ends.setdefault(name.rsplit("/", 1)[-1], []).append(name)
    matched, lost, moved = set(), [], []
    for name in wanted:
        last = ends.get(name.rsplit("/", 1)[-1], [])
        if name in every:
            matched.add(name)
        elif len(last) == 1:
            matched.add(last[0])
            moved.append(f"{shown(name)} as {shown(last[0])}")
        else:
            lost.append(name)
    if lost:
        raise NifError(f"{where} names {len(lost)} images that no frame has (the first: {shown(lost[0])})")
    return (
        matched,
        f"{len(moved)} of {where.rsplit(' ', 1)[-1]} found by the file's name alone ({moved[0]}, ...)"
        if moved
        else "",
    )
