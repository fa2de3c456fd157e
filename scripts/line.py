"""What the scripts and the system tests share: finding the programs, reading a pipeline, asking a line, running one here."""
import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
STOP_S = 20  # a daemon that is still there so long after SIGTERM is killed
PR_SET_PDEATHSIG = 1


class Failure(Exception):
    """A sentence for the user."""


def program(name):
    """$CONVOY_BUILD, else build/ beside this folder, else $PATH."""
    for folder in (os.environ.get("CONVOY_BUILD"), os.path.join(ROOT, "build")):
        if folder and os.access(os.path.join(folder, name), os.X_OK):
            return os.path.join(folder, name)
    found = shutil.which(name)
    if not found:
        raise Failure(f"there is no {name}: run `make` first")
    return found


def read_stages(config):
    """The pipeline as [(node, address)], first stage first, by the same parser as the daemon's. Where the configuration names
    a key, this script and what it starts use it for their own connections."""
    answer = subprocess.run([program("convoyctl"), "check", config, "--json"], stdout=subprocess.PIPE)
    if answer.returncode != 0:
        raise Failure(f"{config} cannot be used")
    if not answer.stdout.startswith(b"{"):  # a sentence about an idle device
        raise Failure(f"{config} has no pipeline")
    found = json.loads(answer.stdout)
    if found["key"] and os.path.exists(found["key"]):
        os.environ.setdefault("CONVOY_KEY", found["key"])
    return [(s["node"], s["address"]) for s in found["stages"]]


def stages_ready(address):
    """The nodes that are ready, from the device at address to the end of its line; none when it does not answer."""
    answer = subprocess.run([program("convoyctl"), "status", "--to", address, "--json"], stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL)
    if answer.returncode != 0:
        return []
    return [s["node"] for s in json.loads(answer.stdout)["stages"] if s["state"] == "ready"]


def lasting_ports():
    """Those that the kernel gives to nobody who does not ask for them: no connection takes one while its daemon restarts."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as limits:
        first, last = map(int, limits.read().split())
    return [port for port in range(10000, 65536) if not first <= port <= last] or list(range(first, last + 1))


def free_ports(count):
    """Ports of 127.0.0.1 that were free a moment ago."""
    ports = []
    candidates = lasting_ports()
    random.shuffle(candidates)
    for port in candidates:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                s.bind(("127.0.0.1", port))
                ports.append(port)
        if len(ports) == count:
            return ports
    raise Failure(f"{count} ports are wanted, {len(ports)} are free")


def end_with_parent():
    """In the child: SIGTERM to the daemon should this script be killed outright."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Line:
    """The daemons of a configuration's stages, on this machine. say is called with each sentence about them."""

    def __init__(self, config, stages, logs, say):
        self.config, self.stages, self.logs, self.say = config, stages, logs, say
        self.configs = {}  # of nodes that have one of their own
        self.daemons = {}  # node: Popen
        self.readers = []
        self.folder = tempfile.mkdtemp(prefix="convoy-")

    def start(self, wait_s):
        self.say(f"starting {len(self.stages)} daemons; process ids in {self.folder}")
        for node, _ in reversed(self.stages):
            self.start_daemon(node)
        deadline = time.monotonic() + wait_s
        for node, address in reversed(self.stages):
            self.wait_for(node, address, deadline)

    def start_daemon(self, node):
        if self.logs:
            os.makedirs(self.logs, exist_ok=True)
            out = open(os.path.join(self.logs, f"{node}.log"), "wb")
        else:
            out = subprocess.PIPE
        daemon = subprocess.Popen([program("convoyd"), "--config", self.configs.get(node, self.config), "--node", node], stdin=subprocess.DEVNULL,
                                  stdout=out, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=end_with_parent)
        self.daemons[node] = daemon
        with open(os.path.join(self.folder, f"{node}.pid"), "w", encoding="ascii") as pid:
            print(daemon.pid, file=pid)
        if self.logs:
            out.close()
        else:
            reader = threading.Thread(target=self.copy_log, args=(node, daemon.stdout))
            reader.start()
            self.readers.append(reader)

    def copy_log(self, node, stream):
        width = max(len(n) for n, _ in self.stages)
        for line in stream:
            sys.stderr.write(f"{node:{width}} | {line.decode(errors='replace')}")
            sys.stderr.flush()

    def wait_for(self, node, address, deadline):
        """Until the daemon answers with a stage that is ready."""
        while True:
            if self.daemons[node].poll() is not None:
                raise Failure(f"{node} ended with exit code {self.daemons[node].returncode}{self.last_words(node)}")
            if node in stages_ready(address):
                return
            if time.monotonic() > deadline:
                raise Failure(f"{node} did not serve {address} in time{self.last_words(node)}")
            time.sleep(0.05)

    def last_words(self, node):
        if not self.logs:
            return ""
        with open(os.path.join(self.logs, f"{node}.log"), encoding="utf-8", errors="replace") as log:
            lines = log.read().splitlines()
        return "".join(f"\n    {line}" for line in lines[-5:])

    def stop(self):
        """One after the other, first stage first, so that each sends its last frames to a neighbour that still serves."""
        clean = True
        for node in [n for n, _ in self.stages if n in self.daemons]:
            daemon = self.daemons[node]
            daemon.terminate()
            try:
                daemon.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.say(f"{node} did not end in {STOP_S} s: killed")
                daemon.kill()
                daemon.wait()
            if daemon.returncode != 0:
                self.say(f"{node} ended with exit code {daemon.returncode}")
                clean = False
        for reader in self.readers:
            reader.join()
        shutil.rmtree(self.folder, ignore_errors=True)
        return clean
