#!/usr/bin/python3
"""As test_faults.py, for lines where several devices share a stage: fixed ones, and plans that were handed out."""
import os
import random
import signal
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import test_faults as faults  # noqa: E402
from test_faults import KILLS, QUICK, harness  # noqa: E402

CAP_S = harness.CAP_S


class SharedCase(faults.FaultCase):
    """pi-a, then pi-b and pi-c in turn, then pi-d; or, without a last stage, pi-a, then pi-b and pi-c."""

    def shared_config(self, nodes, extra="", name="convoy.yaml", stages=None, cuts=tuple(harness.CUTS)):
        stages = stages or [(f"pi-{letter}", f"127.0.0.1:{port}") for letter, port in zip(nodes, harness.free_ports(len(nodes)))]
        rows = [f"{{node: {node}, address: '{address}'}}\n" for node, address in stages]
        text = f"model: {harness.RESNET}\n{extra}pipeline:\n  - {{node: pi-a, address: '{stages[0][1]}', until: {cuts[0]}}}\n"
        text += f"  - replicas:\n      - {rows[1]}      - {rows[2]}"
        if len(nodes) > 3:
            text += f"    until: {cuts[1]}\n  - {rows[3]}"
        return self.write(name, text), stages

    def begin_shared(self, nodes, **kwargs):
        path, stages = self.shared_config(nodes, **kwargs)
        self.daemons = harness.line.Line(path, stages, self.path("logs"), lambda text: None)
        self.daemons.to = stages[0][1]
        self.addCleanup(self.stop_line, self.daemons)
        self.daemons.start(CAP_S)
        return self.stream_to(self.daemons.to)

    def is_dealing(self):
        """Whether pi-a's frames go to all replicas."""
        return all(link["ready"] for link in self.status()["stages"][0]["links"])


class Shared(SharedCase):
    def kill_at_random(self, stream, victims, seed):
        chance, pauses = random.Random(seed), []
        for _ in range(KILLS // 2):
            stream.keep_going()
            time.sleep(chance.random() * 0.3)  # any moment will do
            begin = time.monotonic()
            for node in chance.choice(victims):
                self.kill_and_restart(node)
            stream.wait_for_results(chance.choice([1, 1, 1, 200]))
            pauses.append(stream.longest_pause_since(begin))
        again = self.retried()
        stream.finish()
        self.report(f"{KILLS // 2} kills, {stream.runs * faults.FRAMES} frames, {again} sent again, no result for "
                    f"{statistics.median(pauses):.2f} s (median), {max(pauses):.2f} s (longest)")

    def test_replicas_of_the_last_stage_killed_at_random_moments(self):
        self.kill_at_random(self.begin_shared("abc"), [["pi-b"], ["pi-c"], ["pi-b", "pi-c"]], 11)

    def test_replicas_in_the_middle_killed_at_random_moments(self):
        self.kill_at_random(self.begin_shared("abcd"), [["pi-b"], ["pi-c"], ["pi-b", "pi-c"], ["pi-d"], ["pi-c", "pi-d"]], 12)

    def test_a_replica_that_stays_away(self):
        """The line works on, says so, and takes it back."""
        stream = self.begin_shared("abcd", extra="heartbeat_ms: 1000\n")
        self.daemons.daemons["pi-c"].kill()
        self.daemons.daemons["pi-c"].wait(CAP_S)
        stream.wait_for_results(2000)
        status = self.status()
        self.assertNotIn("waits_for", status)
        self.assertEqual({s["node"]: s["state"] for s in status["stages"]}["pi-c"], "unreachable")
        self.daemons.start_daemon("pi-c")
        self.wait_until(self.is_dealing, "pi-c is back")
        stream.wait_for_results(500)
        stream.finish()

    def test_a_replica_that_comes_back_with_an_older_plan(self):
        """The line works on without it, until it has the plan of the others."""
        stream = self.begin_shared("abcd")
        new = self.daemons.config
        self.daemons.config, _ = self.shared_config("abcd", name="old.yaml", stages=self.daemons.stages, cuts=faults.OTHER_CUTS)
        self.kill_and_restart("pi-c")
        self.wait_until(lambda: not self.is_dealing(), "pi-c is away, or has another plan")
        stream.wait_for_results(1000)
        self.assertFalse(self.is_dealing())
        self.daemons.config = new
        self.kill_and_restart("pi-c")
        self.wait_until(self.is_dealing, "pi-c is back")
        stream.wait_for_results(500)
        stream.finish()

    def test_replicas_that_stand_still_for_a_while(self):
        stream = self.begin_shared("abcd", extra="heartbeat_ms: 1000\n")
        for node, seconds in [("pi-b", 0.5), ("pi-c", 3)] + ([] if QUICK else [("pi-b", 10), ("pi-c", 20)]):
            with self.subTest(node=node, seconds=seconds):
                begin = time.monotonic()
                self.daemons.daemons[node].send_signal(signal.SIGSTOP)
                time.sleep(seconds)  # this is the fault
                self.daemons.daemons[node].send_signal(signal.SIGCONT)
                stream.wait_for_results(500)
                self.report(f"{node} for {seconds} s: no result for {stream.longest_pause_since(begin):.2f} s; "
                            f"{self.retried()} sent again so far")
        stream.finish()

    def test_recruited_replicas_killed_at_random_moments(self):
        """Only pi-a has the model; the others are handed their stage again from their caches."""
        path, stages = self.shared_config("abc", extra="deploy: true\nstate: state-pi-a\n")
        self.daemons = harness.line.Line(path, stages, self.path("logs"), lambda text: None)
        self.daemons.to = stages[0][1]
        self.addCleanup(self.stop_line, self.daemons)
        self.daemons.configs = {node: self.write(f"{node}.yaml", f"listen: {address}\nstate: state-{node}\n") for node, address in stages[1:]}
        for node, _ in stages:
            self.daemons.start_daemon(node)
        self.wait_until(lambda: self.ctl("status", "--to", self.daemons.to).returncode == 0 and len(self.status()["stages"]) == 3
                        and self.is_dealing(), "the plan is handed out")
        stream, chance = self.stream_to(self.daemons.to), random.Random(13)
        for _ in range(4 if QUICK else 30):
            stream.keep_going()
            time.sleep(chance.random() * 0.3)  # any moment will do
            self.kill_and_restart(chance.choice(["pi-b", "pi-c"]))
            stream.wait_for_results(chance.choice([1, 1, 200]))
        again = self.retried()
        stream.finish()
        self.report(f"{stream.runs * faults.FRAMES} frames, {again} sent again")


class SharedClock(SharedCase, faults.Clock):
    def begin(self):
        return self.begin_shared("abcd")


if __name__ == "__main__":
    harness.main()
