#!/usr/bin/python3
"""As test_faults.py, for a line that plans itself: whom it loses it plans around, and uses again when it is back."""
import os
import random
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import test_faults as faults  # noqa: E402
from test_faults import QUICK, harness  # noqa: E402


class Auto(faults.FaultCase):
    """pi-a, which has too little memory for the whole model, and so needs pi-b or pi-c."""

    def begin(self, extra=""):
        stages = [(f"pi-{letter}", f"127.0.0.1:{port}") for letter, port in zip("abc", harness.free_ports(3))]
        rows = "".join(f"  - {{node: {node}, address: '{address}'}}\n" for node, address in stages[1:])
        path = self.write("auto.yaml", f"model: {harness.RESNET}\nlisten: {stages[0][1]}\nstate: {self.path('state-pi-a')}\nworkers: 1\n"
                                       f"memory: 1200 KiB\nheartbeat_ms: 1000\npipeline: auto\nneighbours:\n{rows}")
        self.daemons = harness.line.Line(path, stages, self.path("logs"), lambda text: None)
        self.daemons.to = stages[0][1]
        self.addCleanup(self.stop_line, self.daemons)
        self.daemons.configs = {node: self.write(f"{node}.yaml", f"listen: {address}\nworkers: 1\nheartbeat_ms: 1000\n"
                                                                 f"state: {self.path('state-' + node)}\n") for node, address in stages[1:]}
        for node, _ in stages:
            self.daemons.start_daemon(node)
        self.wait_until(lambda: len(self.nodes()) > 1, "a line is planned")
        return self.stream_to(self.daemons.to)

    def nodes(self):
        """Of the stages, in order."""
        done = self.ctl("status", "--to", self.daemons.to, "--json")
        return [stage["node"] for stage in faults.json.loads(done.stdout)["stages"]] if done.returncode == 0 else []

    def has_said(self, node, words):
        with open(self.path("logs", f"{node}.log"), encoding="utf-8", errors="replace") as log:
            return words in log.read()

    def test_devices_killed_at_random_moments(self):
        """Each time the one that runs the end dies for good, as far as the line can know: it goes on with the other, or waits for it."""
        stream, chance, pauses = self.begin(), random.Random(17), []
        for _ in range(2 if QUICK else 20):
            stream.wait_for_results(100)
            time.sleep(chance.random() * 0.3)  # any moment will do
            victim, begin = self.nodes()[-1], time.monotonic()
            self.assertNotEqual(victim, "pi-a")
            self.daemons.daemons[victim].kill()
            self.daemons.daemons[victim].wait(harness.CAP_S)
            self.wait_until(lambda: len(self.nodes()) == 2 and victim not in self.nodes(), f"{victim} is planned around")
            stream.wait_for_results(200)
            pauses.append(stream.longest_pause_since(begin))
            self.daemons.start_daemon(victim)
            self.wait_until(lambda: self.has_said(victim, "connected"), f"{victim} is taken back")
        again = self.retried()
        stream.finish()
        self.report(f"{len(pauses)} kills, {stream.runs * faults.FRAMES} frames, {again} sent again, no result for "
                    f"{statistics.median(pauses):.2f} s (median), {max(pauses):.2f} s (longest)")


if __name__ == "__main__":
    harness.main()
