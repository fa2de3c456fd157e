"""Small devices on one machine: each a network namespace on a switch, with a link of a given rate, and a CPU group with a quota.

    device 0 --veth, tbf-- switch --veth, tbf-- device 1 ...

The switch is a bridge in a namespace of its own. Both ends of each cable are shaped, so a cable is full duplex and a device can
send and receive at its rate at once. A device's processes run on one core, at most quota x speed of it: short periods, so that
it looks like a slower core and not like one that comes and goes. Needs root. Everything that is made carries this process'
id in its name, and is removed by close(), also after a part of it failed."""
import contextlib
import ctypes
import errno
import glob
import multiprocessing
import os
import signal
import socket
import subprocess
import time

PERIOD_US = 5000      # of the quota
QUOTA_MIN_US = 1000   # the kernel's own limit
WEIGHT = 100          # of all devices together, against a group of others, on each core
SUBNET = "10.77.0"    # of the emulated network
BURST_BYTES = 72 << 10  # more than the largest segment that TCP hands down, 64 KiB, with the headers of all the packets that it is cut
                        # into: the shaper cuts up a larger one, and each packet then costs the device a timer of its own
BURST_S = 0.004         # and what the link carries until a late timer is served
QUEUE_S = 0.02        # what a switch port buffers
PR_SET_PDEATHSIG = 1


class EmulationError(Exception):
    """A sentence for the user."""


def command(*words):
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    if done.returncode != 0:
        raise EmulationError(f"{' '.join(map(str, words))}: {done.stdout.strip()}")
    return done.stdout


class Groups:
    """CPU control groups, of version 1 or 2 as the machine has them: one above all devices', with weight."""

    def __init__(self, name):
        self.v2 = not os.path.isdir("/sys/fs/cgroup/cpu")
        self.home = None  # where this process has come from
        self.root = os.path.join("/sys/fs/cgroup" if self.v2 else "/sys/fs/cgroup/cpu", name)
        try:
            if self.v2:
                self.put("/sys/fs/cgroup/cgroup.subtree_control", "+cpu")
            os.mkdir(self.root)
            if self.v2:
                self.put(os.path.join(self.root, "cgroup.subtree_control"), "+cpu")
                self.put(os.path.join(self.root, "cpu.weight"), 100 * WEIGHT)
            else:
                self.put(os.path.join(self.root, "cpu.shares"), 1024 * WEIGHT)
        except OSError as error:
            self.close()
            raise EmulationError(f"no CPU control group can be made in {os.path.dirname(self.root)}: {error}") from error

    @staticmethod
    def put(path, value):
        with open(path, "w", encoding="ascii") as file:
            file.write(str(value))

    def add(self, name):
        path = os.path.join(self.root, name)
        os.mkdir(path)
        return path

    def limit(self, path, share):
        """share: of one core; None: no limit. What a period leaves over, because others had the core, the next one may use."""
        period = max(PERIOD_US, round(QUOTA_MIN_US / share)) if share else PERIOD_US
        quota = round(share * period) if share else None
        if self.v2:
            self.put(os.path.join(path, "cpu.max.burst"), 0)
            self.put(os.path.join(path, "cpu.max"), f"{quota or 'max'} {period}")
            self.put(os.path.join(path, "cpu.max.burst"), quota or 0)
        else:
            self.put(os.path.join(path, "cpu.cfs_burst_us"), 0)
            self.put(os.path.join(path, "cpu.cfs_quota_us"), -1)
            self.put(os.path.join(path, "cpu.cfs_period_us"), period)
            self.put(os.path.join(path, "cpu.cfs_quota_us"), quota or -1)
            self.put(os.path.join(path, "cpu.cfs_burst_us"), quota or 0)

    def join(self, name):
        """This process, and what it starts from now on, goes into a group beside the devices', without a limit: who feeds a line must
        not wait for what else runs on this machine."""
        with open("/proc/self/cgroup", encoding="ascii") as file:
            fields = [line.rstrip("\n").split(":", 2) for line in file]
        mine = [path for _, names, path in fields if ("cpu" in names.split(",") if not self.v2 else not names)]
        self.home = os.path.dirname(self.root) + (mine[0] if mine else "/")
        self.put(os.path.join(self.add(name), "cgroup.procs"), os.getpid())

    def close(self):
        if self.home:
            with contextlib.suppress(OSError):
                self.put(os.path.join(self.home, "cgroup.procs"), os.getpid())
        remove_group(self.root)


def remove_group(root):
    for path in [*glob.glob(os.path.join(root, "*", "")), root]:
        for _ in range(100):  # a process that has just ended may still count as a member
            try:
                os.rmdir(path)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    time.sleep(0.02)
                    continue
            break


