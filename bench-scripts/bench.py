"""What the scripts beside this file share: processes that end with them, oha, and the record of a run."""

import contextlib
import csv
import datetime
import json
import os
import pathlib
import platform
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent
# What takes long to build or fetch.
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "corelane-bench"
DEADLINE_SECONDS = 15
# Everything is on loopback, whatever proxy the machine's own traffic takes.
DIRECT_ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def default_binary():
    return os.path.join(os.environ.get("CARGO_TARGET_DIR", ROOT.parent / "target"), "release", "corelane")


def check_binary(path):
    if not os.access(path, os.X_OK):
        sys.exit(f"{path} is not there: cargo build --release, or --binary PATH")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def find_oha():
    """oha from PATH or /opt/oha/bin, or built once into a cache directory."""
    for found in (shutil.which("oha"), "/opt/oha/bin/oha", str(CACHE / "bin" / "oha")):
        if found and os.access(found, os.X_OK):
            return found
    print(f"oha is not there: building it into {CACHE} (minutes)", flush=True)
    subprocess.run(["cargo", "install", "--locked", "oha", "--root", str(CACHE)], check=True)
    return str(CACHE / "bin" / "oha")


def wait_for(what, condition, seconds=DEADLINE_SECONDS):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, path, method="GET", timeout=5):
    """The answer's body as JSON or text; an error unless it is a 200."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    with DIRECT.open(request, timeout=timeout) as answer:
        body = answer.read().decode()
    return json.loads(body) if body.startswith("{") else body


def answers(port, path):
    try:
        ask(port, path, timeout=1)
        return True
    except (OSError, urllib.error.URLError):
        return False


class Lab(contextlib.AbstractContextManager):
    """Processes that are killed, by their ids, when it is left; and a directory that is removed."""

    def __init__(self, binary):
        self.binary = binary
        self.processes = []
        self.directory = tempfile.TemporaryDirectory(prefix="corelane-bench-")
        self.log = open(self.path("log"), "ab")
        # So that what is running ends with a script that is told to stop.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    def path(self, name):
        return os.path.join(self.directory.name, name)

    def start(self, command):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.processes.append(process)
        return process

    def backend_command(self, name, port, *flags):
        return [self.binary, "backend", "--listen", f"127.0.0.1:{port}", "--name", name, *flags]

    def backend(self, name, port, *flags):
        process = self.start(self.backend_command(name, port, *flags))
        wait_for(f"backend {name} answers", lambda: answers(port, "/health"))
        return process

    def proxy(self, port, backends, *flags):
        """The load balancer; `backends` are ports, or texts as --backend takes them."""
        command = [self.binary, "--listen", f"127.0.0.1:{port}"]
        for backend in backends:
            url = backend if isinstance(backend, str) else f"http://127.0.0.1:{backend}"
            command += ["--backend", url]
        command += ["--log-level", "warn", *flags]
        process = self.start(command)
        wait_for("the load balancer answers", lambda: answers(port, "/"))
        return process, command

    def kill(self, process):
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.processes.remove(process)

    def __exit__(self, *_error):
        for process in list(self.processes):
            self.kill(process)
        self.log.close()
        self.directory.cleanup()


def served(port):
    """How many requests a backend has had, this question included."""
    return ask(port, "/")["served"]


def oha(command, seconds):
    """Runs oha, which has so many seconds and some more, and returns what it reports."""
    output = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 60,
                            env=DIRECT_ENVIRONMENT)
    if output.returncode != 0:
        raise RuntimeError(f"{shlex.join(command)}: {output.stderr.strip()}")
    return json.loads(output.stdout)


def failures(report):
    """Statuses other than 200 and errors, each with its count, and how many requests oha cut off at its end."""
    kinds = {status: count for status, count in report["statusCodeDistribution"].items() if status != "200"}
    cut = 0
    for error, count in report["errorDistribution"].items():
        if "deadline" in error:
            cut += count
        else:
            kinds[error] = kinds.get(error, 0) + count
    return kinds, cut


def place_of(form):
    """Where the title of a column stands: over its values, which are numbers on the right or text on the left."""
    return (">" if form.endswith(("f", "d")) else "<") + form.rstrip("fd").split(".")[0]


class Record:
    """A table that is printed as it grows, and kept with versions and commands in runs/<date>-<host>/.

    A column is its title and the format of its values: a width, or a width and the decimals of numbers.
    """

    def __init__(self, name, binary, oha_binary, columns, notes=()):
        self.name, self.columns, self.rows, self.commands = name, columns, [], []
        version = lambda command: subprocess.run(command, capture_output=True, text=True).stdout.strip()
        commit = version(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])
        self.lines = []
        self.say(f"# {shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]])}")
        self.say(f"# {datetime.datetime.now().astimezone().isoformat(timespec='seconds')}, {platform.node()}, "
                 f"Linux {platform.release()}, {os.cpu_count()} cores")
        tools = [f"{version([binary, '--version'])} ({commit})", f"Python {platform.python_version()}"]
        if oha_binary:
            tools.insert(1, version([oha_binary, "--version"]))
        self.say(f"# {', '.join(tools)}")
        for note in notes:
            self.say(f"# {note}")
        self.say("")
        titles = (f"{title:{place_of(form)}}" for title, form in columns)
        self.say("  ".join(titles).rstrip())

    def say(self, line):
        self.lines.append(line)
        print(line, flush=True)

    def ran(self, command):
        """Keeps a command as it was run, each once."""
        line = shlex.join(str(word) for word in command)
        if line not in self.commands:
            self.commands.append(line)

    def row(self, *values):
        self.rows.append(values)
        cells = (f"{value:{form}}" for value, (_, form) in zip(values, self.columns))
        self.say("  ".join(cells).rstrip())

    def store(self, svg=None):
        host = platform.node().split(".")[0] or "host"
        directory = ROOT / "runs" / f"{datetime.date.today().isoformat()}-{host}"
        directory.mkdir(parents=True, exist_ok=True)
        text = "\n".join([*self.lines, "", "Commands:", *(f"  {command}" for command in self.commands), ""])
        (directory / f"{self.name}.txt").write_text(text)
        with open(directory / f"{self.name}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(title.strip() for title, _ in self.columns)
            writer.writerows(self.rows)
        if svg:
            (directory / f"{self.name}.svg").write_text(svg)
        print(f"\nstored in {directory}/{self.name}.txt and .csv", flush=True)
