"""How long a training may take, as people write it."""

from __future__ import annotations

import re
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from nif_cli.config import blame

PARTS = re.compile(r"(?:(?P<d>\d+)d)?(?:(?P<h>\d+)h)?(?:(?P<m>\d+)(?:m|min))?(?:(?P<s>\d+)s?)?")


def seconds_of(text: Any, key: str = "trainer.max_time") -> int | None:
    """Of 10m, 1h30m, 600 (seconds), 1d, or days:hours:minutes:seconds; None of null. NifError says what is
    right."""
    if text is None:
        return None
    with blame(key):
        written = str(text).strip().lower()
        clock = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", written)
        parts = PARTS.fullmatch(written)
        if clock:
            d, h, m, s = map(int, clock.groups())
        elif parts and written and not isinstance(text, bool):
            d, h, m, s = (int(parts[unit] or 0) for unit in "dhms")
        else:
            d = h = m = s = 0
        seconds = ((d * 24 + h) * 60 + m) * 60 + s
        if not 0 < seconds < 10**9:
            raise ValueError(
                f"'{str(text)[:100]}': must be a time as 10m, 1h30m, 600 (seconds) or "
                "days:hours:minutes:seconds, as 00:00:10:00 for ten minutes"
            )
        return seconds


def clock(seconds: int) -> str:
    """As Lightning reads it, DD:HH:MM:SS."""
    minutes, s = divmod(seconds, 60)
    hours, m = divmod(minutes, 60)
    return f"{hours // 24:02d}:{hours % 24:02d}:{m:02d}:{s:02d}"


def spell_time(cfg: DictConfig) -> None:
    """trainer.max_time of a configuration as Lightning reads it, in place."""
    key = "trainer.max_time"
    text = OmegaConf.select(cfg, key) if isinstance(cfg.get("trainer"), DictConfig) else None
    if text is not None:
        seconds = seconds_of(text, key)
        assert seconds is not None
        with open_dict(cfg):
            OmegaConf.update(cfg, key, clock(seconds), force_add=True)
