#!/usr/bin/python3
"""The scripts: a line on this machine, a line over (a pretended) ssh, packages, the counting of tests."""
import os
import shutil
import signal
import stat
import subprocess
import sys
import time

import harness

SCRIPTS = os.path.join(harness.ROOT, "scripts")


class LaunchLocal(harness.Case):
    def launch(self, *words, **kwargs):
        return subprocess.Popen([os.path.join(SCRIPTS, "launch-local"), *words], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)

    def test_runs_a_command_while_the_line_is_up_and_returns_its_exit_code(self):
        config, stages = self.config()
        done = self.launch(config, "--logs", self.path("logs"), "--", "sh", "-c", "echo to $CONVOY_TO; exit 7")
        out, err = done.communicate(timeout=harness.CAP_S)
        self.assertEqual((out, done.returncode), (f"to {stages[0][1]}\n", 7), err)

    def test_stops_every_daemon_on_sigterm(self):
        config, _ = self.config()
        launched = self.launch(config)
        folder = None
        for row in launched.stderr:
            if "process ids in" in row:
                folder = row.split()[-1]
            if "the line is up" in row:
                break
        pids = [int(open(os.path.join(folder, name), encoding="ascii").read()) for name in os.listdir(folder)]
        self.assertEqual(len(pids), 3)
        launched.send_signal(signal.SIGTERM)
        launched.communicate(timeout=harness.CAP_S)
        self.assertEqual(launched.returncode, 0)
        self.assertEqual([pid for pid in pids if os.path.exists(f"/proc/{pid}")], [])
        self.assertFalse(os.path.exists(folder))

    def test_starts_only_the_nodes_it_is_told(self):
        config, _ = self.config()
        done = self.launch(config, "--nodes", "pi-c", "--logs", self.path("logs"), "--", "true")
        done.communicate(timeout=harness.CAP_S)
        self.assertEqual((done.returncode, os.listdir(self.path("logs"))), (0, ["pi-c.log"]))

    def test_names_the_nodes_when_one_does_not_exist(self):
        config, _ = self.config()
        done = self.launch(config, "--nodes", "pi-z", "--", "true")
        _, err = done.communicate(timeout=harness.CAP_S)
        self.assertEqual(done.returncode, 1)
        self.assertIn("no node 'pi-z'", err)

    def test_shows_why_a_daemon_did_not_start(self):
        config, _ = self.config(cuts=["no/such/layer"])
        done = self.launch(config, "--", "true")
        _, err = done.communicate(timeout=harness.CAP_S)
        self.assertEqual(done.returncode, 1)
        self.assertIn("no/such/layer", err)


class LaunchSsh(harness.Case):
    """With an `ssh` in PATH that runs the command here, below a folder of its own."""

    def setUp(self):
        super().setUp()
        self.fake("ssh", f"""
            while [ "$1" = -o ]; do shift 2; done
            echo "$1" >>{self.folder}/hosts
            printf '%s' "$2" | sed 's,/etc/convoy,{self.folder}/etc,g; s,/var/lib/convoy,{self.folder}/var,g' >{self.folder}/command
            sh {self.folder}/command""")
        self.fake("sudo", 'shift; exec "$@"')
        self.fake("systemctl", f'echo "$@" >>{self.folder}/systemctl.log')

    def fake(self, name, script):
        os.makedirs(self.path("bin"), exist_ok=True)
        path = self.write(os.path.join("bin", name), f"#!/bin/sh\n{script}\n")
        os.chmod(path, stat.S_IRWXU)

    def launch(self, *words):
        env = dict(os.environ, PATH=f"{self.path('bin')}:{os.environ['PATH']}")
        return subprocess.run([os.path.join(SCRIPTS, "launch-ssh"), *words], env=env, stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=harness.CAP_S)

    def test_copies_and_reloads_on_every_host_then_waits_for_the_line(self):
        daemons = self.start_line()
        done = self.launch("--user", "pi", "--model", daemons.config)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.path("hosts"), encoding="utf-8") as hosts:
            self.assertEqual(set(hosts.read().split()), {"pi@127.0.0.1"})
        with open(self.path("systemctl.log"), encoding="utf-8") as calls:
            self.assertEqual(calls.read().splitlines(), ["reload-or-restart convoyd"] * 3)
        with open(self.path("etc", "convoy.yaml"), encoding="utf-8") as copied, open(daemons.config, encoding="utf-8") as file:
            self.assertEqual(copied.read(), file.read())
        self.assertEqual(sorted(os.listdir(self.path("var", "models"))), ["fmnist_resnet.onnx", "fmnist_resnet.yaml"])
        self.assertIn("pi-c", done.stdout)

    def test_dry_run_only_prints(self):
        config, _ = self.config()
        done = self.launch("--dry-run", config)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.count("systemctl reload-or-restart convoyd"), 3)
        self.assertFalse(os.path.exists(self.path("hosts")))

    def test_says_which_node_the_line_waits_for(self):
        config, _ = self.config()
        done = self.launch("--wait", "0", config)
        self.assertEqual(done.returncode, 1)
        self.assertIn("waiting for pi-a, pi-b, pi-c", done.stderr)


