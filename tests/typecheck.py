"""The type checker of the suite: beartype, but an int passes for a float, as PEP 484 says and YAML needs."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
