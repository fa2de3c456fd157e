#!/usr/bin/python3
"""Whole lines of real daemons: answers are those of the undivided network, whatever is moved, broken or started meanwhile."""
import glob
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import threading
import unittest

import numpy

import harness
from harness import CONVOYCTL, CUTS, RESNET

# Layers of fmnist_resnet, in order, where a line of three can be cut.
LAYERS = ["/m/f/f.2/Relu_1", "/m/f/f.3/Relu_1", "/m/f/f.4/Relu_1", "/m/f/f.5/Relu_1", "/m/f/f.6/Relu_1"]


class Answers:
    """A folder that convoyctl wrote: its JSON lines and the bytes of every output."""

    def __init__(self, lines, folder):
        self.lines = [json.loads(row) for row in lines.splitlines()]
        self.sources = [line["source"] for line in self.lines]
        self.outputs = [numpy.load(path) for path in sorted(glob.glob(os.path.join(folder, "*.npy")))]

    def same(self, other):
        return self.sources == other.sources and all(a.tobytes() == b.tobytes() and a.size for a, b in
                                                     zip(self.outputs, other.outputs, strict=True))


class LineCase(harness.Case):
    def run_alone(self, pictures, model=RESNET):
        """The answers of the undivided network."""
        return Answers(self.ctl_ok("run", model, pictures, "--json", "--out", self.path("alone")), self.path("alone"))

    def infer(self, pictures, to, name="infer", model=RESNET):
        lines = self.ctl_ok("infer", pictures, "--to", to, "--model", model, "--json", "--out", self.path(name))
        return Answers(lines, self.path(name))

    def start_infer(self, pictures, to, name):
        """The same in the background; the process, whose answers collect() reads."""
        return subprocess.Popen([CONVOYCTL, "infer", pictures, "--to", to, "--model", RESNET, "--json", "--out", self.path(name)],
                                stdin=subprocess.DEVNULL, stdout=open(self.path(f"{name}.json"), "wb"),
                                stderr=open(self.path(f"{name}.err"), "wb"))

    def collect(self, process, name):
        status = process.wait(harness.CAP_S)
        with open(self.path(f"{name}.err"), encoding="utf-8") as err:
            self.assertEqual(status, 0, err.read())
        with open(self.path(f"{name}.json"), encoding="utf-8") as lines:
            return Answers(lines.read(), self.path(name))

    def lines_so_far(self, name):
        with open(self.path(f"{name}.json"), "rb") as lines:
            return lines.read().count(b"\n")

    def status(self, to):
        return json.loads(self.ctl_ok("status", "--to", to, "--json"))


