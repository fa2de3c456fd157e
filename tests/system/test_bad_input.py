#!/usr/bin/python3
"""Whatever is wrong, a sentence names the place, the exit code is 1 or the frame is refused, and nothing crashes."""
import random
import re
import signal
import socket
import subprocess

import harness
from harness import field


def onnx(op, name="", opset=13):
    """A model of one operator over a picture."""
    node = field(1, "x") + field(2, "y") + (field(3, name) if name else b"") + field(4, op)
    dims = b"".join(field(1, field(1, d)) for d in (1, 1, 28, 28))
    tensor = field(1, field(1, 1) + field(2, dims))
    graph = field(1, node) + field(2, "g") + field(11, field(1, "x") + field(2, tensor)) + field(12, field(1, "y") + field(2, tensor))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, opset))


class Refused(harness.Case):
    def refused(self, *words):
        """Runs convoyctl; its one sentence on stderr."""
        done = self.ctl(*words)
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        self.assertRegex(done.stderr, r"\Aconvoyctl \w+: [^\n]+\n\Z")
        return done.stderr

    def daemon_refuses(self, config, *words):
        """Starts convoyd, which must end by itself with exit code 1; what it said."""
        done = subprocess.run([harness.CONVOYD, "--config", config, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=harness.CAP_S)
        self.assertEqual(done.returncode, 1, done.stdout)
        return done.stdout


class Models(Refused):
    def setUp(self):
        super().setUp()
        with open(harness.RESNET, "rb") as file:
            self.model = file.read()

    def test_a_file_that_does_not_exist(self):
        self.assertIn("no-such.onnx", self.refused("inspect", self.path("no-such.onnx")))

    def test_an_empty_file(self):
        self.assertIn("empty.onnx", self.refused("inspect", self.write("empty.onnx", b"")))

    def test_a_file_that_is_not_onnx(self):
        self.assertIn("text.onnx", self.refused("inspect", self.write("text.onnx", "# not a model\n" * 100)))

    def test_a_model_truncated_anywhere(self):
        for size in [1, 10, 100, 1000, *range(5000, len(self.model), 97001), len(self.model) - 1]:
            with self.subTest(size=size):
                self.assertIn("cut.onnx", self.refused("inspect", self.write("cut.onnx", self.model[:size])))

    def test_a_model_with_wrong_bytes_is_refused_or_read_but_never_crashes(self):
        rng = random.Random(1)
        refused = 0
        for _ in range(100):
            broken = bytearray(self.model)
            for _ in range(8):
                broken[rng.choice([rng.randrange(4000), rng.randrange(len(broken))])] = rng.randrange(256)
            done = self.ctl("inspect", self.write("broken.onnx", bytes(broken)))
            self.assertIn(done.returncode, (0, 1), done.stderr)
            self.assertEqual(done.returncode == 1, done.stderr != "")
            refused += done.returncode
        self.assertGreater(refused, 10)

    def test_an_operator_that_is_not_supported_is_named_with_its_node_and_opset(self):
        said = self.refused("inspect", self.write("m.onnx", onnx("Frobnicate", "block/odd")))
        for word in ("Frobnicate", "block/odd", "13"):
            self.assertIn(word, said)

    def test_an_operator_that_is_not_supported_stops_the_daemon_with_the_same_sentence(self):
        config, _ = self.config(cuts=[], model=self.write("m.onnx", onnx("Frobnicate", "block/odd")))
        said = self.daemon_refuses(config, "--node", "pi-a")
        self.assertIn("Frobnicate", said)
        self.assertIn("block/odd", said)


class Configurations(Refused):
    def test_a_wrong_key_is_named_with_line_column_and_the_nearest_right_one(self):
        config = self.write("c.yaml", f"model: {harness.RESNET}\nworkerz: 2\npipeline:\n  - {{node: a, address: 127.0.0.1:1}}\n")
        for said in (self.refused("check", config), self.daemon_refuses(config)):
            self.assertRegex(said, r"c\.yaml:2:1: .*workerz.*workers")

    def test_a_cut_that_does_not_exist_is_named_with_line_and_the_nearest_layer(self):
        config, _ = self.config(cuts=["/m/f/f.3/Relu_7", harness.CUTS[1]])
        for said in (self.refused("check", config), self.daemon_refuses(config, "--node", "pi-a")):
            self.assertRegex(said, r"convoy\.yaml:3(:\d+)?: .*/m/f/f\.3/Relu_7.*/m/f/f\.3/Relu")

    def test_cuts_in_the_wrong_order(self):
        config, _ = self.config(cuts=harness.CUTS[::-1])
        self.assertRegex(self.refused("check", config), r"convoy\.yaml:4:\d+: .*pi-b.*pi-a")

    def test_a_file_that_does_not_exist(self):
        self.assertIn("no-such.yaml", self.daemon_refuses(self.path("no-such.yaml")))

    def test_a_port_in_use(self):
        config, stages = self.config(cuts=[])
        host, port = stages[0][1].split(":")
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind((host, int(port)))
            other.listen()
            said = self.daemon_refuses(config, "--node", "pi-a")
        self.assertIn(stages[0][1], said)
        self.assertRegex(said, "in use")

    def test_listening_off_loopback_without_a_key(self):
        config, _ = self.config(cuts=[], extra="listen: 0.0.0.0:0\n")
        self.assertIn("insecure", self.daemon_refuses(config))

    def test_a_wrong_configuration_at_reload_changes_nothing(self):
        daemons = self.start_line(cuts=[])
        with open(daemons.config, "a", encoding="utf-8") as file:
            file.write("nonsense: 1\n")
        daemons.daemons["pi-a"].send_signal(signal.SIGHUP)
        self.wait_until(lambda: "nonsense" in self.logs(daemons), "a log line about the wrong key")
        self.ctl_ok("infer", self.pictures(3), "--to", daemons.to, "--model", harness.RESNET)


class Pictures(Refused):
    def setUp(self):
        super().setUp()
        self.daemons = self.start_line(cuts=[])
        self.junk = self.write("junk.jpg", b"\xff\xd8\xff\xe0 this is not a picture " * 40)

    def test_a_file_that_is_not_a_picture(self):
        for words in (("run", harness.RESNET, self.junk), ("infer", self.junk, "--to", self.daemons.to, "--model", harness.RESNET)):
            self.assertIn("junk.jpg", self.ctl(*words).stderr)
            self.assertEqual(self.ctl(*words).returncode, 1)

    def test_a_picture_that_does_not_exist(self):
        done = self.ctl("infer", self.path("none.png"), "--to", self.daemons.to, "--model", harness.RESNET)
        self.assertEqual(done.returncode, 1)
        self.assertIn("none.png", done.stderr)

    def test_nobody_listens_where_the_client_connects(self):
        port = harness.free_ports(1)[0]
        self.assertIn(f"127.0.0.1:{port}", self.refused("status", "--to", f"127.0.0.1:{port}"))


class Peers(harness.Case):
    """A line goes on serving its clients while peers send nonsense."""

    def setUp(self):
        super().setUp()
        self.daemons = self.start_line()

    def send(self, data, address=None):
        """Sends data and reads until the daemon closes; what it answered."""
        host, port = (address or self.daemons.to).split(":")
        with socket.create_connection((host, int(port)), timeout=harness.CAP_S) as peer:
            answer = b""
            try:
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)
                while chunk := peer.recv(65536):
                    answer += chunk
            except ConnectionError:
                pass
        return answer

    def still_serves(self):
        self.ctl_ok("infer", self.pictures(5), "--to", self.daemons.to, "--model", harness.RESNET)

    def test_random_bytes_are_refused_everywhere(self):
        rng = random.Random(2)
        for _, address in self.daemons.stages:
            for size in (1, 13, 14, 100, 100000):
                self.send(rng.randbytes(size), address)
        self.still_serves()

    def test_an_http_request_is_refused(self):
        self.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.still_serves()

    def test_an_announced_size_costs_no_memory(self):
        pid = self.daemons.daemons["pi-a"].pid
        before = harness.memory_kib(pid)
        peers = []
        for _ in range(16):
            host, port = self.daemons.to.split(":")
            peer = socket.create_connection((host, int(port)), timeout=harness.CAP_S)
            # A message of 2 GiB, by the fixed place of its sizes.
            peer.sendall(bytes([0xFF, 0xFF, 0xFF, 0xFF, 0x07, 0x09]) + (100 | (0x7FFFFF00 << 32)).to_bytes(8, "little"))
            peers.append(peer)
        self.still_serves()
        after = harness.memory_kib(pid)
        for peer in peers:
            peer.close()
        self.assertLess(after - before, 16 * 1024)

    def test_the_log_names_the_peer(self):
        self.send(b"\x00" * 64)
        self.wait_until(lambda: re.search(r"127\.0\.0\.1:\d+", self.logs(self.daemons)), "a log line with the peer's address")


if __name__ == "__main__":
    harness.main()
