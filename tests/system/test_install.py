#!/usr/bin/python3
"""`make install` into a folder: everything is there, the unit is sound, nothing stays after `make uninstall`."""
import os
import shutil
import subprocess
import unittest

import harness


class Install(harness.Case):
    def make(self, *words):
        done = subprocess.run(["make", "-C", harness.ROOT, f"BUILD={os.path.dirname(harness.CONVOYD)}",
                               f"DESTDIR={self.path('root')}", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=600)
        self.assertEqual(done.returncode, 0, done.stdout)

    def files(self):
        return {os.path.relpath(os.path.join(folder, name), self.path("root"))
                for folder, _, names in os.walk(self.path("root")) for name in names}

    def test_puts_every_file_in_its_place(self):
        self.make("install", "PREFIX=/usr")
        missing = {"usr/bin/convoyd", "usr/bin/convoyctl", "lib/systemd/system/convoyd.service", "usr/lib/sysusers.d/convoy.conf",
                   "usr/lib/tmpfiles.d/convoy.conf", "usr/share/doc/convoy/examples/three.yaml",
                   "usr/share/man/man1/convoyctl.1", "usr/share/man/man8/convoyd.8"} - self.files()
        self.assertEqual(missing, set())

    def test_installed_programs_run(self):
        self.make("install", "PREFIX=/usr")
        for name in ("convoyd", "convoyctl"):
            said = subprocess.check_output([self.path("root", "usr", "bin", name), "--version"], text=True, timeout=harness.CAP_S)
            self.assertRegex(said, rf"^{name} \d+\.\d+\.\d+\n$")

    def test_unit_starts_the_program_that_was_installed(self):
        for prefix in ("/usr", "/usr/local"):
            self.make("install", f"PREFIX={prefix}")
            unit = next(f for f in self.files() if f.endswith("convoyd.service"))
            with open(self.path("root", unit), encoding="utf-8") as text:
                self.assertIn(f"ExecStart={prefix}/bin/convoyd", text.read())
            shutil.rmtree(self.path("root"))

    @unittest.skipUnless(shutil.which("systemd-analyze"), "there is no systemd-analyze")
    def test_systemd_finds_nothing_wrong_with_the_unit(self):
        self.make("install", "PREFIX=/usr")
        shutil.copy(self.path("root", "lib", "systemd", "system", "convoyd.service"), self.path("convoyd.service"))
        # The program itself is looked for, too: name one that exists.
        with open(self.path("convoyd.service"), "r+", encoding="utf-8") as unit:
            text = unit.read().replace("/usr/bin/convoyd", harness.CONVOYD)
            unit.seek(0)
            unit.write(text)
            unit.truncate()
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", self.path("convoyd.service")], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=harness.CAP_S)
        about_us = [row for row in done.stdout.splitlines() if "convoyd" in row]
        self.assertEqual((done.returncode, about_us), (0, []))

    def test_uninstall_leaves_no_file(self):
        self.make("install")
        self.make("uninstall")
        self.assertEqual(self.files(), set())


if __name__ == "__main__":
    harness.main()