class Answering(LineCase):
    def test_three_devices_answer_as_one(self):
        pictures = self.pictures(300)
        alone, line = self.run_alone(pictures), self.infer(pictures, self.start_line().to)
        self.assertEqual(len(line.lines), 300)
        self.assertTrue(line.same(alone))

    def test_one_device_and_eight_answer_alike(self):
        pictures = self.pictures(50)
        alone = self.run_alone(pictures)
        layers = [row["name"] for row in json.loads(self.ctl_ok("inspect", RESNET, "--json"))["layers"]]
        step = (len(layers) - 1) // 7
        for cuts in ([], layers[step - 1:7 * step:step]):
            with self.subTest(cuts=cuts):
                self.assertTrue(self.infer(pictures, self.start_line(cuts=cuts, name=f"{len(cuts)}.yaml").to).same(alone))

    def test_several_clients_at_once_each_get_their_own_answers(self):
        pictures = self.pictures(200)
        alone, to = self.run_alone(pictures), self.start_line().to
        clients = {name: self.start_infer(pictures, to, name) for name in ("a", "b", "c", "d")}
        for name, client in clients.items():
            self.assertTrue(self.collect(client, name).same(alone))

    def test_status_shows_every_stage_and_what_it_did(self):
        daemons = self.start_line()
        self.infer(self.pictures(40), daemons.to)
        status = self.status(daemons.to)
        self.assertEqual([s["node"] for s in status["stages"]], ["pi-a", "pi-b", "pi-c"])
        for stage in status["stages"]:
            self.assertEqual((stage["state"], stage["frames_in"], stage["frames_out"]), ("ready", 40, 40))
        self.assertIn("bottleneck", status)
        self.assertNotIn("waits_for", status)
        self.assertEqual([s["last_layer"] for s in status["stages"]][:2], CUTS)

    def test_status_of_a_device_in_the_middle_starts_there(self):
        daemons = self.start_line()
        self.assertEqual([s["node"] for s in self.status(daemons.stages[1][1])["stages"]], ["pi-b", "pi-c"])

    def test_bench_measures_the_line(self):
        result = json.loads(self.ctl_ok("bench", "--to", self.start_line().to, "--json"))
        text = json.dumps(result)
        for word in ("p50", "p95", "p99"):
            self.assertIn(word, text)

    def test_tensors_travel_as_numpy_files(self):
        rng = numpy.random.default_rng(1)
        name = json.loads(self.ctl_ok("inspect", RESNET, "--json"))["inputs"][0]["name"]
        numpy.save(self.path("x.npy"), rng.random((1, 1, 28, 28), dtype=numpy.float32))
        tensor = f"{name}={self.path('x.npy')}"
        self.ctl_ok("run", RESNET, "--tensor", tensor, "--out", self.path("one"))
        self.ctl_ok("infer", "--tensor", tensor, "--out", self.path("three"), "--to", self.start_line().to)
        (one,), (three,) = glob.glob(self.path("one", "*.npy")), glob.glob(self.path("three", "*.npy"))
        self.assertEqual(numpy.load(one).tobytes(), numpy.load(three).tobytes())

    def test_parts_written_by_split_run_one_after_the_other_as_the_whole(self):
        numpy.save(self.path("x.npy"), numpy.random.default_rng(2).random((1, 1, 28, 28), dtype=numpy.float32))
        self.ctl_ok("split", RESNET, "--until", CUTS[0], "--until", CUTS[1], "-o", self.path("parts"))
        self.assertEqual(len(os.listdir(self.path("parts"))), 3)
        tensors = {"input": self.path("x.npy")}
        for part in sorted(glob.glob(self.path("parts", "*.onnx"))):
            inputs = json.loads(self.ctl_ok("inspect", part, "--json"))["inputs"]
            words = [word for i in inputs for word in ("--tensor", f"{i['name']}={tensors[i['name']]}")]
            out = part + ".out"
            self.ctl_ok("run", part, *words, "--out", out)
            for output in json.loads(self.ctl_ok("inspect", part, "--json"))["outputs"]:
                tensors[output["name"]] = os.path.join(out, re.sub(r"[^A-Za-z0-9._-]", "_", output["name"]) + ".npy")
        self.ctl_ok("run", RESNET, "--tensor", f"input={self.path('x.npy')}", "--out", self.path("whole"))
        self.assertEqual(numpy.load(tensors["prob"]).tobytes(), numpy.load(self.path("whole", "prob.npy")).tobytes())


class Moving(LineCase):
    """SIGHUP to the daemons in every order while frames flow."""

    COUNT = 1500

    def move(self, daemons, cuts, order):
        self.write_config(daemons.stages, cuts)
        for node in order:
            daemons.daemons[node].send_signal(signal.SIGHUP)

    def plan_of(self, to):
        return [s["last_layer"] for s in self.status(to)["stages"]][:2]

    def test_a_cut_moves_in_every_order_of_the_devices_and_no_frame_is_lost_repeated_or_wrong(self):
        pictures = self.pictures(self.COUNT)
        alone, daemons = self.run_alone(pictures), self.start_line(cuts=LAYERS[:2])
        positions = itertools.cycle([[LAYERS[1], LAYERS[3]], [LAYERS[2], LAYERS[4]], [LAYERS[0], LAYERS[1]]])
        for order in itertools.permutations(["pi-a", "pi-b", "pi-c"]):
            with self.subTest(order=order):
                name = "-".join(order)
                client = self.start_infer(pictures, daemons.to, name)
                self.wait_until(lambda: self.lines_so_far(name) > 20, "frames flow")
                cuts = next(positions)
                self.move(daemons, cuts, order)
                self.assertIsNone(client.poll(), "the frames ended before the cut moved")
                self.wait_until(lambda: self.plan_of(daemons.to) == cuts, f"the line runs with {cuts}")
                self.assertTrue(self.collect(client, name).same(alone))

    def test_frames_go_on_with_the_old_plan_while_only_some_devices_have_the_new_one(self):
        pictures = self.pictures(200)
        alone, daemons = self.run_alone(pictures), self.start_line()
        for node in ("pi-a", "pi-b", "pi-c"):
            self.move(daemons, [LAYERS[0], LAYERS[4]], [node])
            self.assertTrue(self.infer(pictures, daemons.to, f"after-{node}").same(alone))
        self.wait_until(lambda: self.plan_of(daemons.to) == [LAYERS[0], LAYERS[4]], "the new plan is active")


