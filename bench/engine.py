"""Engines of the bench, each in a process of its own that stays resident and sleeps when it is not its turn.

An engine is a program: PROGRAM... MODEL THREADS INPUT DIM,DIM,... INPUT holds float32 numbers, one frame. It loads the model,
runs one frame and answers with one line of JSON: {"engine", "version", "base_kb"}, base_kb being resident memory that is not the
engine's (a language's runtime), or {"error"}. Then it answers each line of its input with one line:

    run N       {"ns": [N times of one frame, input and output in memory]}
    save PATH   {"files": [outputs of the last frame as float32 numbers, PATH.0, PATH.1, ...]}
    memory      {"peak_kb": VmHWM}

It ends when its input does."""
import contextlib
import fcntl
import json
import os
import subprocess


@contextlib.contextmanager
def going_first():
    """Meanwhile this session comes before others on every core, where we may say so. Where the kernel groups processes by session
    (sched_autogroup_enabled) nice does nothing between two of them: a build in the next terminal takes half of the core."""
    path = "/proc/self/autogroup"
    before = None
    with contextlib.suppress(OSError, ValueError):
        with open(path, encoding="ascii") as file:
            before = int(file.read().split()[-1])
        with open(path, "w", encoding="ascii") as file:
            file.write("-20")
    try:
        yield
    finally:
        if before is not None:
            with contextlib.suppress(OSError), open(path, "w", encoding="ascii") as file:
                file.write(str(before))


@contextlib.contextmanager
def locked(path):
    """Meanwhile the file is locked: others who measure on this machine wait. Nothing without a path."""
    if not path:
        yield
        return
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class EngineError(Exception):
    """What an engine said, or that it died."""


class Engine:
    def __init__(self, program, cpus, model, threads, source, log):
        """program: words. cpus: where its threads may run. source: (path of the input, its dims)."""
        path, dims = source
        words = [*program, model, str(threads), path, ",".join(map(str, dims))]
        with open(log, "wb") as errors:
            self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                                            preexec_fn=lambda: os.sched_setaffinity(0, cpus))
        try:
            hello = self.read()
        except EngineError:
            self.close()
            raise
        self.name, self.version, self.base_kb = hello["engine"], hello["version"], hello["base_kb"]

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise EngineError(f"ended with exit code {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise EngineError(" ".join(answer["error"].split()))
        return answer

    def ask(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.read()

    def run(self, frames):
        """Times in milliseconds."""
        return [ns / 1e6 for ns in self.ask(f"run {frames}")["ns"]]

    def save(self, path):
        return self.ask(f"save {path}")["files"]

    def peak_kb(self):
        return self.ask("memory")["peak_kb"] - self.base_kb

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
