"""What benches share: a host that counts instructions, what it has spent, guests on it, and how figures are shown."""
import os
import select
import statistics
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("HULL_BUILD", TOP / "build")).resolve()
MEMORY = Path("/dev/shm")  # what is measured lies here
STALLS_MAX = 10
STOOD_STILL = (subprocess.TimeoutExpired, TimeoutError)  # of a process, or of an answer
DEBUG = Path("/sys/kernel/debug")


def on_counted_host(arguments, timeout):
    """Runs `arguments` where one instruction is one nanosecond. Its exit status."""
    os.environ["HULL_BUILD"] = str(BUILD)
    return subprocess.run([TOP / "tools/kvmhost", "run", "-i", "-m", "3072", "-t", str(timeout), "--", *arguments]).returncode


def is_counted_host():
    return os.environ.get("KVMHOST") == "1"


def prepare_counted_host():
    if not (DEBUG / "kvm").exists():
        subprocess.run(["mount", "-t", "debugfs", "debugfs", DEBUG], check=True)


def first_line(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def versions(*more, guest=BUILD / "guest"):
    """What the figures depend on, one a line; `guest` is the folder of its kernel."""
    return [f"host kernel {os.uname().release}", f"guest kernel {(guest / 'release').read_text().strip()}",
            *(first_line(*command) for command in (("qemu-system-x86_64", "--version"), ("cc", "--version"), *more))]


# ---- what was spent ------------------------------------------------------------------------------------------------

def spent():
    """(instructions of all tasks, guests' exits to the kernel) so far. The first is the seventh figure of a processor's line, in
    nanoseconds; idling is no task's."""
    (line,) = (line for line in Path("/proc/schedstat").read_text().splitlines() if line.startswith("cpu0 "))
    return int(line.split()[7]), int((DEBUG / "kvm/exits").read_text())


# ---- guests --------------------------------------------------------------------------------------------------------

class Guest:
    """A monitor and its guest, which does what its console says, line by line, and answers each with a line `guest: ...`."""

    def __init__(self, command):
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.output = b""
        try:
            self.answer(60)
        except BaseException:
            self.close()
            raise

    def answer(self, timeout=120):
        """The next `guest: ` line's rest. TimeoutError when the guest says nothing for that many seconds."""
        while True:
            line, end, rest = self.output.partition(b"\n")
            if end:
                self.output = rest
                _, mark, text = line.decode(errors="replace").rstrip().partition("guest: ")
                if mark:
                    return text
                continue
            ready, _, _ = select.select([self.process.stdout], [], [], timeout)
            if not ready:
                raise TimeoutError(f"the guest is silent; at last: {self.output.decode(errors='replace')!r}")
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                raise RuntimeError(f"the guest said nothing more; at last: {self.output.decode(errors='replace')!r}")
            if os.environ.get("HULL_BENCH_CONSOLE"):
                os.write(2, more)
            self.output += more

    def send(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


# ---- runs -----------------------------------------------------------------------------------------------------------

def repeat(name, n, once):
    """What `once` gives, `n` times, and how often a guest stood still."""
    results, stalls = [], 0
    while len(results) < n:
        try:
            results.append(once())
        except STOOD_STILL:
            stalls += 1
            if stalls > STALLS_MAX:
                raise RuntimeError(f"{name}: {stalls} guests stood still") from None
        print(f"{name}: run {len(results)} of {n}" + (f", {stalls} stood still" if stalls else ""), file=sys.stderr, flush=True)
    return results, stalls


# ---- figures -------------------------------------------------------------------------------------------------------

def figure(values):
    """The median, and how far the others lie from it."""
    middle = statistics.median(values)
    spread = max(abs(value - middle) for value in values)
    return f"{middle:,.{0 if middle >= 100 else 2}f} ±{100 * spread / middle:.1f}%"


def ratio(values, others):
    return f"{statistics.median(values) / statistics.median(others):.2f}"


def table(head, rows):
    """Lines, the first column to the left and the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return ["  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                      for i, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in [head, *rows]]
