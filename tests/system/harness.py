"""What the system tests share: a TAP printer for unittest, the programs, temporary folders, free ports, daemons."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "scripts"))
import fashion  # noqa: E402
import line  # noqa: E402
from line import free_ports  # noqa: E402

RESNET = os.path.join(ROOT, "models", "fmnist_resnet.onnx")
CUTS = ["/m/f/f.3/Relu_1", "/m/f/f.5/Relu_1"]  # two of its layers
QUICK = bool(os.environ.get("CONVOY_TEST_QUICK"))
MODELS = os.environ.get("CONVOY_MODELS", os.path.join(ROOT, "..", "shared", "models"))
CAP_S = 60  # no wait is longer

CONVOYD = line.program("convoyd")
CONVOYCTL = line.program("convoyctl")


class Tap(unittest.TestResult):
    """Prints one TAP line per test as it ends."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def addSubTest(self, test, subtest, err):
        """A part of a test, told of when it fails; a test with such a part is not told of by itself."""
        if err is not None:
            self.addFailure(subtest, err)

    def tell(self, verdict, test, note=""):
        self.count += 1
        name = test.id().split(".", 1)[1]
        print(f"{verdict} {self.count} - {name}{note}", flush=True)

    def addSuccess(self, test):
        self.tell("ok", test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.tell("ok", test, f" # SKIP {reason}")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.tell("not ok", test)
        for text in self._exc_info_to_string(err, test).splitlines():
            print(f"# {text}", flush=True)

    addError = addFailure


def main():
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    print(f"1..{suite.countTestCases()}", flush=True)
    result = Tap()
    suite.run(result)
    sys.exit(0 if result.wasSuccessful() else 1)


class Case(unittest.TestCase):
    """A test with a temporary folder, whose daemons end with it."""

    maxDiff = 4000

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="convoy-test-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write(self, name, content):
        path = self.path(name)
        with open(path, "wb") as out:
            out.write(content.encode() if isinstance(content, str) else content)
        return path

    def ctl(self, *words, **kwargs):
        """Runs convoyctl; the finished process with text of both streams."""
        kwargs.setdefault("timeout", CAP_S)
        return subprocess.run([CONVOYCTL, *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, **kwargs)

    def ctl_ok(self, *words, **kwargs):
        """The same for a call that must succeed; what it printed."""
        done = self.ctl(*words, **kwargs)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def config(self, cuts=tuple(CUTS), model=RESNET, extra="", name="convoy.yaml"):
        """Writes a configuration with a stage for each cut and one more, on free ports; (path, [(node, address)])."""
        nodes = [f"pi-{letter}" for letter in "abcdefgh"[:len(cuts) + 1]]
        stages = [(node, f"127.0.0.1:{port}") for node, port in zip(nodes, free_ports(len(nodes)))]
        return self.write_config(stages, cuts, model, extra, name), stages

    def write_config(self, stages, cuts, model=RESNET, extra="", name="convoy.yaml"):
        rows = []
        for (node, address), until in zip(stages, [*cuts, None]):
            rows.append(f"  - {{node: {node}, address: '{address}'" + (f", until: '{until}'" if until else "") + "}\n")
        return self.write(name, f"model: {model}\n{extra}pipeline:\n{''.join(rows)}")

    def start_line(self, cuts=tuple(CUTS), **kwargs):
        """A line that is up: a line.Line, with .to the ingress' address. Stopped at the end; must end cleanly."""
        path, stages = self.config(cuts, **kwargs)
        daemons = line.Line(path, stages, self.path("logs"), lambda text: None)
        daemons.to = stages[0][1]
        self.addCleanup(self.stop_line, daemons)
        daemons.start(CAP_S)
        return daemons

    def stop_line(self, daemons):
        if not daemons.stop():
            self.fail("a daemon did not end cleanly:\n" + self.logs(daemons))

    def logs(self, daemons):
        text = ""
        for node, _ in daemons.stages:
            log = self.path("logs", f"{node}.log")
            if os.path.exists(log):
                with open(log, encoding="utf-8", errors="replace") as file:
                    text += "".join(f"{node} | {row}" for row in file)
        return text

    def wait_until(self, condition, what):
        deadline = time.monotonic() + CAP_S
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"not in {CAP_S} s: {what}")
            time.sleep(0.02)

    def pictures(self, count):
        """A folder with the first pictures of Fashion-MNIST's test set, as PGM files."""
        folder = self.path("pictures")
        fashion.write_pictures(folder, count)
        return folder


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number, value):
    """A protobuf field: a varint or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def memory_kib(pid, field="VmRSS"):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        return int(re.search(rf"{field}:\s+(\d+) kB", status.read())[1])