class InstallDeps(harness.Case):
    def run_with(self, tools, *groups):
        """install-deps in a PATH that holds only the named tools of this machine and those written before."""
        os.makedirs(self.path("bin"), exist_ok=True)
        for tool in ("sh", "sed", "grep", "tail", "mktemp", "rm", "env", *tools):
            os.symlink(shutil.which(tool), self.path("bin", tool))
        return subprocess.run([os.path.join(SCRIPTS, "install-deps"), *groups], env={"PATH": self.path("bin")}, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=harness.CAP_S)

    def pretend(self, name, script):
        os.makedirs(self.path("bin"), exist_ok=True)
        os.chmod(self.write(os.path.join("bin", name), f"#!/bin/sh\n{script}\n"), stat.S_IRWXU)

    def test_says_that_this_is_not_debian(self):
        done = self.run_with([])
        self.assertEqual(done.returncode, 1)
        self.assertIn("not a Debian system", done.stderr)

    def test_names_what_is_missing_when_it_may_not_install(self):
        self.pretend("dpkg-query", "exit 1")
        self.pretend("apt-get", "exit 1")
        self.pretend("id", "echo 1000")
        done = self.run_with([])
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "root or sudo: .*libuv1-dev")

    def test_says_so_when_the_package_lists_cannot_be_fetched(self):
        self.pretend("dpkg-query", "exit 1")
        self.pretend("apt-get", "echo 'Could not resolve deb.debian.org'; exit 100")
        self.pretend("id", "echo 0")
        done = self.run_with([])
        self.assertEqual(done.returncode, 1)
        self.assertIn("is there a network", done.stderr)
        self.assertIn("Could not resolve", done.stderr)

    def test_is_silent_and_quick_when_nothing_is_missing(self):
        self.pretend("dpkg-query", 'shift 2; for p; do echo "installed $p"; done')
        self.pretend("apt-get", "exit 1")
        begin = time.monotonic()
        done = self.run_with([], "build", "test", "lint")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assertLess(time.monotonic() - begin, 2)


class RunTests(harness.Case):
    """The counter of tests itself: nothing that fails may look as if it had passed."""

    def count(self, script, *flags):
        path = self.write("program", f"#!/bin/sh\n{script}\n")
        os.chmod(path, stat.S_IRWXU)
        done = subprocess.run([os.path.join(SCRIPTS, "run-tests"), "--logs", self.path("logs"), *flags, path], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=harness.CAP_S)
        return done.stdout.splitlines()[-1], done.returncode

    def test_counts_passed_failed_and_skipped(self):
        tap = "echo 1..3; echo ok 1 - a; echo not ok 2 - b; echo 'not ok 3 # SKIP c'; exit 1"
        self.assertEqual(self.count(tap), ("1 passed, 1 failed, 1 skipped", 1))

    def test_counts_tests_after_a_crash_as_failed(self):
        self.assertEqual(self.count("echo 1..3; echo ok 1 - a; kill -SEGV $$"), ("1 passed, 2 failed", 1))

    def test_counts_a_crash_after_the_last_test(self):
        self.assertEqual(self.count("echo 1..1; echo ok 1 - a; kill -SEGV $$"), ("1 passed, 1 failed", 1))

    def test_counts_running_out_of_time(self):
        self.assertEqual(self.count("echo 1..1; sleep 60", "--timeout", "0.2"), ("0 passed, 1 failed", 1))

    def test_counts_an_exit_code_that_no_test_explains(self):
        self.assertEqual(self.count("echo 1..1; echo ok 1 - a; exit 3"), ("1 passed, 1 failed", 1))

    def test_counts_a_program_without_a_plan(self):
        self.assertEqual(self.count("true"), ("0 passed, 1 failed", 1))

    def test_takes_a_program_whose_tests_are_all_skipped(self):
        self.assertEqual(self.count("echo 1..1; echo 'ok 1 - a # SKIP b'"), ("0 passed, 0 failed, 1 skipped", 0))

    def test_a_part_of_a_test_that_fails_is_printed(self):
        """By the printer of these tests."""
        program = self.write("parts.py", f"""import sys
sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})
import harness
class Case(harness.Case):
    def test_parts(self):
        for number in range(3):
            with self.subTest(number=number):
                self.assertNotEqual(number, 1)
harness.main()
""")
        done = subprocess.run([sys.executable, program], stdout=subprocess.PIPE, text=True, timeout=harness.CAP_S)
        self.assertEqual([row for row in done.stdout.splitlines() if not row.startswith("#")],
                         ["1..1", "not ok 1 - Case.test_parts (number=1)"])
        self.assertEqual(done.returncode, 1)


if __name__ == "__main__":
    harness.main()
