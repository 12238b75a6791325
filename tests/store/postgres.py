"""A schema of the test's PostgreSQL, and gateways that share it.

`tests/store/run.sh` tells where it is: TEST_POSTGRES_URL, TEST_POSTGRES_PID (the file with the server's
process), TEST_POSTGRES_START (what starts it), TEST_POSTGRES_LOG.
"""

import os
import pathlib
import subprocess
import sys
import time

from roles import Role, changed, demo_files

PORT0 = (r'^listen = ".*"$', 'listen = "127.0.0.1:0"')


class Database:
    """A schema of its own."""

    def __init__(self):
        self.url = os.environ["TEST_POSTGRES_URL"]
        self.pid_file = pathlib.Path(os.environ["TEST_POSTGRES_PID"])
        self.log = pathlib.Path(os.environ["TEST_POSTGRES_LOG"])
        self.schema = f"test_{os.getpid()}"
        psql(self, f"CREATE SCHEMA {self.schema}")

    def drop(self):
        psql(self, f"DROP SCHEMA {self.schema} CASCADE")


def psql(database, statement):
    """Rows, each a list of texts."""
    environment = os.environ | {"PGOPTIONS": f"-c search_path={database.schema}"}
    done = subprocess.run(["psql", "-X", "-q", "-A", "-t", "-F", "|", "-c", statement, database.url],
                          check=True, capture_output=True, text=True, env=environment)
    return [line.split("|") for line in done.stdout.splitlines() if line]


def restart(database):
    """Starts the database again; processes of the one that was killed may hold it for a moment."""
    for _ in range(100):
        if subprocess.run([os.environ["TEST_POSTGRES_START"]], check=False,
                          capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    sys.exit(f"the database does not start again, see {database.log}")


def fleet(binary, folder, count, options="", more="", engine="builtin:echo"):
    """A database, a node, and the configurations of so many gateways over both."""
    made = folder / "demo"
    demo_files(binary, made, "sk-demo-0123456789abcdef0123456789abcdef")
    at_any_port(made / "node.toml", [PORT0, (r'^url = "builtin:echo"$', f'url = "{engine}"')])
    node = Role(binary, "node", made / "node.toml", folder / "node.log")
    database = Database()
    text = changed((made / "gateway.toml").read_text(encoding="utf-8"), [
        PORT0,
        (r'^url = "http://.*$', f'url = "http://{node.address}"'),
        (r'^url = "sqlite:.*$', f'url = "{database.url}?options[search_path]={database.schema}{options}"\n'
         'secret_file = "sealgate.secret"\njournal = "JOURNAL"\npoll_ms = 200\nsync_ms = 200'),
    ])
    configs = []
    for number in range(count):
        config = made / f"gateway-{number}.toml"
        config.write_text(text.replace("JOURNAL", f"journal-{number}") + more, encoding="utf-8")
        configs.append(config)
    return database, node, configs


def at_any_port(path, changes):
    path.write_text(changed(path.read_text(encoding="utf-8"), changes), encoding="utf-8")
