#!/usr/bin/python3
"""The bench: its arithmetic, how it talks to an engine, the form of what it writes. Nothing here depends on a time."""
import glob
import json
import math
import os
import signal
import subprocess
import sys
import unittest

import numpy

import harness

BENCH = os.path.join(harness.ROOT, "bench")
sys.path.insert(0, BENCH)
import emulation  # noqa: E402
import figures  # noqa: E402
import moves  # noqa: E402
from engine import Engine, EngineError  # noqa: E402

ENGINE = [os.path.join(os.path.dirname(harness.CONVOYCTL), "bench", "engine-convoy")]
SHAPE = (1, 1, 28, 28)


def contender(passes, threads=1, engine="Convoy"):
    made = figures.Contender(engine, "1", threads)
    for turns in passes:
        made.begin_pass()
        for turn in turns:
            made.add_turn(turn)
    return made


class Moves(harness.Case):
    def feed(self, *times):
        made = moves.Feed.__new__(moves.Feed)  # without a connection
        made.results = [(when, 0.01) for when in times]
        return made

    def test_frames_per_second_count_between_results(self):
        feed = self.feed(0, 1, 1.5, 2, 2.5, 9)
        self.assertAlmostEqual(feed.fps(1, 3), 2)
        self.assertEqual(feed.fps(3, 8), 0)

    def test_the_longest_gap_lies_between_two_results(self):
        feed = self.feed(0, 1, 1.5, 2, 5)
        self.assertEqual(feed.longest_gap(1, 2), (0.5, 1.5))
        self.assertEqual(feed.longest_gap(0, 9), (3, 2))
        self.assertEqual(feed.longest_gap(3, 4), (math.inf, 3))

    def test_devices_are_spread_so_that_no_core_has_more_than_it_must(self):
        self.assertEqual(emulation.spread([1, 1, 1, 1], 2), ([0, 1, 0, 1], 2))
        self.assertEqual(emulation.spread([1, 0.5, 0.25], 2), ([0, 1, 1], 1))
        self.assertEqual(emulation.spread([1, 1, 1], 2), ([0, 1, 0], 2))
        self.assertEqual(emulation.spread([1], 4), ([0], 1))

    def test_a_length_is_written_as_protobuf_does(self):
        self.assertEqual([moves.varint(number) for number in (0, 127, 128, 300)], [b"\0", b"\x7f", b"\x80\x01", b"\xac\x02"])


