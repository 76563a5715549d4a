from pathlib import Path

from nif_cli.library import Run as Run
from nif_cli.library import Shape as Shape
from nif_cli.library import load as load
from nif_cli.library import train as train

__version__: str

class NifError(Exception): ...

def conf_folder() -> Path: ...
