#!/usr/bin/python3
"""Clients that come, go and misbehave for an hour; at the end the daemons have what they had, and every good answer was right.

Usage: tests/soak/soak.py [--seconds N] [--rate VISITS_PER_SECOND] [--seed N]

A line of three whose plan is handed out and moved every minute, and a device of its own with a key and HTTP. Each visit is one row of
GUESTS. After a sixth of the time, and at the end, everybody leaves; then memory and descriptors of each daemon are taken, and must be the
same but for GROWTH_MAX. Exit code 1 when they are not, or a guest that behaves was not served."""
import argparse
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import numpy

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "system"))
import harness  # noqa: E402
from harness import CONVOYCTL, CONVOYD, CUTS, RESNET  # noqa: E402

PICTURES = 16
GROWTH_MAX = 2048  # KiB of resident memory: the allocator's own unrest
OTHER_CUTS = ["/m/f/f.2/Relu_1", "/m/f/f.4/Relu_1"]
SESSION_MS = 5000
GUESTS_AT_ONCE = 8
REST_S = 45  # buffers that lay idle for 30 s are given back


class Unserved(Exception):
    """A guest that behaves did not get what it was promised."""


def load_messages(folder):
    """The stock protobuf classes of convoy.proto."""
    subprocess.run(["protoc", f"--proto_path={harness.ROOT}/proto", f"--python_out={folder}", "convoy.proto"], check=True)
    sys.path.insert(0, folder)
    import convoy_pb2
    return convoy_pb2