def spread(speeds, cores):
    """A core for each device, one after the other where there is least to do yet: ([core of each], most of all cores' speeds)."""
    loads, places = [0.0] * cores, []
    for speed in speeds:
        places.append(loads.index(min(loads)))
        loads[places[-1]] += speed
    return places, max(loads)


class Device:
    """One emulated device. speed: 1 is a whole quota."""

    def __init__(self, emulation, index, speed, cpu):
        self.emulation = emulation
        self.index = index
        self.speed = speed
        self.space = f"{emulation.name}-{index}"
        self.address = f"{SUBNET}.{index + 1}"
        self.port = f"port{index}"
        self.cpu = cpu
        self.group = None
        self.mbit = None  # of its link; see shape()
        self.processes = []
        self.ballast = None

    def connect(self):
        switch = self.emulation.switch
        command("ip", "netns", "add", self.space)
        self.emulation.spaces.append(self.space)
        command("ip", "link", "add", "eth0", "netns", self.space, "type", "veth", "peer", "name", self.port, "netns", switch)
        command("ip", "-n", switch, "link", "set", self.port, "master", "switch", "up")
        command("ip", "-n", self.space, "address", "add", f"{self.address}/24", "dev", "eth0")
        command("ip", "-n", self.space, "link", "set", "lo", "up")
        command("ip", "-n", self.space, "link", "set", "eth0", "up")
        self.group = self.emulation.groups.add(self.space)
        self.limit(True)
        self.start_ballast()

    def shape(self, mbit):
        self.mbit = mbit
        burst = max(BURST_BYTES, round(mbit * 1e6 / 8 * BURST_S))
        limit = burst + round(mbit * 1e6 / 8 * QUEUE_S)
        for space, link in ((self.space, "eth0"), (self.emulation.switch, self.port)):
            command("tc", "-n", space, "qdisc", "replace", "dev", link, "root", "tbf", "rate", f"{mbit}mbit", "burst", burst,
                    "limit", limit)

    def share(self):
        """Of one core."""
        return round(self.emulation.quota * self.speed, 6)

    def set_speed(self, speed):
        self.speed = speed
        self.limit(True)

    def limit(self, on):
        """Puts the quota in force, or lifts it (while a daemon prepares its model, say)."""
        self.emulation.groups.limit(self.group, self.share() if on else None)

    def enter(self):
        """In a child: ends with the parent, joins the CPU group, stays on the device's core."""
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        Groups.put(os.path.join(self.group, "cgroup.procs"), os.getpid())
        os.sched_setaffinity(0, [self.cpu])

    def enter_idle(self):
        self.enter()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # which also ends what is stopped
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    def start_ballast(self):
        """A loop without end that takes what the device's programs leave of its share of the core: otherwise one that rests between
        two frames would find its share saved up, and be faster than one that is busy. A slower core would not. See Emulation.wake()."""
        self.ballast = subprocess.Popen(["sh", "-c", "while :; do :; done"], stdin=subprocess.DEVNULL, preexec_fn=self.enter_idle,
                                        start_new_session=True)
        os.kill(self.ballast.pid, signal.SIGSTOP)

    def spawn(self, words, **kwargs):
        """Starts a process on the device, which sees its own control group; stop() ends it."""
        process = subprocess.Popen(["nsenter", f"--net=/run/netns/{self.space}", *words], stdin=subprocess.DEVNULL,
                                   preexec_fn=self.enter, start_new_session=True, **kwargs)
        self.processes.append(process)
        return process

    def beside(self, words, **kwargs):
        """Runs a program in the device's network but outside its CPU group: what measures must not slow what is measured."""
        return subprocess.run(["ip", "netns", "exec", self.space, *words], stdin=subprocess.DEVNULL, **kwargs)

    def run(self, words):
        """Runs a program on the device, to its end. Returns what it prints."""
        process = self.spawn(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, errors = process.communicate()
        self.processes.remove(process)
        if process.returncode != 0:
            raise EmulationError(f"{' '.join(words)}: {errors.strip()}")
        return out

    def sent_bytes(self):
        """What has left the device's port so far."""
        done = self.beside(["cat", "/sys/class/net/eth0/statistics/tx_bytes"], stdout=subprocess.PIPE, text=True)
        return int(done.stdout)

    def close(self):
        self.stop()
        if self.ballast:
            self.ballast.kill()
            self.ballast.wait()
        self.ballast = None

    def stop(self):
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes = []


class Emulation:
    """speeds: one per device. quota: of one core, for speed 1."""

    def __init__(self, speeds, quota, mbit, cpus):
        self.name = f"convoy-bench-{os.getpid()}"
        self.switch = f"{self.name}-switch"
        self.quota = quota
        self.cpus = cpus
        self.spaces = []
        self.groups = None
        self.devices = []
        self.message_cost = (0.0, 0.0)  # CPU time of a core: nanoseconds of a byte, microseconds of a message; who measures it sets it
        try:
            self.groups = Groups(self.name)
            self.groups.join("beside")
            command("ip", "netns", "add", self.switch)
            self.spaces.append(self.switch)
            command("ip", "-n", self.switch, "link", "add", "switch", "type", "bridge")
            command("ip", "-n", self.switch, "link", "set", "switch", "up")
            places, _ = spread(speeds, len(cpus))
            for index, speed in enumerate(speeds):
                device = Device(self, index, speed, cpus[places[index]])
                self.devices.append(device)
                device.connect()
            self.shape(mbit)
        except BaseException:
            self.close()
            raise

    def shape(self, mbit):
        self.mbit = mbit
        for device in self.devices:
            device.shape(mbit)

    def wake(self, devices):
        """Only these use their share of the cores from now on, whether they have something to do or not."""
        for device in self.devices:
            if device.ballast:
                os.kill(device.ballast.pid, signal.SIGCONT if device in devices else signal.SIGSTOP)

    def stop(self):
        self.wake([])
        for device in self.devices:
            device.stop()

    def close(self):
        for device in self.devices:
            device.close()
        for space in self.spaces:
            subprocess.run(["ip", "netns", "del", space], stderr=subprocess.DEVNULL)
        self.spaces = []
        if self.groups:
            self.groups.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- is it what it says? ----

    def cpu_shares(self, devices, seconds):
        """What a loop without end gets on each of devices while it runs on all of them: shares of one core."""
        spins = [device.spawn(["sh", "-c", "while :; do :; done"]) for device in devices]
        try:
            time.sleep(0.2)  # the first period is a whole one
            before = [cpu_seconds(spin.pid) for spin in spins]
            begin = time.monotonic()
            time.sleep(seconds)
            used = [cpu_seconds(spin.pid) - start for spin, start in zip(spins, before)]
            return [value / (time.monotonic() - begin) for value in used]
        finally:
            self.stop()

    def link_rate(self, seconds):
        """Mbit/s of payload from the first device to the last one over TCP, by a transfer of about so many seconds."""
        size = round(self.mbit * 1e6 / 8 * seconds)
        with in_space(self.devices[-1].space):
            listener = socket.create_server((self.devices[-1].address, 0))
        sender = multiprocessing.Process(target=send_zeros, args=(self.devices[0].space, listener.getsockname(), size), daemon=True)
        sender.start()
        with listener, listener.accept()[0] as connection:
            got, begin, first = 0, None, 0
            while got < size:
                part = len(connection.recv(1 << 20))
                if part == 0:
                    break
                got += part
                if begin is None and got >= size // 4:  # TCP has found the rate, and what the bucket had saved is spent
                    begin, first = time.monotonic(), got
            elapsed = time.monotonic() - begin
        sender.join()
        return (got - first) * 8 / elapsed / 1e6


def sweep():
    """Removes what earlier processes could not, because they were killed outright."""
    names = {name.split("-")[2] for name in os.listdir("/run/netns") if name.startswith("convoy-bench-")} if os.path.isdir(
        "/run/netns") else set()
    groups = glob.glob("/sys/fs/cgroup/convoy-bench-*") + glob.glob("/sys/fs/cgroup/cpu/convoy-bench-*")
    for pid in names | {os.path.basename(path).split("-")[2] for path in groups}:
        if pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            for space in os.listdir("/run/netns") if os.path.isdir("/run/netns") else []:
                if space.startswith(f"convoy-bench-{pid}-"):
                    subprocess.run(["ip", "netns", "del", space], stderr=subprocess.DEVNULL)
            for path in groups:
                if os.path.basename(path) == f"convoy-bench-{pid}":
                    remove_group(path)


@contextlib.contextmanager
def in_space(space):
    """What this thread opens meanwhile belongs to that network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{space}", "rb") as there:
        if libc.setns(there.fileno(), 0) != 0:
            raise EmulationError(f"{space}: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            libc.setns(home.fileno(), 0)


def send_zeros(space, address, size):
    with in_space(space):
        connection = socket.create_connection(address[:2], 10)
    with connection:
        zeros = bytes(1 << 16)
        for at in range(0, size, len(zeros)):
            connection.sendall(zeros[:size - at])


def cpu_seconds(pid, thread="*"):
    """CPU time of all threads of a process, or of one, to the nanosecond."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/{thread}/schedstat"):
        with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total / 1e9
