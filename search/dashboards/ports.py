"""Ports that dashboards are served on, tried before any work begins."""

import socket

from common.errors import SearchError


def free_port(host: str, port: int, *, option: str) -> int:
    """The port itself, or of 0 one that is free.

    Raises SearchError, with what to do, where it is taken or `host` is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one just left is free
        try:
            probe.bind((host, port))
        except OSError as problem:
            raise SearchError(
                f"{option} is {port}, but it cannot be had on {host} "
                f"({(problem.strerror or str(problem)).lower()}); end what uses it (ss -ltnp shows "
                "it), give another port, or 0 for any that is free"
            ) from None
        found: int = probe.getsockname()[1]
        return found


def address(host: str, port: int) -> str:
    """The URL that a page is opened by; of all addresses of this machine, by its name."""
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