class Figures(harness.Case):
    def test_a_quantile_lies_between_its_neighbours(self):
        self.assertEqual(figures.quantile([3, 1, 2], 0.5), 2)
        self.assertEqual(figures.quantile([10, 20], 0.25), 12.5)
        self.assertEqual(figures.quantile([7], 0.9), 7)
        self.assertEqual(figures.quantile([1, 2, 3], 1), 3)

    def test_a_geometric_mean_halves_and_doubles_to_one(self):
        self.assertAlmostEqual(figures.geometric_mean([0.5, 2]), 1)
        self.assertAlmostEqual(figures.geometric_mean([0.25]), 0.25)

    def test_an_engine_is_judged_by_the_median_over_its_turns(self):
        engine = contender([[[10, 11, 90], [20]], [[12, 14]]])
        self.assertEqual(engine.turn_medians(), [11, 20, 13])
        self.assertEqual((engine.median_ms(), engine.min_ms(), engine.runs()), (13, 10, 6))

    def test_a_turn_without_a_run_is_refused(self):
        with self.assertRaises(ValueError):
            contender([[[]]])

    def test_a_ratio_is_taken_within_a_round(self):
        # The machine is ten times slower in the second round: the ratio stays.
        ours, theirs = contender([[[1], [10]], [[3]]]), contender([[[2], [20]], [[4]]])
        compared = figures.compare(ours, theirs)
        self.assertEqual((compared["ratio"], compared["passes"]), (0.5, [0.5, 0.75]))
        self.assertTrue(compared["low"] <= 0.5 <= compared["high"] < 0.75)

    def test_engines_with_other_rounds_cannot_be_compared(self):
        with self.assertRaises(ValueError):
            figures.compare(contender([[[1], [1]]]), contender([[[1]]]))

    def test_a_row_of_speed_json_has_its_fields_in_order(self):
        engine = contender([[[2], [4]]], threads=2)
        engine.peak_kb = 1234
        row = figures.speed_row("net", engine, 3e9, 100)
        self.assertEqual(list(row), ["model", "engine", "version", "threads", "median_ms", "min_ms", "gflops", "peak_rss_kb",
                                     "share_of_peak", "runs"])
        self.assertEqual(list(row.values()), ["net", "Convoy", "1", 2, 3, 2, 2000, 1234, 20, 2])

    def test_outputs_are_compared_with_the_nearest_of_their_size(self):
        a, b = numpy.array([1.0, -4.0]), numpy.array([2.0, 2.0])
        self.assertEqual(figures.max_relative_difference([a, b], [b, a]), 0)
        self.assertEqual(figures.max_relative_difference([a], [numpy.array([1.0, -5.0])]), 0.2)
        self.assertEqual(figures.max_relative_difference([a], [numpy.zeros(3)]), math.inf)
        self.assertEqual(figures.max_relative_difference([numpy.array([1, math.nan])], [a]), math.inf)
        self.assertEqual(figures.max_relative_difference([numpy.zeros(2)], [numpy.zeros(2)]), 0)

    def test_a_summary_names_the_worst_model_and_the_best_peer_counts(self):
        rows = [{"model": "a", "peer": "x", "ratio": 0.5}, {"model": "b", "peer": "x", "ratio": 2.0},
                {"model": "a", "peer": "y", "ratio": 1.0}]
        mean, worst, ratio = figures.summary(rows, "x")
        self.assertAlmostEqual(mean, 1)
        self.assertEqual((worst, ratio), ("b", 2.0))
        self.assertAlmostEqual(figures.best_peer_mean(rows), math.sqrt(2))
        self.assertIsNone(figures.summary(rows, "z"))
        self.assertIsNone(figures.best_peer_mean([]))

    def test_a_bound_follows_the_measured_device_unless_a_link_is_the_limit(self):
        plan = {"fps": 30, "one_fps": 10, "bottleneck": {"stage": 0, "resource": "compute"}}
        self.assertEqual(figures.bound_fps(plan, 12), 36)
        plan["bottleneck"]["resource"] = "send"
        self.assertEqual(figures.bound_fps(plan, 12), 30)

    def test_a_section_of_a_document_is_replaced_whole(self):
        path = self.write("doc.md", "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n")
        figures.replace_section(path, "x", ["new"])
        figures.replace_section(path, "x", ["newer", "newest"])
        with open(path, encoding="utf-8") as file:
            self.assertEqual(file.read(), "a\n<!-- x: begin -->\n\nnewer\nnewest\n\n<!-- x: end -->\nb\n")
        with self.assertRaisesRegex(ValueError, "no section 'y'"):
            figures.replace_section(path, "y", [])

    def test_tables_are_aligned(self):
        self.assertEqual(figures.text_table(["a", ">ms"], [["long", "1"], ["b", "100"]]), ["a      ms", "long    1", "b     100"])
        self.assertEqual(figures.markdown_table(["a", ">ms"], [["b", "1"]]), ["| a | ms |", "| --- | ---: |", "| b | 1 |"])


class Engines(harness.Case):
    def picture(self):
        numbers = numpy.random.default_rng(7).random(SHAPE, dtype=numpy.float32)
        path = self.path("input")
        numbers.tofile(path)
        numpy.save(self.path("input.npy"), numbers)
        return path

    def start(self, model, source=None, dims=SHAPE):
        return Engine(ENGINE, os.sched_getaffinity(0), model, 1, (source or self.picture(), dims), self.path("log"))

    def test_an_engine_computes_what_convoyctl_computes(self):
        engine = self.start(harness.RESNET)
        self.addCleanup(engine.close)
        self.assertEqual(engine.name, "Convoy")
        self.assertEqual(len(engine.run(3)), 3)
        self.assertGreater(engine.peak_kb(), 0)
        files = engine.save(self.path("output"))
        self.ctl_ok("run", harness.RESNET, "--tensor", self.path("input.npy"), "--out", self.path("npy"))
        name, = os.listdir(self.path("npy"))
        expected = numpy.load(self.path("npy", name))
        self.assertEqual(len(files), 1)
        self.assertEqual(numpy.fromfile(files[0], dtype=numpy.float32).tobytes(), expected.tobytes())

    def test_an_engine_that_cannot_load_a_model_says_why(self):
        with self.assertRaisesRegex(EngineError, "nothing.onnx"):
            self.start(self.path("nothing.onnx"))

    def test_an_input_that_is_too_short_is_an_error(self):
        with self.assertRaisesRegex(EngineError, "12 bytes, not 3136"):
            self.start(harness.RESNET, self.write("short", b"123456789012"))

    def test_an_engine_that_dies_is_an_error(self):
        with self.assertRaisesRegex(EngineError, "exit code 1"):
            Engine(["false"], os.sched_getaffinity(0), harness.RESNET, 1, (self.picture(), SHAPE), self.path("log"))


