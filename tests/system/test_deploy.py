#!/usr/bin/python3
"""Plans that are handed out, from the shell: recruits with nothing but an address and a folder, convoyctl apply, status."""
import json
import os
import signal
import subprocess
import time

import numpy

import harness
from harness import CONVOYD, CUTS, RESNET, Case, free_ports


class Deploy(Case):
    def setUp(self):
        super().setUp()
        self.stages = [(f"pi-{letter}", f"127.0.0.1:{port}") for letter, port in zip("abc", free_ports(3))]
        self.to = self.stages[0][1]
        self.daemons = {}

    def start(self, node, text):
        """Starts a daemon with that configuration, by hand as a user would."""
        path = self.write(f"{node}.yaml", text)
        log = open(self.path(f"{node}.log"), "ab")
        self.addCleanup(log.close)
        env = {k: v for k, v in os.environ.items() if k not in ("STATE_DIRECTORY", "XDG_STATE_HOME")}
        process = subprocess.Popen([CONVOYD, "--config", path], stderr=log, env={**env, "HOME": self.folder})
        self.daemons[node] = process
        self.addCleanup(self.stop, node)
        return process

    def stop(self, node, number=signal.SIGTERM):
        process = self.daemons.pop(node, None)
        if process:
            process.send_signal(number)
            code = process.wait(harness.CAP_S)
            self.assertEqual(code, 0 if number == signal.SIGTERM else -number)

    def start_recruit(self, index, extra=""):
        node, address = self.stages[index]
        self.start(node, f"node: {node}\nlisten: {address}\n{extra}")

    def start_ingress(self, extra=""):
        node, address = self.stages[0]
        self.start(node, f"model: {RESNET}\nnode: {node}\n{extra}pipeline:\n  - {{node: {node}, address: '{address}'}}\n")
        self.wait_status(lambda status: status["stages"][0]["state"] == "ready")

    def status(self, *options, to=None):
        done = self.ctl("status", "--json", "--to", to or self.to, *options)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def wait_status(self, condition, **kwargs):
        until = time.monotonic() + harness.CAP_S
        while time.monotonic() < until:
            status = self.status(**kwargs)
            if status and condition(status):
                return status
            time.sleep(0.02)
        self.fail(f"status never became what was waited for; last: {status}")

    def plan(self, cuts=tuple(CUTS), count=3, name="plan.yaml"):
        return self.write_config(self.stages[:count], list(cuts)[:count - 1], name=name)

    def test_recruits_get_their_parts_and_the_line_answers_as_one_device_does(self):
        self.start_recruit(1)
        self.start_recruit(2)
        self.start_ingress()
        alone = self.answers()

        done = self.ctl("apply", self.plan(), "--to", self.to)

        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("is active", done.stdout)
        self.assertEqual(self.answers(), alone)
        status = self.status()
        self.assertEqual([stage["node"] for stage in status["stages"]], ["pi-a", "pi-b", "pi-c"])
        for stage in status["stages"]:
            self.assertTrue(stage["plans"][0]["deployed"])
            self.assertGreaterEqual(stage["cached_parts"], 1)
        text = self.ctl_ok("status", "--to", self.to)
        self.assertIn("deployed", text)
        self.assertIn("last deployment: plan", text)
        parts = os.listdir(self.path(".local", "state", "convoy", "pi-b", "parts"))
        self.assertEqual(len([name for name in parts if name.endswith(".onnx")]), 1)

    def answers(self):
        """The bytes of the answers to a few pictures of noise."""
        answers = []
        for seed in range(4):
            picture, folder = self.path(f"x{seed}.npy"), self.path("out")
            random = numpy.random.default_rng(seed)
            numpy.save(picture, random.integers(0, 255, (1, 1, 28, 28)).astype(numpy.float32))
            self.ctl_ok("infer", "--to", self.to, "--tensor", picture, "--out", folder)
            for name in sorted(os.listdir(folder)):
                with open(os.path.join(folder, name), "rb") as file:
                    answers.append((name, file.read()))
        self.assertGreaterEqual(len(answers), 4)
        return answers

    def test_a_refusal_changes_nothing_and_exits_with_3(self):
        self.start_recruit(1)
        self.start_recruit(2, "memory: 1 MiB\nworkers: 64\n")
        self.start_ingress()

        done = self.ctl("apply", "--json", self.plan(), "--to", self.to)

        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("nothing has changed: NO_MEMORY: pi-c: ", done.stderr)
        answer = json.loads(done.stdout)
        self.assertFalse(answer["applied"])
        self.assertEqual([device["node"] for device in answer["devices"]], ["pi-a", "pi-b", "pi-c"])
        self.assertEqual(answer["devices"][2]["code"], "NO_MEMORY")
        self.assertEqual(len(self.status()["stages"]), 1)
        self.assertEqual(self.ctl("apply", self.plan(count=2), "--to", self.to).returncode, 0)

    def test_a_device_measures_a_model_and_keeps_the_result_for_the_asking_side(self):
        env = {**os.environ, "XDG_STATE_HOME": self.path("state-of-ctl")}
        self.start_recruit(1, "workers: 1\n")
        node, address = self.stages[1]
        self.wait_status(lambda status: status["stages"][0]["state"] == "idle", to=address)
        words = ["profile", "--to", address, "--seconds", "0", RESNET]

        first = json.loads(self.ctl_ok(*words, "--json", env=env))
        again = json.loads(self.ctl_ok(*words, "--json", env=env))

        self.assertEqual(first["device"]["node"], node)
        self.assertEqual(first["workers"], 1)
        self.assertGreater(first["link"]["mbit"], 0)
        self.assertGreater(first["link"]["latency_ms"], 0)
        self.assertTrue(all(layer["us"] > 0 for layer in first["layers"]))
        self.assertEqual(again["layers"], first["layers"])
        self.assertIn("link     ", self.ctl_ok(*words, env=env))
        self.assertEqual(self.ctl(*words, "--workers", "2", env=env).returncode, 2)

    def test_a_plan_is_made_of_what_a_running_line_says_of_itself(self):
        env = {**os.environ, "XDG_STATE_HOME": self.path("state-of-ctl")}
        self.start_recruit(1, "workers: 1\n")
        self.start_recruit(2, "workers: 1\n")
        neighbours = "".join(f"  - {{node: {node}, address: '{address}'}}\n" for node, address in self.stages[1:])
        self.start("pi-a", f"model: {RESNET}\nnode: pi-a\nlisten: {self.to}\nworkers: 1\npipeline: auto\nneighbours:\n{neighbours}")
        self.wait_status(lambda status: status["stages"][0]["state"] == "ready")

        answer = json.loads(self.ctl_ok("plan", "--to", self.to, "--seconds", "0", "--json", "--write", self.path("planned.yaml"),
                                        RESNET, env=env))

        self.assertGreater(answer["fps"], 0)
        nodes = [node for stage in answer["stages"] for node in stage["nodes"]]
        self.assertEqual(nodes[0], "pi-a")
        self.assertLessEqual(set(nodes), {"pi-a", "pi-b", "pi-c"})
        self.ctl_ok("check", self.path("planned.yaml"), "--node", "pi-a")
        self.assertEqual(self.ctl("plan", RESNET).returncode, 2)

    def test_apply_says_what_is_wrong_before_anything_is_asked(self):
        self.assertEqual(self.ctl("apply", self.plan()).returncode, 2)
        self.assertEqual(self.ctl("apply", "--to", self.to).returncode, 2)
        done = self.ctl("apply", self.plan(), "--to", self.to)
        self.assertEqual(done.returncode, 1)
        self.assertIn(self.to, done.stderr)
        done = self.ctl("apply", self.write("idle.yaml", "node: x\n"), "--to", self.to)
        self.assertEqual(done.returncode, 1)
        self.assertIn("has no `pipeline:` to apply", done.stderr)

    def test_a_plan_for_another_model_is_refused(self):
        self.start_recruit(1)
        self.start_ingress()
        other = os.path.join(harness.ROOT, "models", "fmnist_vgg.onnx")
        path = self.write_config(self.stages[:2], ["3"], model=other, name="other.yaml")
        done = self.ctl("apply", path, "--to", self.to)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("another model", done.stderr)
        missing = self.write_config(self.stages[:2], ["7"], model="elsewhere.onnx", name="missing.yaml")
        self.assertEqual(self.ctl("apply", missing, "--to", self.to).returncode, 0)

    def test_links_are_encrypted_for_plans_and_parts_too(self):
        key = self.path("cluster.key")
        self.ctl_ok("keygen", key)
        self.start_recruit(1, f"key: {key}\n")
        self.start(self.stages[0][0], f"model: {RESNET}\nnode: pi-a\nlisten: {self.to}\nkey: {key}\n")
        until = time.monotonic() + harness.CAP_S
        while self.ctl("status", "--to", self.to, "--key", key).returncode != 0:
            self.assertLess(time.monotonic(), until)
        done = self.ctl("apply", self.plan(count=2), "--to", self.to, "--key", key)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.path("pi-b.log")) as log:
            self.assertRegex(log.read(), "ingress pi-a at .* connected.*TLS")

    def test_a_recruit_killed_in_the_middle_of_its_part_goes_on_with_it(self):
        model = os.path.join(harness.MODELS, "mobilenet_v1_1.0_224.onnx")
        if not os.path.exists(model):
            self.skipTest(f"no {model}")
        self.start_recruit(1)
        node, address = self.stages[0]
        self.start(node, f"model: {model}\nnode: {node}\nlisten: {address}\n")
        self.wait_status(lambda status: status["stages"][0]["state"] == "idle")
        path = self.write_config(self.stages[:2], ["2"], model=model)
        apply = subprocess.Popen([harness.CONVOYCTL, "apply", "--json", path, "--to", self.to], stdout=subprocess.PIPE, text=True)
        folder = self.path(".local", "state", "convoy", "pi-b", "parts")
        until = time.monotonic() + harness.CAP_S
        while time.monotonic() < until and not self.received(folder) and apply.poll() is None:
            pass
        self.stop("pi-b", signal.SIGKILL)
        self.start_recruit(1)
        answer = json.loads(apply.communicate(timeout=harness.CAP_S)[0])
        self.assertEqual(apply.returncode, 0, answer)
        self.wait_status(lambda status: [stage["state"] for stage in status["stages"]] == ["ready", "ready"])

    def received(self, folder):
        """Bytes of an unfinished part."""
        try:
            return sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder) if name.endswith(".part"))
        except OSError:
            return 0


if __name__ == "__main__":
    harness.main()
