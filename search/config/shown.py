"""Where a search is shown while it runs: addresses of the dashboards, names of trackers."""

import ipaddress
from dataclasses import dataclass

from common.bounds import Bound, bounded, check_bounds
from common.errors import require

PORT = Bound("be 0 or from 1,024 to 65,535", lambda value: value == 0 or 1024 <= value <= 65535)
LOCALHOST = "127.0.0.1"


@dataclass(frozen=True)
class DashboardConfig:
    """Addresses of the dashboards of --dashboard. A port of 0 is any that is free."""

    host: str = LOCALHOST
    """Address of this machine that they are served on. Others than 127.0.0.1 let other machines in;
    optuna-dashboard asks for no password."""
    optuna_port: int = bounded(8080, PORT)
    """Port of optuna-dashboard."""
    ray_port: int = bounded(8265, PORT)
    """Port of Ray's dashboard; on a cluster (--address) Ray has its own."""
    metrics_port: int = bounded(8090, PORT)
    """Port that Prometheus reads this machine's metrics from; on a cluster Ray has its own."""

    def __post_init__(self) -> None:
        check_bounds(self, "--pages.")
        check_host(self.host, "--pages.host")
        ports = [self.optuna_port, self.ray_port, self.metrics_port]
        given = [port for port in ports if port]
        require(
            len(given) == len(set(given)),
            f"the ports of --pages are {', '.join(map(str, ports))}; optuna_port, ray_port "
            "and metrics_port must differ",
        )


def check_host(host: str, option: str) -> None:
    """Raises SearchError unless `host` is an IP address that may be listened on."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        require(
            False, f"{option} is {host!r}; give an IP address, such as 127.0.0.1 or 0.0.0.0 (all)"
        )
