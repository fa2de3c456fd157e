#!/usr/bin/python3
"""Every frame answered once, in order, bit for bit, whatever is killed, frozen, cut or restarted meanwhile.

CONVOY_FAULT_KILLS (default 200) says how often the first test kills; CONVOY_TEST_QUICK=1 makes everything short. Figures are printed as
comments: how long the client had no result around each fault, and how many frames were sent again.
"""
import contextlib
import glob
import json
import os
import random
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import unittest

import numpy

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "system"))
import harness  # noqa: E402
from harness import CONVOYCTL, CUTS, QUICK, RESNET  # noqa: E402

KILLS = int(os.environ.get("CONVOY_FAULT_KILLS", "12" if QUICK else "200"))
FRAMES = 4000
OTHER_CUTS = ["/m/f/f.2/Relu_1", "/m/f/f.4/Relu_1"]
FAKETIME = next(iter(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")), None)


class Stream:
    """convoyctl infer in the background, over and over the same frames; each run is checked when it ends."""

    def __init__(self, case, to, *words):
        self.case, self.to, self.words = case, to, words
        self.results, self.runs, self.again = 0, 0, 0
        self.times = []  # of each result
        self.start()

    def start(self):
        self.out = self.case.path(f"out-{self.runs}")
        self.process = subprocess.Popen([CONVOYCTL, "infer", "--to", self.to, "--tensor", f"input={self.case.frames}", "--json",
                                         "--out", self.out, *self.words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=open(self.case.path("infer.err"), "wb"), text=True)
        self.reader = threading.Thread(target=self.read, args=(self.process.stdout,))
        self.reader.start()

    def read(self, lines):
        for _ in lines:
            self.results += 1
            self.times.append(time.monotonic())

    def finish(self):
        """Waits for the end of the run and checks it."""
        status = self.process.wait(4 * harness.CAP_S)
        self.reader.join()
        self.process.stdout.close()
        with open(self.case.path("infer.err"), encoding="utf-8") as err:
            self.case.assertEqual(status, 0, err.read())
        self.runs += 1
        self.case.assertEqual(self.results, self.runs * FRAMES)
        names = os.listdir(self.out)
        self.case.assertEqual(len(names), 1)
        got = numpy.load(os.path.join(self.out, names[0]))
        self.case.assertEqual(got.tobytes(), self.case.answers.tobytes(), "results are not those of one device")
        shutil.rmtree(self.out)

    def keep_going(self):
        """Begins the next run when this one is over."""
        if self.process.poll() is not None:
            self.finish()
            self.start()

    def wait_for_results(self, count):
        """Until so many more have come."""
        target = self.results + count
        deadline = time.monotonic() + harness.CAP_S
        while self.results < target:
            self.keep_going()
            if time.monotonic() > deadline:
                self.case.fail(f"no {count} results in {harness.CAP_S} s:\n{self.case.last_logs()}")
            time.sleep(0.005)

    def longest_pause_since(self, begin):
        """In seconds, between two results or from the last one until now."""
        times = [t for t in self.times if t >= begin]
        return max((b - a for a, b in zip([begin, *times], [*times, time.monotonic()])), default=0)


class FaultCase(harness.Case):
    def setUp(self):
        super().setUp()
        self.frames = self.path("frames.npy")
        numpy.save(self.frames, numpy.random.default_rng(7).random((FRAMES, 1, 28, 28), dtype=numpy.float32))
        self.ctl_ok("run", RESNET, "--tensor", f"input={self.frames}", "--quiet", "--out", self.path("alone"))
        (name,) = os.listdir(self.path("alone"))
        self.answers = numpy.load(self.path("alone", name))
        self.assertEqual(len(self.answers), FRAMES)

    def last_logs(self):
        return "\n".join(self.logs(self.daemons).splitlines()[-30:])

    def write_configs(self, stages, cuts=tuple(CUTS), extra=""):
        """What the devices are started with: (the configuration of all, {node: one of its own})."""
        return self.write_config(stages, cuts, extra=extra), {}

    def make_line(self, stages, extra=""):
        """A line of these stages, of which nothing runs yet."""
        path, configs = self.write_configs(stages, extra=extra)
        self.daemons = harness.line.Line(path, stages, self.path("logs"), lambda text: None)
        self.daemons.configs = configs
        self.daemons.to = stages[0][1]
        self.addCleanup(self.stop_line, self.daemons)

    def begin(self, extra=""):
        self.make_line([(f"pi-{letter}", f"127.0.0.1:{port}") for letter, port in zip("abc", harness.free_ports(3))], extra)
        self.daemons.start(harness.CAP_S)
        return self.stream_to(self.daemons.to)

    def stream_to(self, to, *words):
        stream = Stream(self, to, *words)
        self.addCleanup(self.end_stream, stream)
        stream.wait_for_results(50)
        return stream

    @staticmethod
    def end_stream(stream):
        if stream.process.poll() is None:
            stream.process.kill()
        stream.process.wait()
        stream.reader.join()

    def status(self, to=None):
        return json.loads(self.ctl_ok("status", "--to", to or self.daemons.to, "--json"))

    def retried(self):
        return self.status()["stages"][0]["frames_retried"]

    def is_whole(self):
        return "waits_for" not in (status := self.status()) and all(s["state"] == "ready" for s in status["stages"])

    def kill_and_restart(self, node, how=signal.SIGKILL):
        self.daemons.daemons[node].send_signal(how)
        self.daemons.daemons[node].wait(harness.CAP_S)
        self.daemons.start_daemon(node)

    def report(self, text):
        print(f"# {self.id().rsplit('.', 1)[1]}: {text}", flush=True)


class Deployed:
    """Mixed into a case: only pi-a has model and pipeline; the others are handed their stages, and have them again from their caches."""

    def write_configs(self, stages, cuts=tuple(CUTS), extra=""):
        path = self.write_config(stages, cuts, extra=f"{extra}deploy: true\nstate: {self.path('state-pi-a')}\n")
        return path, {node: self.write(f"{node}.yaml", f"node: {node}\nlisten: '{address}'\nstate: {self.path('state-' + node)}\n{extra}")
                      for node, address in stages[1:]}


class Killed(FaultCase):
    def test_stages_killed_at_random_moments(self):
        stream, chance, pauses = self.begin(), random.Random(1), []
        for _ in range(KILLS):
            stream.keep_going()
            time.sleep(chance.random() * 0.3)  # any moment will do
            begin = time.monotonic()
            for node in chance.choice([["pi-b"], ["pi-c"], ["pi-b", "pi-c"]]):
                self.kill_and_restart(node)
            stream.wait_for_results(chance.choice([1, 1, 1, 200]))
            pauses.append(stream.longest_pause_since(begin))
        again = self.retried()
        stream.finish()
        self.report(f"{KILLS} kills, {stream.runs * FRAMES} frames, {again} sent again, no result for {statistics.median(pauses):.2f} s "
                    f"(median), {max(pauses):.2f} s (longest)")

    def test_the_ingress_killed(self):
        """The client connects again and sends what had no answer; nothing of the old ingress is left to know it."""
        stream, pauses = self.begin(), []
        for _ in range(2 if QUICK else 10):
            begin = time.monotonic()
            self.kill_and_restart("pi-a")
            stream.wait_for_results(300)
            pauses.append(stream.longest_pause_since(begin))
        stream.finish()
        self.report(f"no result for {statistics.median(pauses):.2f} s (median), {max(pauses):.2f} s (longest)")

    def test_everything_killed_at_once(self):
        stream = self.begin()
        for daemon in self.daemons.daemons.values():
            daemon.kill()
        for node in ("pi-c", "pi-a", "pi-b"):
            self.daemons.daemons[node].wait(harness.CAP_S)
            self.daemons.start_daemon(node)
        stream.finish()


class Frozen(FaultCase):
    def test_devices_that_stand_still_for_a_while(self):
        stream = self.begin()
        for node, seconds in [("pi-b", 1), ("pi-c", 3), ("pi-a", 3)] + ([] if QUICK else [("pi-b", 10), ("pi-a", 10), ("pi-c", 30)]):
            with self.subTest(node=node, seconds=seconds):
                begin = time.monotonic()
                self.daemons.daemons[node].send_signal(signal.SIGSTOP)
                time.sleep(seconds)  # this is the fault
                self.daemons.daemons[node].send_signal(signal.SIGCONT)
                thawed = time.monotonic()
                stream.wait_for_results(500)
                self.report(f"{node} for {seconds} s: results again {self.first_after(stream, thawed):.2f} s later; "
                            f"no result for {stream.longest_pause_since(begin):.2f} s in all; {self.retried()} sent again so far")
        stream.finish()

    @staticmethod
    def first_after(stream, moment):
        return next((t for t in stream.times if t > moment), time.monotonic()) - moment


class Resetter:
    """Passes connections on to a device; each is reset after a random number of bytes, wherever in a message that is."""

    def __init__(self, target, chance):
        host, port = target.rsplit(":", 1)
        self.target, self.chance, self.resets, self.wanted = (host, int(port)), chance, 0, 10**9
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.target)
            except ConnectionError:
                near.close()
                continue
            except OSError:
                return
            budget = [self.chance.randrange(200, 400_000)]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self.copy, args=(source, sink, budget), daemon=True).start()

    def copy(self, source, sink, budget):
        try:
            while data := source.recv(self.chance.randrange(1, 20000)):
                if self.resets < self.wanted and budget[0] < len(data):
                    sink.sendall(data[:budget[0]])
                    self.resets += 1
                    break
                budget[0] -= len(data)
                sink.sendall(data)
        except OSError:
            pass
        for s in (source, sink):
            try:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.shutdown(socket.SHUT_RD)
            except OSError:
                pass
            s.close()

    def close(self):
        self.listener.close()


class Cut(FaultCase):
    def test_connections_reset_in_the_middle_of_messages(self):
        """Between the devices, and between client and ingress."""
        resets = 4 if QUICK else 40
        chance = random.Random(3)
        ports = [f"127.0.0.1:{port}" for port in harness.free_ports(3)]
        proxies = [Resetter(ports[1], chance), Resetter(ports[2], chance)]
        self.make_line([("pi-a", ports[0]), ("pi-b", proxies[0].address), ("pi-c", proxies[1].address)])
        for (node, _), port in zip(self.daemons.stages, ports):  # listens on its own port; the others know it by its proxy's
            self.start_listening(node, port)
        front = Resetter(ports[0], chance)
        for proxy in (*proxies, front):
            self.addCleanup(proxy.close)
            proxy.wanted = resets
        stream = self.stream_to(front.address)
        deadline = time.monotonic() + 4 * harness.CAP_S
        while sum(p.resets for p in (*proxies, front)) < 3 * resets:
            stream.wait_for_results(1)
            if time.monotonic() > deadline:
                self.fail(f"only {[p.resets for p in (*proxies, front)]} resets")
        stream.finish()
        self.report(f"{[p.resets for p in (*proxies, front)]} resets, {stream.runs * FRAMES} frames, {self.retried()} sent again by the ingress")

    def start_listening(self, node, address):
        log = open(self.path(f"{node}.log"), "wb")
        os.makedirs(self.path("logs"), exist_ok=True)
        daemon = subprocess.Popen([harness.CONVOYD, "--config", self.daemons.configs.get(node, self.daemons.config), "--node", node,
                                   "--listen", address], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                  preexec_fn=harness.line.end_with_parent)
        log.close()
        self.daemons.daemons[node] = daemon


class Plans(FaultCase):
    def test_a_neighbour_that_comes_back_with_an_older_plan(self):
        stream = self.begin()
        old = self.write_config(self.daemons.stages, OTHER_CUTS, name="old.yaml")
        new, self.daemons.config = self.daemons.config, old
        self.kill_and_restart("pi-b")
        self.wait_until(lambda: self.status().get("waits_for"), "status says whom the line waits for")
        self.assertIsNone(stream.process.poll(), "the client did not wait")
        self.daemons.config = new
        self.kill_and_restart("pi-b")
        stream.wait_for_results(200)
        stream.finish()


class PlansDeployed(Deployed, FaultCase):
    def test_a_neighbour_that_comes_back_with_an_older_plan(self):
        """It has a model and an older pipeline of its own: it is handed the plan in use beside that."""
        stream = self.begin()
        recruit = self.daemons.configs["pi-b"]
        self.daemons.configs["pi-b"] = self.write_config(self.daemons.stages, OTHER_CUTS, extra=f"state: {self.path('state-pi-b')}\n",
                                                         name="old.yaml")
        self.kill_and_restart("pi-b")
        self.wait_until(self.is_whole, "pi-b works under the plan of the others")
        stream.wait_for_results(500)
        self.daemons.configs["pi-b"] = recruit
        self.kill_and_restart("pi-b")
        self.wait_until(self.is_whole, "pi-b works without a pipeline of its own")
        stream.wait_for_results(500)
        stream.finish()


class Clock(FaultCase):
    def test_the_clock_jumps(self):
        """Wall-clock time goes forth and back by a day; nothing here may look at it."""
        with self.faked_clock() as set_clock:
            stream = self.begin()
        self.let_it_jump(stream, set_clock)

    @contextlib.contextmanager
    def faked_clock(self):
        """What is started inside has a clock that the function which it gives sets."""
        if not FAKETIME:
            raise unittest.SkipTest("there is no libfaketime (Debian package faketime)")
        clock = self.write("clock", "+0")
        faked = {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": clock, "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                 "DONT_FAKE_MONOTONIC": "1"}
        os.environ.update(faked)
        try:
            yield lambda jump: self.write("clock", jump)
        finally:
            for name in faked:
                os.environ.pop(name)

    def let_it_jump(self, stream, set_clock):
        for jump in ("+1d", "-1d", "+20y", "1970-01-02 00:00:00", "+0"):
            set_clock(jump)
            stream.wait_for_results(300)
        stream.finish()
        self.assertEqual(self.retried(), 0)


class ClockDeployed(Deployed, Clock):
    pass


class Network(FaultCase):
    """Three devices, each in a network namespace of its own, on a bridge. Needs root."""

    def setUp(self):
        super().setUp()
        if os.geteuid() != 0 or not shutil.which("ip"):
            raise unittest.SkipTest("needs root and iproute2")
        self.tag = f"cv{os.getpid() % 100000}"
        self.bridge = f"{self.tag}br"
        try:
            self.ip("link", "add", self.bridge, "type", "bridge")
        except subprocess.CalledProcessError:
            raise unittest.SkipTest("no bridge can be made here") from None
        self.addCleanup(self.ip, "link", "del", self.bridge)
        self.ip("addr", "add", "10.177.0.1/24", "dev", self.bridge)
        self.ip("link", "set", self.bridge, "up")

    @staticmethod
    def ip(*words):
        subprocess.run(["ip", *words], check=True, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def add_device(self, number):
        name, veth = f"{self.tag}{number}", f"{self.tag}v{number}"
        self.ip("netns", "add", name)
        self.addCleanup(self.ip, "netns", "del", name)
        self.ip("link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", name)
        self.ip("link", "set", veth, "master", self.bridge, "up")
        self.ip("-n", name, "link", "set", "lo", "up")
        self.ip("-n", name, "addr", "add", f"10.177.0.{10 + number}/24", "dev", "eth0")
        self.ip("-n", name, "link", "set", "eth0", "up")
        return name, veth

    def start_in(self, name, node):
        log = open(self.path(f"{node}.log"), "wb")
        daemon = subprocess.Popen(["ip", "netns", "exec", name, harness.CONVOYD, "--config",
                                   self.daemons.configs.get(node, self.daemons.config), "--node", node],
                                  stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                  preexec_fn=harness.line.end_with_parent)
        log.close()
        self.daemons.daemons[node] = daemon

    def test_a_link_that_goes_down_and_comes_up_again(self):
        """The cable of a device is pulled; with a key, so the links are encrypted as well."""
        key = self.path("cluster.key")
        self.ctl_ok("keygen", key)
        os.environ["CONVOY_KEY"] = key
        self.addCleanup(os.environ.pop, "CONVOY_KEY", None)
        stages = [(f"pi-{letter}", f"10.177.0.{10 + i}:7433") for i, letter in enumerate("abc")]
        os.makedirs(self.path("logs"), exist_ok=True)
        devices = [self.add_device(i) for i in range(3)]
        self.make_line(stages, extra=f"key: {key}\nheartbeat_ms: 1000\n")
        for (name, _), (node, _) in zip(devices, stages):
            self.start_in(name, node)
        self.wait_until(lambda: self.ctl("status", "--to", self.daemons.to).returncode == 0, "the ingress answers")
        stream = self.stream_to(self.daemons.to)
        for which, seconds in ((1, 3),) if QUICK else ((1, 10), (2, 10), (0, 4)):
            with self.subTest(device=stages[which][0]):
                begin = time.monotonic()
                self.ip("link", "set", devices[which][1], "down")
                time.sleep(seconds)  # this is the fault
                if which:
                    self.assertEqual(self.status().get("waits_for"), stages[which][0])
                self.ip("link", "set", devices[which][1], "up")
                up = time.monotonic()
                stream.wait_for_results(300)
                self.report(f"{stages[which][0]} away for {seconds} s: results again "
                            f"{Frozen.first_after(stream, up):.2f} s later; no result for {stream.longest_pause_since(begin):.2f} s in all; "
                            f"{self.retried()} sent again so far")
        stream.finish()


class KilledDeployed(Deployed, Killed):
    pass


class FrozenDeployed(Deployed, Frozen):
    pass


class CutDeployed(Deployed, Cut):
    pass


class NetworkDeployed(Deployed, Network):
    pass


class DiskFull(Deployed, FaultCase):
    def test_a_disk_that_is_full_while_a_part_is_cached(self):
        """The line goes on under the plan that it has; once there is room, the new one is handed out."""
        state = self.path("state-pi-b")
        os.mkdir(state)
        if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "convoy-test", state],
                                               stderr=subprocess.DEVNULL).returncode != 0:
            raise unittest.SkipTest("needs root, and a file system that may be mounted")
        self.addCleanup(subprocess.run, ["umount", "--lazy", state], check=True)
        stream = self.begin()
        room = os.statvfs(state)
        with open(os.path.join(state, "ballast"), "wb") as ballast:
            ballast.write(bytes(room.f_bavail * room.f_frsize))
        cut = self.status()["stages"][0]["last"]
        self.write_configs(self.daemons.stages, OTHER_CUTS)
        self.daemons.daemons["pi-a"].send_signal(signal.SIGHUP)
        self.wait_until(lambda: "NO_SPACE" in self.logs(self.daemons), "pi-b says that its disk is full")
        stream.wait_for_results(500)
        self.assertEqual(self.status()["stages"][0]["last"], cut)
        os.remove(os.path.join(state, "ballast"))
        self.daemons.daemons["pi-a"].send_signal(signal.SIGHUP)
        self.wait_until(lambda: self.status()["stages"][0]["last"] != cut, "the new plan is in use")
        stream.wait_for_results(500)
        stream.finish()


if __name__ == "__main__":
    harness.main()
