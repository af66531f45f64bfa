"""A MariaDB server of its own for tests, from the system's package."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.postgresql import ENCODED, PASSWORD, USER, Server, running

FAST = ("innodb-flush-log-at-trx-commit=2", "innodb-log-file-size=8M", "innodb-use-native-aio=0")


@dataclass
class MySQLServer(Server):
    """A running server; every `database` is a fresh one."""

    ended_by: ClassVar[str] = "KILL"

    def initialise(self) -> None:
        identity = self.as_user()
        if identity:
            os.chown(self.directory, identity["user"], identity["group"])
        (self.directory / "user.sql").write_text(
            f"CREATE USER IF NOT EXISTS '{USER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'127.0.0.1';\n"
        )
        options = ["--no-defaults", f"--datadir={self.directory / 'data'}"]
        options += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(
            ["mariadb-install-db", *options, *(f"--{option}" for option in FAST)],
            check=True,
            capture_output=True,
            cwd=self.directory,
            **identity,
        )

    def command(self) -> list[str]:
        settings = {
            "datadir": self.directory / "data",
            "port": self.port,
            "bind-address": "127.0.0.1",
            "socket": self.directory / "socket",
            "pid-file": self.directory / "pid",
            "init-file": self.directory / "user.sql",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        fast = [f"--{option}" for option in FAST]
        return [str(self.programs), "--no-defaults", *options, *fast]

    def execute(self, statement: str) -> list[Any]:
        """Run one statement; returns its rows."""
        import pymysql

        connection = pymysql.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, autocommit=True
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def database(self) -> str:
        """The URL of a new, empty database, with its password."""
        name = f"studies{len(self.databases)}"
        self.execute(f"CREATE DATABASE {name}")
        self.databases.append(name)
        return f"mysql://{USER}:{ENCODED}@127.0.0.1:{self.port}/{name}"

    def drop_connections(self) -> int:
        """Break all connections to the test's databases, as a network would; returns how many."""
        listed = "SELECT id FROM information_schema.processlist WHERE db LIKE 'studies%'"
        dropped = 0
        for (number,) in self.execute(listed):
            with contextlib.suppress(Exception):  # gone already
                self.execute(f"KILL CONNECTION {number}")
                dropped += 1
        return dropped


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """A server in a directory of its own, gone at the end whatever happens."""
    pytest.importorskip("pymysql", reason="pymysql is not installed (extra mysql)")
    found = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None or shutil.which("mariadb-install-db") is None:
        pytest.skip("MariaDB is not installed (Debian's package mariadb-server)")
    with running(MySQLServer, Path(found)) as server:
        yield server
