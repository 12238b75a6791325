"""The engine, a node with software evidence, and gateways, each a process of its own on ports of the kernel's choice."""

import contextlib
import pathlib
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
KEY = "sk-leak-0123456789abcdef0123456789abcdef"
PATIENCE_S = 60


class Process:
    """One process, known by the address in its first line that has one."""

    def __init__(self, name: str, command: list[str], folder: pathlib.Path):
        self.name, self.log = name, folder / f"{name}.log"
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        line = self.process.stdout.readline()
        found = re.search(r"listening on https?://(\S+)", line)
        if not found:
            self.stop()
            sys.exit(f"{name} did not start: {line!r}\n{self.log.read_text(encoding='utf-8')[-2000:]}")
        self.address = found[1]

    @property
    def host_and_port(self) -> tuple[str, int]:
        host, port = self.address.rsplit(":", 1)
        return host, int(port)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def configured(text: str, changes: list[tuple[str, str]]) -> str:
    for pattern, value in changes:
        text, count = re.subn(pattern, value, text)
        if count != 1:
            sys.exit(f"{pattern} stands {count} times in the demo's configuration")
    return text


LISTEN = (r'(?m)^listen = ".*"$', 'listen = "127.0.0.1:0"')


class Stack:
    """Processes that end with the block they are used in."""

    def __init__(self, binary: str, folder: pathlib.Path, node_tls: bool):
        self.binary, self.folder, self.made = binary, folder, folder / "demo"
        self.node_tls, self.certificate, self.running = node_tls, None, contextlib.ExitStack()

    def __enter__(self) -> "Stack":
        return self

    def __exit__(self, *_) -> None:
        self.running.close()

    def start(self, name: str, *command: str) -> Process:
        process = Process(name, list(command), self.folder)
        self.running.callback(process.stop)
        return process

    def begin(self) -> None:
        """Makes a software root and its policy, then starts engine and node."""
        demo = subprocess.Popen(
            [self.binary, "demo", "--listen", "127.0.0.1:0", "--api-key", KEY, "--dir", str(self.made)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in demo.stdout:
            if line.startswith("api key"):
                break
        demo.terminate()
        demo.communicate(timeout=PATIENCE_S)
        self.engine = self.start("engine", sys.executable, str(HERE / "engine.py"))
        node = self.made / "node.toml"
        text = configured(node.read_text(encoding="utf-8"), [
            LISTEN, (r'url = "builtin:echo"', f'url = "http://{self.engine.address}"\nwatch = false\nmax_in_flight = 512')])
        node.write_text(text + ("\n[tls]\n" if self.node_tls else ""), encoding="utf-8")
        self.node = self.start("node", self.binary, "--log", "warn", "node", "--config", str(node))

    def make_certificate(self) -> pathlib.Path:
        """A certificate for callers' TLS, signed by its own key."""
        self.certificate = self.folder / "gateway.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE",
             "-keyout", str(self.folder / "gateway.key"), "-out", str(self.certificate)],
            check=True, stderr=subprocess.DEVNULL)
        return self.certificate

    def gateway(self, name: str, padding: str, node_address: str, obfuscation: bool = False) -> Process:
        """A gateway that reaches the node at `node_address`, and appraises it only as it starts."""
        scheme = "https" if self.node_tls else "http"
        text = configured((self.made / "gateway.toml").read_text(encoding="utf-8"), [
            LISTEN, (r'(?m)^url = "http.*"$', f'url = "{scheme}://{node_address}"'),
            # Each gateway has a journal of its own.
            (r'url = "sqlite:sealgate.db"', f'url = "sqlite:sealgate.db"\njournal = "{name}.journal"')])
        tls = f'\n[tls]\ncertificate_file = "{self.certificate}"\nkey_file = "{self.folder}/gateway.key"\n'
        streams = "\n[streams]\nobfuscation = true\n" if obfuscation else ""
        path = self.made / f"{name}.toml"
        path.write_text(f'padding = "{padding}"\nreattest_s = 3600\n{text}'
                        f'\n[health]\nprobe_s = 3600\n{streams}{tls if self.certificate else ""}', encoding="utf-8")
        return self.start(name, self.binary, "--log", "warn", "gateway", "--config", str(path))

    def cpu_s(self, process: Process) -> float:
        """Processor time that a process has used."""
        fields = pathlib.Path(f"/proc/{process.process.pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100


def until(condition, what: str, patience_s: float = PATIENCE_S) -> None:
    """Asks again until something holds."""
    end = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"{what} did not come about in {patience_s:.0f} s")
        time.sleep(0.1)
