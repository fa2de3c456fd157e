"""What a line that plans itself does when the world changes under it: a device gets slower, another joins, a link gets slower, while
frames flow without a break. Every result is compared with that of one device."""
import json
import math
import os
import socket
import subprocess
import sys
import threading
import time

import numpy

import figures
from emulation import EmulationError, cpu_seconds, in_space

PORT = 7433
SETTLE_S = 6.0     # of a measurement, once the cuts rest
REST_S = 8.0       # cuts that have not moved for so long rest: a second move may follow 6 s after the first
PATIENCE_S = 30.0  # an event that has moved nothing for so long moves nothing
POLL_S = 0.2
FIRST_PLAN_S = 60.0
GAP_EXTRA_S = 0.05 # a gap may last two frame intervals and this


class Feed(threading.Thread):
    """Sends frames to a line as its credits allow, from now to stop(), and notes when each result came, and whether it was right."""

    def __init__(self, device, messages, inputs, expected):
        super().__init__(daemon=True)
        self.messages = messages
        self.expected = expected  # [inputs]: bytes of the results
        with in_space(device.space):
            self.socket = socket.create_connection((device.address, PORT), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.socket.makefile("rb", 1 << 20)
        self.send(hello=messages.Hello(version=1, role=messages.ROLE_CLIENT, node="bench"))
        welcome = self.receive("welcome").welcome
        if len(welcome.inputs) != 1 or len(welcome.outputs) != 1:
            raise EmulationError("the scenario of moves is for networks with one input and one output")
        self.session, self.tensors = welcome.session, welcome.inputs
        self.payloads = [numpy.ascontiguousarray(frame, "<f4").tobytes() for frame in inputs]
        self.sent = 0
        self.sent_at = {}
        self.results = []  # (when, latency)
        self.repeated = self.wrong = 0
        self.error = None
        self.is_over = False

    def send(self, payload=b"", **body):
        data = self.messages.Message(**body).SerializeToString()
        if payload:  # field 15, bytes: behind the rest, without a copy by the library
            data += b"\x7a" + varint(len(payload))
        self.socket.sendall(varint(len(data) + len(payload)) + data)
        if payload:
            self.socket.sendall(payload)

    def receive(self, wanted=None):
        """The next message, or the next one with that body."""
        while True:
            length = shift = 0
            more = True
            while more:
                byte = self.stream.read(1)
                if not byte:
                    raise EmulationError("the ingress has closed the connection")
                length |= (byte[0] & 0x7F) << shift
                shift += 7
                more = byte[0] >= 0x80
            message = self.messages.Message.FromString(self.stream.read(length))
            kind = message.WhichOneof("body")
            if kind == "ping":
                self.send(pong=self.messages.Pong(token=message.ping.token))
            elif kind in ("goodbye", "refusal"):
                raise EmulationError(f"{kind}: {getattr(message, kind).text}")
            elif wanted in (None, kind):
                return message

    def run(self):
        try:
            while not self.is_over or self.sent_at:
                message = self.receive()
                kind = message.WhichOneof("body")
                if kind == "credit" and not self.is_over:
                    for _ in range(message.credit.frames):
                        self.send_frame()
                elif kind == "result":
                    self.note(message)
        except (OSError, ValueError, EmulationError) as error:
            self.error = error

    def send_frame(self):
        self.sent += 1
        self.sent_at[self.sent] = time.monotonic()
        self.send(self.payloads[self.sent % len(self.payloads)],
                  frame=self.messages.Frame(session=self.session, sequence=self.sent, tensors=self.tensors))

    def note(self, message):
        now, sequence = time.monotonic(), message.result.sequence
        begin = self.sent_at.pop(sequence, None)
        if begin is None:
            self.repeated += 1
            return
        self.wrong += message.payload != self.expected[sequence % len(self.expected)]
        self.results.append((now, now - begin))

    def stop(self):
        """Waits for the results of what was sent. Returns how many never came."""
        self.is_over = True
        self.join(20)
        self.socket.close()
        return len(self.sent_at)

    def check(self):
        if self.error:
            raise EmulationError(f"the feed: {self.error}")

    def fps(self, begin, end):
        times = [when for when, _ in list(self.results) if begin <= when <= end]
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0

    def longest_gap(self, begin, end):
        """(how long, when it began) of the longest time without a result."""
        times = [when for when, _ in list(self.results) if begin <= when <= end]
        return max(((b - a, a) for a, b in zip(times, times[1:])), default=(math.inf, begin))

    def latencies_ms(self, begin, end):
        return [1e3 * latency for when, latency in list(self.results) if begin <= when <= end]


def varint(number):
    data = bytearray()
    while number >= 0x80:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(data) + bytes([number])


def load_messages(root, work):
    """The module that protoc makes of convoy.proto."""
    subprocess.run(["protoc", f"--proto_path={os.path.join(root, 'proto')}", f"--python_out={work}",
                    os.path.join(root, "proto", "convoy.proto")], check=True)
    sys.path.insert(0, work)
    import convoy_pb2  # pylint: disable=import-outside-toplevel
    return convoy_pb2


class AutoLine:
    """An ingress with `pipeline: auto` and neighbours, of which some run."""

    def __init__(self, program, ctl, network, devices, work):
        self.program, self.ctl, self.work = program, ctl, work
        self.devices = devices
        self.to = f"{devices[0].address}:{PORT}"
        self.pids = {}  # of each device that runs, by its index
        self.path = os.path.join(work, "auto.yaml")
        neighbours = "".join(f"  - {{node: n{device.index}, address: '{device.address}:{PORT}'}}\n" for device in devices[1:])
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(f"insecure: true\nworkers: 1\nthreads: 1\nmodel: {network.path}\nstate: {self.state(0)}\n"
                       f"listen: {self.to}\npipeline: auto\nneighbours:\n{neighbours}")

    def state(self, index):
        return os.path.join(self.work, f"state-n{index}")

    def start(self, index):
        device, path = self.devices[index], self.path
        if index > 0:
            path = os.path.join(self.work, f"n{index}.yaml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(f"insecure: true\nworkers: 1\nthreads: 1\nlisten: {device.address}:{PORT}\nstate: {self.state(index)}\n")
        with open(os.path.join(self.work, f"auto-n{index}.log"), "wb") as out:
            daemon = device.spawn([self.program, "--config", path, "--node", f"n{index}"], stdout=out, stderr=subprocess.STDOUT)
        self.pids[index] = daemon.pid

    def cpu(self):
        """CPU seconds so far of each device: of all its daemon's threads, of its loop, and all that the device got."""
        return {index: (cpu_seconds(pid), cpu_seconds(pid, pid), cpu_seconds(pid) + cpu_seconds(self.devices[index].ballast.pid))
                for index, pid in self.pids.items()}

    def status(self):
        done = self.devices[0].beside([self.ctl, "status", "--json", "--to", self.to], stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL, text=True)
        return json.loads(done.stdout) if done.returncode == 0 else {"stages": []}

    def cuts(self):
        """Who runs which layers, once all of them are ready; None before."""
        stages = self.status()["stages"]
        if not stages or any(stage["state"] != "ready" for stage in stages):
            return None
        return [(stage["node"], stage["first"], stage["last"]) for stage in stages]

    def wait_cuts(self, condition, seconds, feed=None):
        """Polls until condition(cuts) holds: (when, cuts); None when it does not in time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            cuts = self.cuts()
            if cuts and condition(cuts):
                return time.monotonic(), cuts
            if feed:
                feed.check()
            time.sleep(POLL_S)
        return None


def watch_move(line, feed, before, begin):
    """After an event: (seconds until the cuts moved last, or None; the cuts), when they have rested."""
    moved, cuts = None, before
    while True:
        patience = REST_S if moved else PATIENCE_S
        found = line.wait_cuts(lambda now, known=cuts: now != known, patience, feed)
        if not found:
            return moved, cuts
        moved, cuts = found[0] - begin, found[1]
        if moved > 3 * PATIENCE_S:
            raise EmulationError("the cuts do not come to rest")


def judge(line, feed, name, begin, moved, bound, before_fps):
    """What an event did: figures of the time from it to the last move, and of SETTLE_S after that."""
    rest = begin + (moved or 0)
    time.sleep(max(0, rest + REST_S - time.monotonic()))
    settled, cpu = time.monotonic(), line.cpu()
    time.sleep(SETTLE_S)
    feed.check()
    end, used = time.monotonic(), line.cpu()
    after = feed.fps(settled, end)
    shares = {index: [(now - before) / (end - settled) for now, before in zip(used[index], cpu[index])] for index in cpu}
    got = {f"n{index}": round(share[2] / line.devices[index].share(), 3) for index, share in shares.items()}
    slowest = min(value for value in (before_fps, after, feed.fps(begin + 0.5, max(rest, begin + 2))) if value > 0)
    latencies = feed.latencies_ms(settled, end)
    (gap, gap_at), limit = feed.longest_gap(begin, rest + REST_S), 2 / slowest + GAP_EXTRA_S
    return {"event": name, "move_s": round(moved, 2) if moved else None, "fps_before": round(before_fps, 3), "fps": round(after, 3),
            "bound_fps": round(bound, 3), "share_of_bound": round(after / bound, 3), "longest_gap_ms": round(1e3 * gap, 1),
            "gap_limit_ms": round(1e3 * limit, 1), "p50_ms": round(figures.quantile(latencies, 0.5), 2),
            "p99_ms": round(figures.quantile(latencies, 0.99), 2), "begin_s": round(begin, 3), "gap_at_s": round(gap_at - begin, 3),
            "cpu": {f"n{index}": round(share[0], 4) for index, share in shares.items()},
            "loop_cpu": {f"n{index}": round(share[1], 4) for index, share in shares.items()}, "got_of_quota": got}


def run(line, network, messages, events, bound_fps):
    """Plays events [(name, function, number of devices afterwards)] one after the other under one feed of frames. bound_fps(devices):
    what the best line of the first so many devices would make now. Returns a row for each event."""
    names = sorted(os.listdir(network.expected))
    inputs = numpy.load(network.input)
    if len(names) != 1:
        raise EmulationError(f"{network.name} has more than one output")
    results = numpy.load(os.path.join(network.expected, names[0]))
    expected = [frame.tobytes() for frame in results.reshape(len(inputs), -1)]
    for index in (1, 0):
        line.start(index)
    if not line.wait_cuts(lambda cuts: True, FIRST_PLAN_S):
        raise EmulationError("there is no first plan")
    feed = Feed(line.devices[0], messages, inputs, expected)
    feed.start()
    rows = []
    try:
        begin = time.monotonic()
        _, cuts = watch_move_or_rest(line, feed, line.cuts())
        rows.append(judge(line, feed, "frames flow", begin, None, bound_fps(2), feed.fps(begin, time.monotonic())))
        rows[0]["devices"] = 2
        for name, act, devices in events:
            before, cuts = rows[-1]["fps"], line.cuts() or cuts
            begin = time.monotonic()
            act()
            moved, cuts = watch_move(line, feed, cuts, begin)
            rows.append({**judge(line, feed, name, begin, moved, bound_fps(devices), before), "devices": devices})
            rows[-1]["cuts"] = cuts
    finally:
        lost = feed.stop()
    for row in rows:
        row.update(lost=lost, repeated=feed.repeated, wrong=feed.wrong, identical=lost + feed.repeated + feed.wrong == 0)
    return rows


def watch_move_or_rest(line, feed, cuts):
    """At the start: frames teach the ingress what its neighbours can do. Returns when the cuts have rested."""
    begin = time.monotonic()
    while True:
        found = line.wait_cuts(lambda now, known=cuts: now != known, 2 * REST_S, feed)
        if not found or time.monotonic() - begin > FIRST_PLAN_S:
            return begin, cuts
        cuts = found[1]
