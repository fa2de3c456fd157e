#!/usr/bin/python3
"""What devices need in memory: their own stage, no more with time, and together more than any of them has."""
import json
import os
import re
import resource
import signal
import subprocess
import unittest

import numpy

import harness
from harness import field

MIB = 1 << 20


def value_info(name, width):
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, field(1, field(1, 1)) + field(1, field(1, width)))))


def dense_model(layers, width):
    """An ONNX file of dense layers fc0, fc1, ... of width * width weights each, with a Relu behind every one."""
    rng = numpy.random.default_rng(3)
    nodes, weights = b"", b""
    block = (rng.random((16, width), dtype=numpy.float32) - numpy.float32(0.4)) / numpy.float32(width) ** 0.5
    for i in range(layers):
        w = numpy.tile(numpy.roll(block, i), (width // 16, 1))
        nodes += field(1, field(1, f"r{i - 1}" if i else "x") + field(1, f"w{i}") + field(2, f"y{i}") + field(3, f"fc{i}")
                       + field(4, "Gemm"))
        nodes += field(1, field(1, f"y{i}") + field(2, f"r{i}") + field(3, f"relu{i}") + field(4, "Relu"))
        weights += field(5, field(1, width) + field(1, width) + field(2, 1) + field(8, f"w{i}") + field(9, w.tobytes()))
    graph = (nodes + field(2, "dense") + weights + field(11, value_info("x", width))
             + field(12, value_info(f"r{layers - 1}", width)))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


class Memory(harness.Case):
    def test_each_device_holds_little_more_than_its_own_stage(self):
        width, layers = 2048, 6  # 16 MiB a layer
        model = self.write("dense.onnx", dense_model(layers, width))
        daemons = self.start_line(cuts=["relu0", "relu2"], model=model, extra="workers: 1\n")
        idle = self.start_line(cuts=[], name="small.yaml")
        base = harness.memory_kib(idle.daemons["pi-a"].pid)
        for node, own in (("pi-a", 1), ("pi-b", 2), ("pi-c", 3)):
            weights = own * width * width * 4 // 1024
            peak = harness.memory_kib(daemons.daemons[node].pid, "VmRSS")
            self.assertLess(peak - base, weights + 8 * 1024, f"{node}: {peak} KiB for {weights} KiB of weights, {base} KiB without")

    def test_a_model_larger_than_a_devices_memory_runs_on_three_devices(self):
        width = 4096
        model = self.write("dense.onnx", dense_model(6, width))  # 384 MiB
        limit = 320 * MIB  # of which OpenBLAS reserves 128 for a thread, whether it needs them or not
        numpy.save(self.path("x.npy"), numpy.ones((1, width), dtype=numpy.float32))
        self.ctl_ok("run", model, "--tensor", f"x={self.path('x.npy')}", "--out", self.path("one"))

        def small():
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

        env = dict(os.environ, OPENBLAS_NUM_THREADS="1")
        config, _ = self.config(cuts=[], model=model, extra="workers: 1\n", name="whole.yaml")
        whole = subprocess.run([harness.CONVOYD, "--config", config, "--node", "pi-a"], preexec_fn=small, env=env, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=harness.CAP_S)
        self.assertEqual(whole.returncode, 1, whole.stdout)
        self.assertIn("memory", whole.stdout)

        path, stages = self.config(cuts=["relu1", "relu3"], model=model, extra="workers: 1\n")
        daemons = [subprocess.Popen([harness.CONVOYD, "--config", path, "--node", node], preexec_fn=small, env=env,
                                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                   for node, _ in stages]
        try:
            self.wait_until(lambda: set(harness.line.stages_ready(stages[0][1])) == {n for n, _ in stages}, "the line is up")
            self.ctl_ok("infer", "--tensor", f"x={self.path('x.npy')}", "--out", self.path("three"), "--to", stages[0][1])
        finally:
            for daemon in daemons:
                daemon.send_signal(signal.SIGTERM)
            self.assertEqual([daemon.wait(harness.CAP_S) for daemon in daemons], [0, 0, 0])
        with open(self.path("one", os.listdir(self.path("one"))[0]), "rb") as one, \
                open(self.path("three", os.listdir(self.path("three"))[0]), "rb") as three:
            self.assertEqual(one.read(), three.read())

    def test_memory_of_real_daemons_is_flat_over_20000_small_frames(self):
        count = 5000 if harness.QUICK else 20000
        model = self.write("tiny.onnx", dense_model(3, 16))
        daemons = self.start_line(cuts=["relu0", "relu1"], model=model, extra="workers: 1\n")
        self.bench(daemons.to, 2000)
        before = {node: harness.memory_kib(d.pid) for node, d in daemons.daemons.items()}
        self.bench(daemons.to, count)
        after = {node: harness.memory_kib(d.pid) for node, d in daemons.daemons.items()}
        for node in before:
            self.assertLess(after[node] - before[node], 512, f"{node}: {before[node]} KiB before, {after[node]} KiB after")

    def bench(self, to, frames):
        said = json.loads(self.ctl_ok("bench", "--to", to, "--frames", frames, "--json", timeout=300))
        self.assertEqual(said["frames"], frames)


class Allocations(harness.Case):
    @unittest.skipUnless(os.path.exists("/usr/bin/strace"), "there is no strace")
    def test_a_stage_asks_the_kernel_for_no_memory_while_frames_flow(self):
        daemons = self.start_line()
        pictures = self.pictures(500)
        self.ctl_ok("infer", pictures, "--to", daemons.to, "--model", harness.RESNET)
        pid = daemons.daemons["pi-b"].pid
        trace = subprocess.Popen(["strace", "-f", "-e", "trace=mmap,brk,munmap", "-o", self.path("trace"), "-p", str(pid)],
                                 stderr=subprocess.PIPE, text=True)
        self.assertIn("attached", trace.stderr.readline())
        self.ctl_ok("infer", pictures, "--to", daemons.to, "--model", harness.RESNET)
        trace.send_signal(signal.SIGINT)
        trace.wait(harness.CAP_S)
        with open(self.path("trace"), encoding="utf-8") as calls:
            asked = [row for row in calls if re.search(r"\b(mmap|brk)\(", row)]
        self.assertEqual(asked, [])


if __name__ == "__main__":
    harness.main()
