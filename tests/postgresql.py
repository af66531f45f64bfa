"""A PostgreSQL server of its own for tests, from the system's package."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

USER = "tester"
PASSWORD = "s3cret/w&rd %:@?"
ENCODED = "s3cret%2Fw%26rd%20%25%3A%40%3F"
PATIENCE = 600.0
"""Seconds after which a server that has not started never will."""
FAST = {"fsync": "off", "full_page_writes": "off"}
WATCHED = '"$@" <&- & read -r _; kill -{signal} $!; wait $!'
"""Ends the server when standard input ends, which it does however this process ends."""


def binaries() -> Path | None:
    """Where PostgreSQL's programs are; Debian does not put them on the path."""
    versions = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    newest = sorted(versions, key=lambda path: float(path.parents[1].name))
    found = newest[-1] if newest else shutil.which("postgres")
    return Path(found).resolve().parent if found else None


@dataclass
class Server:
    """A running server; every `database` is a fresh one."""

    ended_by: ClassVar[str] = "QUIT"
    """The signal after which it waits for nobody."""
    directory: Path
    programs: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None
    databases: list[str] = field(default_factory=list)

    def as_user(self) -> dict[str, Any]:
        """The server refuses to run as root."""
        if os.geteuid() != 0:
            return {}
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        pytest.skip("no user to run a database as: neither postgres nor nobody")

    def initialise(self) -> None:
        identity = self.as_user()
        if identity:
            os.chown(self.directory, identity["user"], identity["group"])
        with tempfile.NamedTemporaryFile("w", prefix="postgresql-") as file:
            file.write(PASSWORD + "\n")
            file.flush()
            if identity:
                os.chown(file.name, identity["user"], identity["group"])
            arguments = ["-D", str(self.directory / "data"), "-U", USER, "-A", "scram-sha-256"]
            subprocess.run(
                [self.programs / "initdb", *arguments, f"--pwfile={file.name}", "--no-sync"],
                check=True,
                capture_output=True,
                cwd=self.directory,
                **identity,
            )

    def command(self) -> list[str]:
        """Which runs the server."""
        settings = FAST | {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
        }
        options = [f"-c{name}={value}" for name, value in settings.items()]
        return [str(self.programs / "postgres"), "-D", str(self.directory / "data"), *options]

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", WATCHED.format(signal=self.ended_by), "sh", *self.command()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
                **self.as_user(),
            )
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.execute("SELECT 1")
                return
            except Exception:
                log_text = (self.directory / "log").read_text(errors="replace")
                assert self.process.poll() is None, log_text
                assert time.monotonic() < end, log_text
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server at once; connections break."""
        if self.process is not None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait(PATIENCE)
            self.process = None

    def execute(self, statement: str) -> list[Any]:
        """Run one statement as the superuser; returns its rows."""
        import psycopg2

        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname="postgres"
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def database(self) -> str:
        """The URL of a new, empty database, with its password."""
        name = f"studies{len(self.databases)}"
        self.execute(f"CREATE DATABASE {name}")
        self.databases.append(name)
        return f"postgresql://{USER}:{ENCODED}@127.0.0.1:{self.port}/{name}"

    def drop_connections(self) -> int:
        """Break all connections to the test's databases, as a network would; returns how many."""
        return len(
            self.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname LIKE 'studies%'"
            )
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """A server in a directory of its own, gone at the end whatever happens."""
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed (extra postgresql)")
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    with running(Server, programs) as server:
        yield server


@contextlib.contextmanager
def running(kind: type[Server], programs: Path) -> Iterator[Server]:
    """A server of this kind in a directory of its own."""
    directory = Path(tempfile.mkdtemp(prefix="database-"))
    server = kind(directory, programs, free_port())
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)