class Guest:
    """One connection. Calls block for CAP_S at most."""

    def __init__(self, pb, address, role=0, session=0, receive_buffer=None):
        self.pb = pb
        self.socket = socket.socket()
        self.socket.settimeout(harness.CAP_S)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        host, port = address.rsplit(":", 1)
        self.socket.connect((host, int(port)))
        self.stream = self.socket.makefile("rb")
        self.credits, self.results = 0, {}
        self.send(hello=pb.Hello(version=1, role=role, node="soak", session=session))
        self.welcome = self.read_until("welcome").welcome

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()
        self.socket.close()

    def pack(self, **body):
        data = self.pb.Message(**body).SerializeToString()
        return harness.varint(len(data)) + data

    def send(self, **body):
        self.socket.sendall(self.pack(**body))

    def read(self):
        """The next message; credits and results are noted, pings answered."""
        length = shift = 0
        while True:
            byte = self.stream.read(1)
            if not byte:
                raise ConnectionResetError("the device closed the connection")
            length |= (byte[0] & 0x7F) << shift
            shift += 7
            if byte[0] < 0x80:
                break
        message = self.pb.Message.FromString(self.stream.read(length))
        kind = message.WhichOneof("body")
        if kind == "ping":
            self.send(pong=self.pb.Pong(token=message.ping.token))
        elif kind == "credit":
            self.credits += message.credit.frames
        elif kind == "result":
            self.results.setdefault(message.result.sequence, []).append(message.payload)
        elif kind in ("goodbye", "refusal"):
            bad = getattr(message, kind)
            raise Unserved(f"{kind}: {self.pb.Code.Name(bad.code)}: {bad.text}")
        return message

    def read_until(self, kind):
        while True:
            message = self.read()
            if message.WhichOneof("body") == kind:
                return message

    def frame(self, sequence, picture):
        body = self.pb.Frame(session=self.welcome.session, sequence=sequence, tensors=self.welcome.inputs)
        return {"frame": body, "payload": picture}

    def send_frame(self, sequence, picture):
        while self.credits == 0:
            self.read()
        self.credits -= 1
        self.send(**self.frame(sequence, picture))

    def break_off(self):
        """The next close() resets the connection."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Soak(harness.Case):
    """The daemons and what is known of them. (A Case for its helpers; it is no test.)"""

    def runTest(self):
        raise AssertionError("a program of its own")

    def begin(self, args):
        self.setUp()
        self.chance, self.lock = random.Random(args.seed), threading.Lock()
        self.pb = load_messages(self.folder)
        self.pictures_and_answers()
        addresses = [f"127.0.0.1:{port}" for port in harness.free_ports(5)]
        self.stages = list(zip(("pi-a", "pi-b", "pi-c"), addresses))
        self.to, self.locked, self.http = addresses[0], addresses[3], addresses[4]
        self.visits = {name: 0 for name in GUESTS}
        self.frames, self.moves, self.complaints = 0, 0, []
        self.stopped, self.open_doors, self.inside = threading.Event(), threading.Event(), 0
        self.daemons = {}
        self.start_all()

    def pictures_and_answers(self):
        noise = numpy.random.default_rng(7).random((PICTURES, 1, 28, 28), dtype=numpy.float32)
        path = self.path("pictures.npy")
        numpy.save(path, noise)
        self.ctl_ok("run", RESNET, "--tensor", f"input={path}", "--quiet", "--out", self.path("alone"))
        (name,) = os.listdir(self.path("alone"))
        self.pictures = [picture.tobytes() for picture in noise]
        self.answers = [answer.tobytes() for answer in numpy.load(self.path("alone", name))]

    # ---- daemons

    def start_daemon(self, node, text):
        path = self.write(f"{node}.yaml", text)
        with open(self.path(f"{node}.log"), "ab") as log:
            self.daemons[node] = subprocess.Popen([CONVOYD, "--config", path], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                  preexec_fn=harness.line.end_with_parent, env={**os.environ, "HOME": self.folder})

    def ingress_yaml(self, cuts):
        rows = [f"  - {{node: {node}, address: '{address}'" + (f", until: '{until}'" if until else "") + "}\n"
                for (node, address), until in zip(self.stages, [*cuts, None])]
        return (f"node: pi-a\nmodel: {RESNET}\nworkers: 1\ndeploy: true\nsession_ms: {SESSION_MS}\n"
                f"pipeline:\n{''.join(rows)}")

    def start_all(self):
        for node, address in self.stages[1:]:
            self.start_daemon(node, f"node: {node}\nlisten: {address}\nworkers: 1\n")
        self.start_daemon("pi-a", self.ingress_yaml(CUTS))
        key = self.path("cluster.key")
        self.ctl_ok("keygen", key)
        self.start_daemon("pi-k", f"node: pi-k\nmodel: {RESNET}\nworkers: 1\nkey: {key}\nhttp: {self.http}\nsession_ms: {SESSION_MS}\n"
                          f"pipeline:\n  - {{node: pi-k, address: '{self.locked}'}}\n")
        self.wait_until(self.is_up, "the line is up")
        self.wait_until(self.answers_http, "the device with the key serves HTTP")

    def status(self):
        try:
            with Guest(self.pb, self.to) as guest:
                guest.send(status_request=self.pb.StatusRequest(token=1))
                return guest.read_until("status").status
        except (OSError, Unserved):
            return None

    def answers_http(self):
        try:
            return b" 200 " in self.ask_http(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        except OSError:
            return False

    def is_up(self):
        status = self.status()
        return status and [stage.state for stage in status.stages] == ["ready"] * 3

    def move(self):
        """The other cuts, by reloading the ingress."""
        self.moves += 1
        self.write("pi-a.yaml", self.ingress_yaml(OTHER_CUTS if self.moves % 2 else CUTS))
        self.daemons["pi-a"].send_signal(signal.SIGHUP)

    # ---- guests

    def run_guests(self):
        """One thread's visits."""
        while not self.stopped.is_set():
            if not self.open_doors.wait(0.2):
                continue
            with self.lock:
                name = self.chance.choices(list(GUESTS), [weight for weight, _ in GUESTS.values()])[0]
                chance = random.Random(self.chance.random())
                self.inside += 1
            try:
                self.visit(name, chance)
            finally:
                with self.lock:
                    self.inside -= 1
                    self.visits[name] += 1
            self.stopped.wait(chance.random() * 2 * GUESTS_AT_ONCE / self.rate)

    def visit(self, name, chance):
        behaves = name in BEHAVED
        try:
            frames = GUESTS[name][1](self, chance)
            with self.lock:
                self.frames += frames or 0
        except (OSError, Unserved, subprocess.TimeoutExpired) as error:
            if behaves:
                with self.lock:
                    self.complaints.append(f"{name}: {error!r}")

    def check(self, guest, sequences):
        """Reads until all of them are answered; each once, and rightly."""
        while not all(s in guest.results for s in sequences):
            guest.read()
        for s in sequences:
            if guest.results[s] != [self.answers[s % PICTURES]]:
                raise Unserved(f"frame {s} has {len(guest.results[s])} answers, or a wrong one")

    def count_frames(self, chance):
        return range(1, chance.randrange(2, 40))

    def comes_and_goes(self, chance):
        with Guest(self.pb, self.to) as guest:
            for s in (sequences := self.count_frames(chance)):
                guest.send_frame(s, self.pictures[s % PICTURES])
            self.check(guest, sequences)
        return len(sequences)

    def resumes(self, chance):
        """Loses its connection somewhere; what it then has no answer to it sends again."""
        sequences = self.count_frames(chance)
        with Guest(self.pb, self.to) as guest:
            for s in sequences[:chance.randrange(len(sequences) + 1)]:
                guest.send_frame(s, self.pictures[s % PICTURES])
            guest.break_off()
        with Guest(self.pb, self.to, session=guest.welcome.session) as again:
            again.results = guest.results
            for s in sequences:
                if s not in again.results:
                    again.send_frame(s, self.pictures[s % PICTURES])
            self.check(again, sequences)
        return len(sequences)

    def comes_with_the_key(self, chance):
        """convoyctl, encrypted, to the device that has a key."""
        frames = self.path("pictures.npy")
        done = subprocess.run([CONVOYCTL, "infer", "--to", self.locked, "--tensor", f"input={frames}", "--quiet"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                              env={**os.environ, "CONVOY_KEY": self.path("cluster.key")}, timeout=5 * harness.CAP_S)
        if done.returncode != 0:
            raise Unserved(done.stderr)
        return PICTURES

    def looks(self, chance):
        for path in ("/status", "/metrics", "/health", "/", "/nothing"):
            if not self.ask_http(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()).startswith(b"HTTP/1.1 "):
                raise Unserved(f"no answer to GET {path}")

    def ask_http(self, request):
        host, port = self.http.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=harness.CAP_S) as s:
            s.sendall(request)
            answer = b""
            while data := s.recv(65536):
                answer += data
        return answer

    def leaves_its_answers(self, chance):
        with Guest(self.pb, self.to) as guest:
            while guest.credits == 0:
                guest.read()
            for s in range(1, guest.credits + 1):
                guest.send(**guest.frame(s, self.pictures[s % PICTURES]))
            if chance.random() < 0.5:
                guest.break_off()

    def breaks_off_in_a_message(self, chance):
        with Guest(self.pb, self.to) as guest:
            while guest.credits == 0:
                guest.read()
            message = guest.pack(**guest.frame(1, self.pictures[0]))
            guest.socket.sendall(message[:chance.randrange(1, len(message))])
            self.stopped.wait(chance.random() * 3)
            if chance.random() < 0.5:
                guest.break_off()

    def reads_slowly(self, chance):
        """Asks and asks, and takes a byte now and then."""
        with Guest(self.pb, self.to, receive_buffer=4096) as guest:
            guest.socket.settimeout(2)
            ask = guest.pack(status_request=self.pb.StatusRequest(token=1))
            for _ in range(50):
                guest.socket.sendall(40 * ask)
                guest.stream.read(1)

    def sends_more_than_it_may(self, chance):
        with Guest(self.pb, self.to) as guest:
            for s in range(1, 200):
                guest.send(**guest.frame(s, self.pictures[0]))
            while True:
                guest.read()

    def talks_nonsense(self, chance):
        address = chance.choice([self.locked, self.http, *(a for _, a in self.stages)])
        host, port = address.rsplit(":", 1)
        starts = [b"", b"GET / HTTP/1.1\r\nHost:", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x90\x80\x80\x80\x00\x09"]
        with socket.create_connection((host, int(port)), timeout=harness.CAP_S) as s:
            s.sendall(chance.choice(starts) + chance.randbytes(chance.randrange(3000)))
            self.stopped.wait(chance.random() * 3)

    def plays_a_device(self, chance):
        """A frame under a plan that nobody knows, then what no device says."""
        address = chance.choice([a for _, a in self.stages[1:]])
        with Guest(self.pb, address, role=chance.choice([1, 2])) as guest:
            frame = self.pb.Frame(session=1, sequence=1, plan=chance.randbytes(32))
            guest.send(frame=frame, payload=chance.randbytes(64))
            guest.send(prepare=self.pb.Prepare(plan=chance.randbytes(32), part=chance.randbytes(32), part_bytes=1000))
            guest.send(part_request=self.pb.PartRequest(part=chance.randbytes(32), offset=7, bytes=65536))
            self.stopped.wait(chance.random())

    def applies_nonsense(self, chance):
        with Guest(self.pb, self.to) as guest:
            stages = [self.pb.PlanStage(node=node, address=address, until=str(chance.randrange(100))) for node, address in self.stages]
            guest.send(apply=self.pb.Apply(token=1, stages=chance.sample(stages, 2), model_digest=chance.randbytes(32)))
            guest.read_until("applied")

    # ---- looking at it

    def rest(self):
        """Everybody leaves; {node: (KiB, descriptors)} when nothing is going on any more."""
        self.open_doors.clear()
        deadline = time.monotonic() + 6 * harness.CAP_S
        while self.inside > 0:
            if time.monotonic() > deadline:
                raise Unserved(f"{self.inside} guests do not come back")
            time.sleep(0.2)
        if self.moves % 2:
            self.move()
        with Guest(self.pb, self.to) as host:
            deadline, sequence = time.monotonic() + 3 * harness.CAP_S, 0
            while not self.is_empty(host):
                sequence += 1  # an older plan goes when frames have come under the newest
                host.send_frame(sequence, self.pictures[sequence % PICTURES])
                self.check(host, [sequence])
                if time.monotonic() > deadline:
                    raise Unserved(f"guests have left, and yet there are {self.last_status}")
                time.sleep(0.2)
        time.sleep(REST_S)  # for buffers that are given back after a while
        return {node: self.look_at(node) for node in self.daemons}

    def is_empty(self, host):
        """But for the one who asks."""
        host.send(status_request=self.pb.StatusRequest(token=1))
        status = host.read_until("status").status
        self.last_status = f"{status.clients} clients, {status.sessions} sessions, plans {[[p.state for p in s.plans] for s in status.stages]}"
        return (status.clients, status.sessions) == (1, 1) and [len(s.plans) for s in status.stages] == [1, 1, 1]

    def look_at(self, node):
        pid = self.daemons[node].pid
        return harness.memory_kib(pid), len(os.listdir(f"/proc/{pid}/fd"))

    def show(self, what, facts):
        figures = ", ".join(f"{node} {kib} KiB {fds} fds" for node, (kib, fds) in facts.items())
        print(f"{time.strftime('%H:%M:%S')} {what}: {figures}; {sum(self.visits.values())} visits, {self.frames} frames checked, "
              f"{self.moves} moves", flush=True)

    def pass_time(self, seconds, every):
        self.open_doors.set()
        until, turn = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            self.stopped.wait(min(every, max(0, until - time.monotonic())))
            for node, daemon in self.daemons.items():
                if daemon.poll() is not None:
                    raise Unserved(f"{node} ended with exit code {daemon.returncode}")
            turn += 1
            self.move()
            if turn % 5 == 0:
                self.show("meanwhile", {node: self.look_at(node) for node in self.daemons})

    def judge(self, first, last):
        faults = [f"{len(self.complaints)} guests that behave were not served, such as {self.complaints[0]}"] if self.complaints else []
        for node in first:
            (kib, fds), (kib_now, fds_now) = first[node], last[node]
            if kib_now > kib + GROWTH_MAX:
                faults.append(f"{node} has grown by {kib_now - kib} KiB")
            if fds_now != fds:
                faults.append(f"{node} has {fds_now} descriptors, and had {fds}")
        return faults

    def run_for(self, args):
        self.rate = args.rate
        self.show("start", {node: self.look_at(node) for node in self.daemons})
        threads = [threading.Thread(target=self.run_guests) for _ in range(GUESTS_AT_ONCE)]
        every = min(60, args.seconds / 12)
        for thread in threads:
            thread.start()
        try:
            self.pass_time(args.seconds / 6, every)
            first = self.rest()
            self.show("at rest", first)
            self.pass_time(args.seconds * 5 / 6, every)
            last = self.rest()
            self.show("at rest", last)
        finally:
            self.stopped.set()
            for thread in threads:
                thread.join()
        return self.judge(first, last)

    def end(self):
        """Stops the daemons; those that do not end cleanly."""
        dirty = []
        for node, daemon in self.daemons.items():
            daemon.terminate()
            if daemon.wait(harness.CAP_S) != 0:
                dirty.append(f"{node} ended with exit code {daemon.returncode}")
        return dirty


GUESTS = {  # name: how often, what
    "comes and goes": (6, Soak.comes_and_goes),
    "resumes": (4, Soak.resumes),
    "comes with the key": (1, Soak.comes_with_the_key),
    "looks": (1, Soak.looks),
    "leaves its answers": (2, Soak.leaves_its_answers),
    "breaks off in a message": (2, Soak.breaks_off_in_a_message),
    "reads slowly": (1, Soak.reads_slowly),
    "sends more than it may": (1, Soak.sends_more_than_it_may),
    "talks nonsense": (3, Soak.talks_nonsense),
    "plays a device": (2, Soak.plays_a_device),
    "applies nonsense": (1, Soak.applies_nonsense),
}
BEHAVED = ("comes and goes", "resumes", "comes with the key", "looks")


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--rate", type=float, default=4)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    soak = Soak()
    try:
        soak.begin(args)
        faults = soak.run_for(args)
        faults += soak.end()
        print("visits: " + ", ".join(f"{count} {name}" for name, count in soak.visits.items()))
    except (Unserved, AssertionError) as error:
        faults = [str(error)]
        print("".join(open(soak.path(f"{node}.log"), encoding="utf-8").read()[-3000:] for node in soak.daemons))
    finally:
        for daemon in soak.daemons.values():
            daemon.kill()
            daemon.wait()
        soak.doCleanups()
    for fault in faults:
        print(f"soak: {fault}")
    print(f"{0 if faults else 1} passed, {len(faults)} failed")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