class Breaking(LineCase):
    def restart(self, daemons, node, how):
        daemons.daemons[node].send_signal(how)
        daemons.daemons[node].wait(harness.CAP_S)
        daemons.start_daemon(node)

    def test_a_device_killed_in_the_middle_of_a_run_costs_no_frame(self):
        pictures = self.pictures(1000)
        alone, daemons = self.run_alone(pictures), self.start_line()
        for node in ("pi-b", "pi-c"):
            client = self.start_infer(pictures, daemons.to, node)
            self.wait_until(lambda: self.lines_so_far(node) > 20, "frames flow")
            self.restart(daemons, node, signal.SIGKILL)
            self.assertTrue(self.collect(client, node).same(alone))

    def test_a_device_that_is_stopped_and_started_again_costs_no_frame(self):
        pictures = self.pictures(1000)
        alone, daemons = self.run_alone(pictures), self.start_line()
        for node in ("pi-c", "pi-b", "pi-a"):
            client = self.start_infer(pictures, daemons.to, node)
            self.wait_until(lambda: self.lines_so_far(node) > 20, "frames flow")
            self.restart(daemons, node, signal.SIGTERM)
            self.assertTrue(self.collect(client, node).same(alone))

    def test_a_line_whose_last_device_comes_late_answers_then(self):
        path, stages = self.config()
        daemons = harness.line.Line(path, stages, self.path("logs"), lambda text: None)
        self.addCleanup(self.stop_line, daemons)
        for node in ("pi-a", "pi-b"):
            daemons.start_daemon(node)
        self.wait_until(lambda: "pi-b" in self.logs(daemons), "pi-b logs")
        self.wait_until(lambda: self.status(stages[0][1]).get("waits_for") == "pi-c", "status names the device that is missing")
        client = self.start_infer(self.pictures(30), stages[0][1], "late")
        daemons.start_daemon("pi-c")
        self.assertEqual(len(self.collect(client, "late").lines), 30)

    def test_a_client_resumes_after_its_connection_is_cut(self):
        pictures = self.pictures(1500)
        alone, daemons = self.run_alone(pictures), self.start_line()
        proxy = CuttingProxy(daemons.to, cut_after=200_000)
        self.addCleanup(proxy.close)
        self.assertTrue(self.infer(pictures, proxy.address).same(alone))
        self.assertGreater(proxy.connections, 1)


class CuttingProxy:
    """Passes TCP connections on to address; the first three are cut after some bytes from the client."""

    def __init__(self, address, cut_after):
        host, port = address.split(":")
        self.target, self.cut_after, self.connections = (host, int(port)), cut_after, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            budget = self.cut_after if self.connections <= 3 else None
            server = socket.create_connection(self.target)
            threading.Thread(target=self.copy, args=(client, server, budget), daemon=True).start()
            threading.Thread(target=self.copy, args=(server, client, None), daemon=True).start()

    @staticmethod
    def copy(source, sink, budget):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
                if budget is not None:
                    budget -= len(data)
                    if budget <= 0:
                        break
        except OSError:
            pass
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()


class RealModels(LineCase):
    """Photographs through networks of their size, where these are at hand."""

    def test_mobilenet_on_three_devices_sees_in_photographs_what_it_sees_on_one(self):
        model = os.path.join(harness.MODELS, "mobilenet_v1_1.0_224.onnx")
        pictures = os.path.join(harness.MODELS, "pictures")
        if not os.path.exists(model):
            raise unittest.SkipTest(f"there is no {model}")
        layers = [row["name"] for row in json.loads(self.ctl_ok("inspect", model, "--json"))["layers"]]
        daemons = self.start_line(cuts=[layers[len(layers) // 3], layers[2 * len(layers) // 3]], model=model)
        line = self.infer(pictures, daemons.to, model=model)
        self.assertTrue(line.same(self.run_alone(pictures, model)))


if __name__ == "__main__":
    harness.main()
