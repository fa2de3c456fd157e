#!/usr/bin/python3
"""Keys, with the real programs: who has one gets in, who has none does not, and keys change while frames flow."""
import json
import os
import signal
import socket
import stat
import subprocess
import threading

import harness
from harness import CONVOYCTL, CONVOYD, RESNET


class Key(harness.Case):
    def setUp(self):
        super().setUp()
        self.key = self.path("cluster.key")
        self.key_id = self.ctl_ok("keygen", self.key).split()[1]

    def start_with_key(self):
        """A line of three with the key; its clients find it in the environment."""
        os.environ["CONVOY_KEY"] = self.key
        self.addCleanup(os.environ.pop, "CONVOY_KEY", None)
        return self.start_line(extra=f"key: {self.key}\n")

    def rows(self, pictures, *words):
        return [json.loads(row) for row in self.ctl_ok("infer", pictures, "--model", RESNET, "--json", "--no-time", *words).splitlines()]

    def test_keygen_makes_a_file_that_only_its_owner_reads_and_never_replaces_one(self):
        self.assertEqual(stat.S_IMODE(os.stat(self.key).st_mode), 0o600)
        with open(self.key, encoding="ascii") as file:
            text = file.read()
        again = self.ctl("keygen", self.key)
        self.assertEqual(again.returncode, 1)
        self.assertIn("there is a file already; --add", again.stderr)
        with open(self.key, encoding="ascii") as file:
            self.assertEqual(file.read(), text)
        self.assertEqual(len(os.listdir(self.folder)), 1)  # nothing is left beside it

    def test_a_line_with_a_key_answers_as_one_device(self):
        pictures = self.pictures(60)
        alone = [json.loads(row) for row in self.ctl_ok("run", RESNET, pictures, "--json", "--no-time").splitlines()]
        daemons = self.start_with_key()
        self.assertEqual([row["top"] for row in self.rows(pictures, "--to", daemons.to)], [row["top"] for row in alone])
        status = json.loads(self.ctl_ok("status", "--to", daemons.to, "--json"))
        self.assertEqual([s["frames_in"] for s in status["stages"]], [60, 60, 60])
        logs = self.logs(daemons)
        self.assertIn(f"with key {self.key_id}", logs)
        self.assertRegex(logs, r"link to pi-b at \S+ is up, TLS_\S+ with key")

    def test_nothing_readable_is_on_the_wire(self):
        """A relay between client and device sees neither names nor the numbers of a picture."""
        daemons = self.start_with_key()
        host, port = daemons.to.rsplit(":", 1)
        seen = bytearray()

        def carry(source, target):
            while chunk := source.recv(65536):
                seen.extend(chunk)
                target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)

        def relay(listener):
            inner, outer = listener.accept()[0], socket.create_connection((host, int(port)))
            back = threading.Thread(target=carry, args=(outer, inner))
            back.start()
            carry(inner, outer)
            back.join()

        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=relay, args=(listener,))
            thread.start()
            self.rows(self.pictures(3), "--to", f"127.0.0.1:{listener.getsockname()[1]}")
            thread.join(harness.CAP_S)
        self.assertGreater(len(seen), 3 * 28 * 28 * 4)
        for word in (b"pi-a", b"prob", b"fmnist", bytes(64)):
            self.assertNotIn(word, seen)

    def test_who_has_no_key_or_another_one_is_told_so(self):
        daemons = self.start_with_key()
        del os.environ["CONVOY_KEY"]
        none = self.ctl("status", "--to", daemons.to)
        self.assertEqual(none.returncode, 1)
        self.assertIn("NOT_ENCRYPTED", none.stderr)
        self.assertIn("name its key", none.stderr)
        self.ctl_ok("keygen", self.path("other.key"))
        other = self.ctl("infer", self.pictures(1), "--model", RESNET, "--to", daemons.to, "--key", self.path("other.key"))
        self.assertEqual(other.returncode, 1)
        self.assertIn("does not accept our key", other.stderr)
        self.assertIn("is not one of ours", self.logs(daemons))
        os.environ["CONVOY_KEY"] = self.key

    def test_a_client_with_a_key_does_not_talk_to_a_device_without(self):
        daemons = self.start_line()
        done = self.ctl("status", "--to", daemons.to, "--key", self.key)
        self.assertEqual(done.returncode, 1)
        self.assertIn("does the device have a `key:`", done.stderr)
        self.assertIn("it speaks TLS, but this device has no key", self.logs(daemons))

    def test_a_key_that_others_may_read_is_refused_everywhere(self):
        os.chmod(self.key, 0o644)
        path, stages = self.config(extra=f"key: {self.key}\n")
        daemon = subprocess.run([CONVOYD, "--config", path, "--node", "pi-a"], capture_output=True, text=True, timeout=harness.CAP_S)
        client = self.ctl("status", "--to", stages[0][1], "--key", self.key)
        for done in (daemon, client):
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("chmod 600", done.stderr)

    def test_off_loopback_a_key_is_demanded_and_enough(self):
        stages = [("pi-a", f"0.0.0.0:{harness.free_ports(1)[0]}")]
        path = self.write_config(stages, [])
        refused = subprocess.run([CONVOYD, "--config", path, "--node", "pi-a"], capture_output=True, text=True, timeout=harness.CAP_S)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("convoyctl keygen", refused.stderr)
        os.environ["CONVOY_KEY"] = self.key
        self.addCleanup(os.environ.pop, "CONVOY_KEY", None)
        port = harness.free_ports(1)[0]
        path = self.write_config([("pi-a", f"127.0.0.1:{port}")], [], extra=f"key: {self.key}\nlisten: 0.0.0.0:{port}\n")
        daemons = harness.line.Line(path, [("pi-a", f"127.0.0.1:{port}")], self.path("logs"), lambda text: None)
        self.addCleanup(self.stop_line, daemons)
        daemons.start(harness.CAP_S)
        self.assertEqual(len(self.rows(self.pictures(2), "--to", f"127.0.0.1:{port}")), 2)
        # A file without the key, and without the address: the socket that is open stays protected.
        with open(path, "w", encoding="utf-8") as file:
            file.write("{}\n")
        os.kill(daemons.daemons["pi-a"].pid, signal.SIGHUP)
        self.wait_until(lambda: "the configuration stays as it was" in self.logs(daemons), "the reload is refused")
        self.assertIn(f"listens on 0.0.0.0:{port}, which other machines can reach, and there is no key", self.logs(daemons))
        self.assertEqual(len(self.rows(self.pictures(2), "--to", f"127.0.0.1:{port}")), 2)
        del os.environ["CONVOY_KEY"]
        self.assertEqual(self.ctl("status", "--to", f"127.0.0.1:{port}").returncode, 1)
        os.environ["CONVOY_KEY"] = self.key

    def test_a_socket_that_was_passed_off_loopback_needs_a_key_too(self):
        path = self.write_config([("pi-a", "127.0.0.1:7433")], [])

        def as_service():
            os.dup2(listener.fileno(), 3)
            os.set_inheritable(3, True)  # which it was not if it had that number
            os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")

        with socket.create_server(("0.0.0.0", 0)) as listener:
            done = subprocess.run([CONVOYD, "--config", path, "--node", "pi-a"], preexec_fn=as_service, close_fds=False,
                                  capture_output=True, text=True, timeout=harness.CAP_S)
        self.assertEqual(done.returncode, 1)
        self.assertIn("which other machines can reach, and there is no key", done.stderr)

    def test_check_and_launch_local_know_the_key(self):
        path, stages = self.config(extra=f"key: {self.key}\nhttp: 127.0.0.1:0\n")
        self.assertEqual(json.loads(self.ctl_ok("check", path, "--json"))["key"], self.key)
        script = os.path.join(harness.ROOT, "scripts", "launch-local")
        done = subprocess.run([script, "--logs", self.path("logs"), path, "--", "sh", "-c",
                               f'{CONVOYCTL} infer {self.pictures(2)} --to "$CONVOY_TO" --model {RESNET} --json'],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=harness.CAP_S)
        self.assertEqual((done.returncode, len(done.stdout.splitlines())), (0, 2), done.stderr)
        os.chmod(self.key, 0o644)
        self.assertIn("chmod 600", self.ctl("check", path).stderr)
        os.remove(self.key)
        missing = self.ctl("check", path)
        self.assertEqual(missing.returncode, 0)
        self.assertEqual(missing.stderr.splitlines(),
                         [f"convoyctl check: {path}: `key:`: {self.key}: No such file or directory; every device needs it, and does not "
                          "start without (`convoyctl keygen` makes one)"])

    def test_keys_roll_over_while_frames_flow(self):
        daemons = self.start_with_key()
        pictures = self.pictures(400)
        for step in ("--add", "--promote", "--drop"):
            with self.subTest(step=step):
                client = subprocess.Popen([CONVOYCTL, "infer", pictures, "--model", RESNET, "--json", "--to", daemons.to],
                                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                self.ctl_ok("keygen", step, self.key)
                reloads = self.logs(daemons).count("has been read")
                for process in daemons.daemons.values():
                    process.send_signal(signal.SIGHUP)
                out, err = client.communicate(timeout=harness.CAP_S)
                self.assertEqual((client.returncode, len(out.splitlines())), (0, 400), err)
                self.wait_until(lambda: self.logs(daemons).count("has been read") == reloads + 3, "all devices have reloaded")
                self.rows(self.path("pictures", sorted(os.listdir(pictures))[0]), "--to", daemons.to)
        self.assertNotIn(self.key_id, self.ctl_ok("keygen", "--add", self.key))


if __name__ == "__main__":
    harness.main()
