"""Ports for kernels and servers, from a range in which no other program gets one by chance.

Who starts a kernel or a server looks for free ports, lets go of them, and tells them to it; it takes them when it
has started, seconds later on a busy machine. Meanwhile the system may have given one of them to another program
that asked for any, such as the next kernel of the tests beside these. It gives those from a range above this one.
"""

import itertools
import os
import socket

EACH = 100  # ports of a process; another process of the tests has others
FIRST = 12_000 + EACH * (os.getpid() % 200)
_own = itertools.cycle(range(FIRST, FIRST + EACH))


def free_port(ip: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on."""
    for _ in range(EACH):
        if is_free(port := next(_own), ip):
            return port
    raise OSError(f"no port of {FIRST} to {FIRST + EACH - 1} is free")


def is_free(port: int, ip: str = "127.0.0.1") -> bool:
    """Tell whether one can listen on a port now."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as who will listen there does
        try:
            listener.bind((ip, port))
        except OSError:
            return False
        return True
