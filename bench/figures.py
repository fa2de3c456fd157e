"""The bench's arithmetic: from the times of turns to the figures that are printed, and how they are written."""
import json
import math
import os
import re
import statistics

# The keys of a row of speed.json, in this order.
SPEED_FIELDS = ("model", "engine", "version", "threads", "median_ms", "min_ms", "gflops", "peak_rss_kb", "share_of_peak", "runs")


def quantile(values, share):
    """The value below which `share` of all lie, between neighbours on a straight line."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def mean(values):
    return statistics.fmean(values)


def geometric_mean(values):
    return math.exp(statistics.fmean(math.log(value) for value in values))


class Contender:
    """One engine with one number of threads on one model: the times of its turns, in milliseconds, pass by pass."""

    def __init__(self, engine, version, threads):
        self.engine = engine
        self.version = version
        self.threads = threads
        self.passes = []  # [pass][turn][run]
        self.peak_kb = 0

    def begin_pass(self):
        self.passes.append([])

    def add_turn(self, runs_ms):
        if not runs_ms:
            raise ValueError("a turn without a run")
        self.passes[-1].append(list(runs_ms))

    def turn_medians(self):
        """The median of each turn, over all passes."""
        return [statistics.median(turn) for turns in self.passes for turn in turns]

    def median_ms(self):
        return statistics.median(self.turn_medians())

    def min_ms(self):
        return min(run for turns in self.passes for turn in turns for run in turn)

    def runs(self):
        return sum(len(turn) for turns in self.passes for turn in turns)


def compare(ours, theirs):
    """Our time over theirs, turn by turn of the same round: {ratio, low, high, passes}. The ratio is the median over all rounds,
    low and high their tenth and ninetieth hundredth, passes the median of each pass alone."""
    passes = []
    for mine, other in zip(ours.passes, theirs.passes):
        if len(mine) != len(other):
            raise ValueError("two engines did not have the same rounds")
        passes.append([statistics.median(a) / statistics.median(b) for a, b in zip(mine, other)])
    ratios = [ratio for rounds in passes for ratio in rounds]
    return {"ratio": statistics.median(ratios), "low": quantile(ratios, 0.1), "high": quantile(ratios, 0.9),
            "passes": [statistics.median(rounds) for rounds in passes]}


def speed_row(model, contender, macs, peak_gflops):
    """A row of speed.json. peak_gflops: the machine's, measured with as many threads."""
    gflops = 2e-6 * macs / contender.median_ms()
    row = (model, contender.engine, contender.version, contender.threads, round(contender.median_ms(), 4),
           round(contender.min_ms(), 4), round(gflops, 3), contender.peak_kb, round(gflops / peak_gflops, 4), contender.runs())
    return dict(zip(SPEED_FIELDS, row))


def max_relative_difference(ours, theirs):
    """The largest difference of two lists of arrays over the largest magnitude of the array that it is in. An array is compared
    with the one of theirs that has as many elements and is nearest: engines order their outputs in their own way. Infinite
    where there is none, or where a number is no number."""
    worst = 0.0
    for array in ours:
        nearest = math.inf
        for other in theirs:
            if other.size == array.size and array.size:
                magnitude = float(abs(other).max())
                difference = float(abs(array - other).max())
                if math.isfinite(difference) and math.isfinite(magnitude):
                    nearest = min(nearest, difference / magnitude if magnitude > 0 else difference)
        worst = max(worst, nearest)
    return worst


def summary(ratios, peer):
    """Of the comparisons {model, threads, peer, ratio, ...} with one peer at one thread: (geometric mean, worst model, its ratio);
    None without any."""
    rows = [row for row in ratios if row["peer"] == peer]
    if not rows:
        return None
    worst = max(rows, key=lambda row: row["ratio"])
    return geometric_mean(row["ratio"] for row in rows), worst["model"], worst["ratio"]


def best_peer_mean(ratios):
    """The geometric mean of our time over that of each model's fastest peer; None without any peer."""
    models = {}
    for row in ratios:
        models[row["model"]] = max(models.get(row["model"], 0), row["ratio"])
    return geometric_mean(models.values()) if models else None


def bound_fps(plan, fps_one):
    """What the cuts of a plan (`convoyctl plan --json`) allow, on devices of which the first one alone was measured to make
    fps_one: computing is as fast as that says, links as fast as the plan was told."""
    if plan["bottleneck"]["resource"] != "compute":
        return plan["fps"]
    return plan["fps"] * fps_one / plan["one_fps"]


def text_table(headings, rows):
    """Lines of text; a heading that begins with '>' is of a column set to the right."""
    cells = [[heading.lstrip(">") for heading in headings], *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headings))]
    right = [heading.startswith(">") for heading in headings]
    return ["  ".join(cell.rjust(width) if to_right else cell.ljust(width)
                      for cell, width, to_right in zip(row, widths, right)).rstrip() for row in cells]


def markdown_table(headings, rows):
    rule = ["---:" if heading.startswith(">") else "---" for heading in headings]
    return ["| " + " | ".join(row) + " |" for row in ([heading.lstrip(">") for heading in headings], rule, *rows)]


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.write("\n")


def replace_section(path, name, lines):
    """Puts lines between the marks `<!-- name: begin -->` and `<!-- name: end -->` of a Markdown file that has them."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    with open(path, encoding="utf-8") as file:
        head, found, rest = file.read().partition(begin)
    _, also_found, tail = rest.partition(end)
    if not found or not also_found:
        raise ValueError(f"{path} has no section '{name}'")
    with open(path, "w", encoding="utf-8") as file:
        file.write(head + begin + "\n" + "\n".join(lines) + "\n\n" + end + tail)


def cpu_name():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = re.findall(r"(?m)^(?:model name|Model)\s*:\s*(.*)$", file.read())
    return names[0] if names else os.uname().machine
