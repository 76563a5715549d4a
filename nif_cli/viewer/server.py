"""The web server of nif view: its port, its beginning and its end."""

from __future__ import annotations

import errno
import io
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from nif_cli import NifError

MISSING = "nif view needs viser: pip install 'nif-cli[view]'"
TRIED = 100  # ports after the one that is asked for


def free_port(host: str, port: int) -> int:
    """The first port from `port` on that nobody listens to. NifError for a host that is none of this
    machine's, and for a port that is not allowed."""
    for number in range(port, min(65536, port + TRIED)):
        try:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, number))
                return number
        except PermissionError as error:
            raise NifError(f"port={port}: not allowed to listen there; take one from 1024 on") from error
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise NifError(
                    f"host={host}: no address of this machine; 127.0.0.1 is for its own browser, 0.0.0.0 for "
                    "the network"
                ) from error
    raise NifError(f"port={port}: this one and the next {TRIED} are taken; give another")


@contextmanager
def serving(host: str, port: int, title: str) -> Iterator[Any]:
    """A viser server while the block runs; afterwards the port is free again. NifError where viser is
    missing."""
    try:
        import viser
    except ImportError as error:
        raise NifError(MISSING) from error
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # what a client that goes away leaves behind
    with redirect_stdout(io.StringIO()):
        server = viser.ViserServer(host, port, label=title, verbose=False)
    try:
        # viser would show the page to the world by way of somebody else's server, if a client asked for it
        server.request_share_url = lambda verbose=True: None
        server.gui.configure_theme(show_logo=False, show_share_button=False)
        yield server
    finally:
        with redirect_stdout(io.StringIO()):
            server.stop()
