"""A program of a host that counts instructions, from its exec until it is gone, and what the host's kernel traced meanwhile."""
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness import MEMORY, TOP

TRACING = Path("/sys/kernel/tracing")
KVM_RUN = 0xae80  # an ioctl
MARK_PORT = 0x4b4d  # hello.c


@dataclass(frozen=True)
class Event:
    at: float  # ms
    task: str  # NAME-PID
    name: str
    text: str


def events(trace):
    """Of a trace as the kernel prints it, with its clock `mono`."""
    line = re.compile(r"\s*(\S.*-\d+)\s+\[\d+\]\s+\S+\s+(\d+\.\d+): (\w+)(?:: |)(.*)")
    return [Event(float(match[2]) * 1000, match[1], match[3], match[4]) for match in map(line.match, trace.splitlines()) if match]


def set_event(name, on="1", rule=None):
    folder = TRACING / "events" / name
    if rule:
        (folder / "filter").write_text(rule)
    (folder / "enable").write_text(on)


def prepare():
    if not (TRACING / "events").exists():
        subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACING], check=True)
    (TRACING / "trace_clock").write_text("mono")
    (TRACING / "buffer_size_kb").write_text("16384")


def prepare_root(root):
    """The host's root comes from afar, and is asked anew at the beginning of each path: what is measured has one in memory."""
    root.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root], check=True)
    for name in ("dev", "proc", "sys", "tmp", "usr"):
        (root / name).mkdir()
        subprocess.run(["mount", "--rbind", f"/{name}", root / name], check=True)
    (root / "etc").mkdir()
    for name in ("group", "ld.so.cache", "localtime", "nsswitch.conf", "passwd"):  # the C library reads these of its own accord
        if (Path("/etc") / name).exists():
            shutil.copy(Path("/etc") / name, root / "etc")
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")


def make_programs(folder):
    """launch and hello, made outside of the host, where it is quick."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", "-O2", "-o", folder / "launch", TOP / "benches/launch.c"], check=True)
    subprocess.run(["cc", "-static", "-nostdlib", "-nostartfiles", "-ffreestanding", "-fno-stack-protector", "-O2", "-s",
                    "-o", folder / "hello", TOP / "benches/hello.c"], check=True)


@dataclass(frozen=True)
class Launch:
    began_ns: int  # of CLOCK_MONOTONIC
    ended_ns: int
    status: int
    events: list
    output: str
    errors: str


def launch(command, root, timeout):
    """Runs it with `root` as its root. TimeoutExpired when that takes longer than `timeout` seconds; launch, which lies in MEMORY,
    takes it along."""
    output = MEMORY / "console"
    (TRACING / "trace").write_text("")
    (TRACING / "tracing_on").write_text("1")
    words = [MEMORY / "launch", output, root, *command]
    result = subprocess.run(list(map(str, words)), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    (TRACING / "tracing_on").write_text("0")  # the reader's own system calls would never let the trace end
    try:
        began, ended, status = map(int, result.stdout.split()[-3:])
    except ValueError:
        raise RuntimeError(f"{command[0]}: {result.stderr or result.stdout}") from None
    return Launch(began, ended, status, events((TRACING / "trace").read_text()), output.read_text(errors="replace"),
                  result.stderr)