class Speed(harness.Case):
    def speed(self, *words):
        return subprocess.run([os.path.join(BENCH, "speed"), "--engines", "convoy", "--threads", "1", "--rounds", "2", "--passes",
                               "1", "--turn-ms", "1", "--out", self.path("out"), *words], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=harness.CAP_S)

    def test_it_writes_a_row_for_each_engine(self):
        done = self.speed("--models", harness.RESNET, "--lock", self.path("lock"))
        self.assertEqual(done.returncode, 0, done.stdout)
        with open(self.path("out", "speed.json"), encoding="utf-8") as file:
            row, = json.load(file)
        self.assertEqual(tuple(row), figures.SPEED_FIELDS)
        self.assertEqual((row["model"], row["engine"], row["threads"]), ("fmnist_resnet", "Convoy", 1))
        self.assertIn("fmnist_resnet", done.stdout)

    def test_a_model_that_is_not_there_is_left_out_by_name(self):
        done = self.speed("--models", self.path("nothing.onnx"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("nothing.onnx is left out", done.stdout)

    def test_an_unknown_engine_is_refused(self):
        done = self.speed("--engines", "convoy,steam")
        self.assertEqual(done.returncode, 2)
        self.assertIn("no engine 'steam'", done.stdout)


def can_emulate():
    """Whether namespaces and CPU groups can be made here."""
    try:
        with emulation.Emulation([1], 0.5, 100, sorted(os.sched_getaffinity(0))):
            return True
    except (emulation.EmulationError, OSError):
        return False


@unittest.skipUnless(os.geteuid() == 0 and can_emulate(), "needs root, network namespaces and CPU control groups")
class Cluster(harness.Case):
    def assert_nothing_left(self, pid):
        left = [name for name in os.listdir("/run/netns") if name.startswith(f"convoy-bench-{pid}")] if os.path.isdir(
            "/run/netns") else []
        self.assertEqual(left + glob.glob(f"/sys/fs/cgroup/convoy-bench-{pid}") + glob.glob(f"/sys/fs/cgroup/cpu/convoy-bench-{pid}"),
                         [])

    def cluster(self, *words):
        return subprocess.Popen([os.path.join(BENCH, "cluster"), "--models", harness.RESNET, "--devices", "2", "--mbit", "100",
                                 "--rounds", "1", "--seconds", "0.1", "--unequal", "", "--moves", "none", "--out", self.path("out"), *words],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def test_devices_see_each_other_and_leave_nothing_behind(self):
        with emulation.Emulation([1, 0.5], 0.4, 100, sorted(os.sched_getaffinity(0))) as made:
            one, two = made.devices
            done = one.beside(["ip", "-json", "address", "show", "eth0"], stdout=subprocess.PIPE, text=True, check=True)
            self.assertIn(one.address, done.stdout)
            self.assertGreater(made.link_rate(0.01), 0)
            sleeper = two.spawn(["sleep", "1000"])
            self.assertIsNone(sleeper.poll())
        self.assertIsNotNone(sleeper.poll())
        self.assert_nothing_left(os.getpid())

    def test_an_emulation_that_cannot_be_made_leaves_nothing_behind(self):
        taken = f"convoy-bench-{os.getpid()}-1"
        subprocess.run(["ip", "netns", "add", taken], check=True)
        try:
            with self.assertRaisesRegex(emulation.EmulationError, taken):
                emulation.Emulation([1, 1], 0.4, 100, sorted(os.sched_getaffinity(0)))
        finally:
            subprocess.run(["ip", "netns", "del", taken], check=True)
        self.assert_nothing_left(os.getpid())

    def test_a_line_is_measured_and_gives_one_devices_results(self):
        bench = self.cluster()
        out, _ = bench.communicate(timeout=harness.CAP_S)
        self.assertEqual(bench.returncode, 0, out)
        with open(self.path("out", "cluster.json"), encoding="utf-8") as file:
            row, = json.load(file)
        self.assertEqual(list(row), ["model", "devices", "speeds", "link_mbit", "fps", "fps_one", "speedup", "bound_fps", "ideal_fps",
                                     "share_of_bound", "p50_ms", "p99_ms", "identical"])
        self.assertEqual((row["devices"], row["speeds"], row["link_mbit"], row["identical"]), (2, [1, 1], 100, True))
        self.assert_nothing_left(bench.pid)

    def test_an_interrupt_takes_everything_down(self):
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 1)):
            bench = self.cluster("--seconds", "30")
            while "carries" not in bench.stdout.readline():
                self.assertIsNone(bench.poll())
            bench.send_signal(number)
            bench.communicate(timeout=harness.CAP_S)
            self.assertEqual(bench.returncode, code)
            self.assert_nothing_left(bench.pid)

    def test_what_a_killed_one_has_left_is_swept_up_by_the_next(self):
        bench = self.cluster("--seconds", "30")
        while "carries" not in bench.stdout.readline():
            self.assertIsNone(bench.poll())
        bench.kill()
        bench.communicate(timeout=harness.CAP_S)
        emulation.sweep()
        self.assert_nothing_left(bench.pid)


if __name__ == "__main__":
    harness.main()
