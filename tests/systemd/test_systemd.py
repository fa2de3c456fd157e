#!/usr/bin/python3
"""The unit under a real systemd: one boots in a container from a folder that debootstrap fills from Debian's mirror.

As root. The folder is $CONVOY_BUILD/systemd-root, made once (two minutes, 400 MB); `make install` lies in
$CONVOY_BUILD/systemd-install. Skipped, with a sentence, where there is no root, no mirror, or containers may not be started."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest

import numpy

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "system"))
import harness  # noqa: E402
from harness import CAP_S, CONVOYD, CUTS, RESNET  # noqa: E402

BUILD = os.path.dirname(CONVOYD)
ROOT = os.path.join(BUILD, "systemd-root")
INSTALLED = os.path.join(BUILD, "systemd-install")
BOOT_S = 120
FRAMES = 300


def suite():
    with open("/etc/os-release", encoding="utf-8") as file:
        return re.search(r"^VERSION_CODENAME=(\w+)", file.read(), re.M)[1]


def packages_of(program):
    """Those that have its libraries."""
    listed = subprocess.run(["ldd", program], check=True, stdout=subprocess.PIPE, text=True).stdout
    paths = {form for path in re.findall(r" => (/\S+)", listed) for form in (path, f"/usr{path}", os.path.realpath(path))}
    owners = subprocess.run(["dpkg-query", "-S", *paths], stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, text=True).stdout
    return sorted({row.split(":")[0] for row in owners.splitlines() if not row.startswith("diversion")})


def make_root():
    """The system that boots; None, or why there is none."""
    if os.geteuid() != 0:
        return "only root may start a container"
    for tool in ("debootstrap", "systemd-nspawn", "nsenter", "unshare"):
        if not shutil.which(tool):
            return f"there is no {tool}"
    if not os.path.isdir(INSTALLED):
        return f"there is no {INSTALLED}: use make test-systemd"
    if not os.path.exists(f"{ROOT}/made"):
        subprocess.run(["rm", "-rf", "--one-file-system", ROOT], check=True)
        wanted = ["systemd", "systemd-sysv", "dbus", *packages_of(CONVOYD)]
        # What it mounts there ends with it, however it ends.
        made = subprocess.run(["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={','.join(wanted)}", suite(), ROOT],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if made.returncode != 0:
            return "debootstrap: " + made.stdout.strip().splitlines()[-1]
        open(f"{ROOT}/made", "w").close()
    return None


class Systemd(harness.Case):
    """One boot; what happens to the unit happens in order."""

    def setUp(self):
        super().setUp()
        why = make_root()
        if why:
            self.skipTest(why)
        # By tar, for /lib is a link there.
        installed = subprocess.run(["tar", "-C", INSTALLED, "--owner=0", "--group=0", "-c", "."], check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "-C", ROOT, "--keep-directory-symlink", "-x"], check=True, input=installed)
        ports = harness.free_ports(2)
        self.to, self.behind = (f"127.0.0.1:{port}" for port in ports)
        for folder in ("etc/convoy", "etc/systemd/system/convoyd.service.d", "var/lib/convoy/models"):
            os.makedirs(f"{ROOT}/{folder}", exist_ok=True)
        shutil.copy(RESNET, f"{ROOT}/var/lib/convoy/models/")
        self.configure(CUTS[0])
        # As it is, but for patience.
        with open(f"{ROOT}/etc/systemd/system/convoyd.service.d/test.conf", "w", encoding="utf-8") as file:
            file.write("[Service]\nWatchdogSec=4\nTimeoutStopSec=4\n")
        self.run_in_root("systemctl", "enable", "convoyd")
        self.start_next()
        self.boot()

    @staticmethod
    def run_in_root(*words):
        subprocess.run(["chroot", ROOT, *words], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    def configure(self, until):
        with open(f"{ROOT}/etc/convoy/convoy.yaml", "w", encoding="utf-8") as file:
            file.write(f"node: pi-a\nmodel: /var/lib/convoy/models/{os.path.basename(RESNET)}\ndeploy: true\npipeline:\n"
                       f"  - {{node: pi-a, address: '{self.to}', until: '{until}'}}\n"
                       f"  - {{node: pi-b, address: '{self.behind}'}}\n")

    def start_next(self):
        """The second device: a daemon of this machine, to which the first hands its stage."""
        path = self.write("pi-b.yaml", f"node: pi-b\nlisten: '{self.behind}'\nstate: {self.path('state')}\n")
        log = open(self.path("pi-b.log"), "wb")
        daemon = subprocess.Popen([CONVOYD, "--config", path], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                  preexec_fn=harness.line.end_with_parent)
        log.close()
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.kill)

    def boot(self):
        """The container shares this machine's network. Registers nowhere: there may be no systemd around it."""
        console = open(self.path("console"), "wb")
        self.nspawn = subprocess.Popen(["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot", "--console=read-only",
                                        "--directory", ROOT], stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        console.close()
        self.addCleanup(self.shut_down)
        deadline = time.monotonic() + BOOT_S
        while self.systemctl("is-system-running").stdout.strip() not in ("running", "degraded"):
            if self.nspawn.poll() is not None or time.monotonic() > deadline:
                with open(self.path("console"), encoding="utf-8", errors="replace") as file:
                    self.skipTest(f"no system boots in a container here: {file.read().strip().splitlines()[-1:]}")
            time.sleep(0.2)

    def shut_down(self):
        if self.nspawn.poll() is None:
            self.nspawn.send_signal(signal.SIGTERM)
            try:
                self.nspawn.wait(CAP_S)
            except subprocess.TimeoutExpired:
                self.nspawn.kill()
                self.nspawn.wait()

    def inside(self, *words):
        """Runs a command in the container; the finished process with its text."""
        with open(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children", encoding="ascii") as file:
            children = file.read().split()
        if not children:
            return subprocess.CompletedProcess(words, 1, "", "not booted yet")
        return subprocess.run(["nsenter", "--target", children[0], "--mount", "--uts", "--ipc", "--pid", "--cgroup", *words],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=CAP_S)

    def systemctl(self, *words):
        return self.inside("systemctl", "--no-pager", *words)

    def property(self, name):
        return self.systemctl("show", "--value", "--property", name, "convoyd").stdout.strip()

    def journal(self):
        return self.inside("journalctl", "--no-pager", "-u", "convoyd").stdout

    def wait_for(self, condition, what):
        deadline = time.monotonic() + CAP_S
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"not in {CAP_S} s: {what}\n{self.journal()[-3000:]}")
            time.sleep(0.1)

    def layers(self):
        """Where the first stage ends, once the line is whole under that plan; else None."""
        done = self.ctl("status", "--to", self.to, "--json")
        if done.returncode != 0:
            return None
        status = json.loads(done.stdout)
        whole = [stage["state"] for stage in status["stages"]] == ["ready", "ready"]
        return status["stages"][0]["last"] if whole else None

    def infer(self, frames):
        self.ctl_ok("infer", "--to", self.to, "--tensor", f"input={frames}", "--quiet", "--out", self.path("out"))
        (name,) = os.listdir(self.path("out"))
        answers = numpy.load(self.path("out", name))
        shutil.rmtree(self.path("out"))
        return answers.tobytes()

    def test_the_unit_starts_reloads_is_watched_and_stops(self):
        frames = self.path("frames.npy")
        numpy.save(frames, numpy.random.default_rng(5).random((FRAMES, 1, 28, 28), dtype=numpy.float32))
        self.ctl_ok("run", RESNET, "--tensor", f"input={frames}", "--quiet", "--out", self.path("alone"))
        (name,) = os.listdir(self.path("alone"))
        alone = numpy.load(self.path("alone", name)).tobytes()

        # It was started at boot, by its own user, inside its sandbox; and serves.
        self.wait_for(lambda: self.property("ActiveState") == "active", "the unit is active")
        self.wait_for(lambda: self.layers() is not None, "the line is whole")
        pid = self.property("MainPID")
        confined = self.inside("cat", f"/proc/{pid}/status").stdout
        user = self.inside("id", "-u", "convoy").stdout.strip()
        for fact in (rf"Uid:\t{user}\t", r"NoNewPrivs:\t1", r"Seccomp:\t2", r"CapEff:\t0+\n", r"CapBnd:\t0+\n"):
            self.assertRegex(confined, fact)
        self.assertEqual(self.infer(frames), alone)
        said = self.systemctl("status", "convoyd").stdout
        self.assertRegex(said, r'Status: "[^"]*ready', said)

        # A reload moves the cut.
        before = self.layers()
        self.configure(CUTS[1])
        self.assertEqual(self.systemctl("reload", "convoyd").returncode, 0)
        self.wait_for(lambda: self.layers() not in (None, before), "the cut has moved")
        self.assertEqual(self.property("MainPID"), pid)
        self.assertEqual(self.infer(frames), alone)

        # A daemon that hangs is restarted, and the line works again.
        self.assertEqual(self.inside("sh", "-c", f"kill -STOP {pid}").returncode, 0)
        frozen = time.monotonic()
        self.wait_for(lambda: self.property("MainPID") not in ("0", pid) and self.property("ActiveState") == "active",
                      "the watchdog has restarted it")
        print(f"# restarted {time.monotonic() - frozen:.1f} s after it froze (WatchdogSec=4, TimeoutStopSec=4)", flush=True)
        self.assertIn("Watchdog timeout", self.journal())
        self.assertEqual(self.property("NRestarts"), "1")
        self.wait_for(lambda: self.layers() is not None, "the line is whole again")
        self.assertEqual(self.infer(frames), alone)

        # It ends cleanly.
        self.assertEqual(self.systemctl("stop", "convoyd").returncode, 0)
        self.assertEqual((self.property("ActiveState"), self.property("Result"), self.property("ExecMainStatus")),
                         ("inactive", "success", "0"))


if __name__ == "__main__":
    harness.main()
