"""Whether a value is what a hint says, and in which words it is not. Root keys and constructors are checked
by the same hints; those of root keys may carry a rule, as `Annotated[int, AtLeast(2)]`."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

CALLED = {  # what others call it
    "points": ("samples", "batch_points"),
    "batch_size": ("batch_points", "batch_rays", "batch_shapes"),
    "learning_rate": ("lr",),
    "epochs": ("max_steps",),
    "steps": ("max_steps",),
    "root": ("path",),
    "path": ("root",),
}
PLAIN = (int, float, str, bool)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """'; did you mean ...?', or the choices when none is close."""
    choices = [str(c) for c in choices]
    meant = next((c for c in CALLED.get(word.rpartition(".")[2], ()) if c in choices), None)
    if meant:
        return f"; did you mean '{meant}'?"
    close = difflib.get_close_matches(word, choices, 1, 0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    more = ", ..." if len(choices) > 15 else ""
    return f"; there are {', '.join(choices[:15])}{more}" if choices else ""


class Rule:
    """What a value must be besides its type; `fault` says what is wrong with one, None: nothing."""

    def fault(self, value: Any) -> str | None:
        return None


@dataclass(frozen=True)
class AtLeast(Rule):
    least: float
    what: str = ""  # after the number

    def fault(self, value: Any) -> str | None:
        return None if value >= self.least else f"at least {self.least:g} {self.what}".rstrip()


@dataclass(frozen=True)
class Between(Rule):
    low: float
    high: float
    said: str

    def fault(self, value: Any) -> str | None:
        return None if self.low <= value <= self.high else self.said


@dataclass(frozen=True)
class Above(Rule):
    limit: float
    said: str

    def fault(self, value: Any) -> str | None:
        return None if value > self.limit else self.said


@dataclass(frozen=True)
class Some(Rule):
    """A list that is not empty."""

    said: str

    def fault(self, value: Any) -> str | None:
        return None if value else self.said


@dataclass(frozen=True)
class Kind(Rule):
    """What the choices of a Literal are: 'no <kind>; did you mean ...?' instead of 'must be a or b'."""

    what: str


@dataclass(frozen=True)
class ThereIs(Rule):
    """Choices that are named as 'there is a, b, c'."""


@dataclass(frozen=True)
class Give(Rule):
    """What must be given: 'input is missing: give input=<what>'."""

    what: str


def parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A hint without `Annotated`, and its rules."""
    if typing.get_origin(hint) is Annotated:
        inner, *rules = typing.get_args(hint)
        return inner, tuple(rules)
    return hint, ()


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union; of any other hint itself."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def stored(hint: Any) -> Any:
    """The nearest hint that OmegaConf knows, without Literal, Annotated and unions of containers."""
    several = [parts(h)[0] for h in alternatives(parts(hint)[0])]
    some = [h for h in several if h is not type(None)]
    if len(some) != 1:
        return Any
    plain = some[0]
    if typing.get_origin(plain) is Literal and all(isinstance(a, str) for a in typing.get_args(plain)):
        plain = str
    if plain not in PLAIN:
        return Any
    return plain | None if len(several) > 1 else plain


def fault(value: Any, hint: Any) -> tuple[str, str] | None:
    """The part of the value that is wrong, as text, and what is wrong with it; None where it fits."""
    hint, rules = parts(hint)
    if isinstance(value, list) and (lists := [h for h in alternatives(hint) if _origin(h) is list]):
        (item,) = typing.get_args(parts(lists[0])[0])
        rules += parts(lists[0])[1]
        found = next((f for v in value if (f := fault(v, item))), None)
    elif len(alternatives(hint)) > 1:
        faults = [(h, fault(value, h)) for h in alternatives(hint)]
        if any(f is None for _, f in faults):
            return None
        # that of the alternative which the value could have been, where there is one
        near = [f for h, f in faults if value is not None and _near(value, h)]
        return near[0] if near else (repr(value), f"must be {spell(hint)}")
    elif _origin(hint) is Literal:
        choices = typing.get_args(hint)
        kind = next((r.what for r in rules if isinstance(r, Kind)), None)
        plainly = f"there is {', '.join(choices)}" if ThereIs() in rules else f"must be {spell(hint)}"
        wrong = f"no {kind}{did_you_mean(str(value), choices)}" if kind else plainly
        found = None if value in choices else (str(value), wrong)
    else:
        found = None if fits(value, hint) else (repr(value), f"must be {spell(hint)}")
    if found is None and value is not None:
        wrong = next((said for r in rules if (said := r.fault(value))), None)
        found = (str(value), wrong) if wrong else None
    return found


def _origin(hint: Any) -> Any:
    return typing.get_origin(parts(hint)[0])


def _near(value: Any, hint: Any) -> bool:
    """Whether a value that does not fit has the kind of the hint: a word of choices, a number of a range."""
    bare = parts(hint)[0]
    return _origin(hint) is Literal or (bare in PLAIN and fits(value, bare))


def fits(value: Any, hint: Any) -> bool:
    if isinstance(value, dict) and "_target_" in value:  # an object to be built; its own class checks it
        return True
    if value is None and isinstance(hint, type) and hint in PLAIN:
        return False
    answer = _plainly(value, hint)
    if answer is not None:
        return answer
    # Callables, modules and such are handed over at run time; what can stand in YAML is checked
    from beartype import BeartypeConf
    from beartype.door import is_bearable
    from beartype.roar import BeartypeException

    try:
        if isinstance(value, bool) and hint in (int, float):
            return False
        numbers = BeartypeConf(is_pep484_tower=True)  # 1 is a number where 1.0 is
        return is_bearable(value, hint, conf=numbers) or (
            isinstance(value, list) and is_bearable(tuple(value), hint, conf=numbers)
        )
    except (BeartypeException, TypeError):
        return True


def _plainly(value: Any, hint: Any) -> bool | None:
    """Whether a value fits a hint of plain types; None where that takes beartype, whose import is a good part
    of a short command's time."""
    hint = parts(hint)[0]
    if hint is Any:
        return True
    if hint is float:  # 1 is a number where 1.0 is
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool, type(None), None):
        return isinstance(value, type(None) if hint is None else hint)
    if typing.get_origin(hint) is Literal:
        return any(type(value) is type(a) and value == a for a in typing.get_args(hint))
    several = alternatives(hint)
    if typing.get_origin(hint) is list:
        if not isinstance(value, list):
            return False
        answers = [_plainly(v, typing.get_args(hint)[0]) for v in value]
        return False if False in answers else None if None in answers else True
    if len(several) > 1:
        answers = [_plainly(value, h) for h in several]
        return True if True in answers else None if None in answers else False
    return None


def spell(hint: Any) -> str:
    hint = parts(hint)[0]
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "text", type(None): "null"}
    if hint in names:
        return names[hint]
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(str, inner)) if len(inner) == 2 else ", ".join(map(str, inner))
    if len(alternatives(hint)) > 1:
        several = [parts(h)[0] for h in alternatives(hint)]
        return " or ".join(spell(h) for h in several if h in names or typing.get_args(h))
    if inner:
        return "a list" if typing.get_origin(hint) is not dict else "a mapping"
    return getattr(hint, "__name__", str(hint))
