#!/usr/bin/env python3
"""Runs every test and closes with `N passed, N failed, N skipped`.

Suites, in this order: the tree's own rules (tests/rules), the unit tests, the unit tests again under ASan and UBSan, and the
system tests: those that need no KVM, and those that do, inside tools/kvmhost. None is left out on a machine without
/dev/kvm. On request those with KVM run once more, on the tuned guest kernel (make guest-kernel).
"""
import argparse
import concurrent.futures
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
# They take a minute and more each, and are begun first: who is last has nobody beside.
LONGEST = ["test_vhost", "test_hulld_kvm", "test_suspend_kvm", "test_balloon", "test_leaks", "test_devices", "test_cpu", "test_guest", "test_pci", "test_vmm",
           "test_quickstart", "test_kvmhost", "test_bench_footprint", "test_exec_kvm", "test_memory", "test_gdb", "test_cli", "test_limits", "test_idle"]
# It changes the host that it is on for good.
LAST = ["test_package"]
NO_TESTS = 5  # pytest: none was selected


class Count:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []  # a line each, where there is more to say than how many

    def add(self, passed, failed, skipped=0, failures=()):
        self.passed += passed
        self.failed += failed
        self.skipped += skipped
        self.failures += failures

    def add_all(self, other):
        self.add(other.passed, other.failed, other.skipped, other.failures)


def processor_seconds():
    """Of all that has run and ended, whatever else this machine does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def call(command, **kwargs):
    print("$ " + " ".join(map(str, command)), flush=True)
    return subprocess.run(list(map(str, command)), **kwargs).returncode


def show_failures(folder):
    for log in sorted(folder.rglob("*.log")):
        text = log.read_text(errors="replace")
        result = log.with_suffix(".trs")
        if result.exists() and ":test-result: PASS" not in result.read_text() or "runtime error" in text:
            print(f"--- {log}\n{text}")


def unit_tests(build, count):
    """cmocka's own counts; a program that died without any counts as one failure."""
    status = call(["make", "-C", build, f"-j{os.cpu_count()}", "check"], stdout=subprocess.DEVNULL)
    programs = failed = 0
    for result in sorted((build / "tests").rglob("*.trs")):
        programs += 1
        text = result.with_suffix(".log").read_text(errors="replace")
        bad = sum(map(int, re.findall(r"\[  FAILED  \] (\d+) test\(s\)", text)))
        if not bad and ":test-result: PASS" not in result.read_text():
            bad = 1
        count.add(sum(map(int, re.findall(r"\[  PASSED  \] (\d+) test\(s\)", text))), bad, failures=[result.stem] if bad else [])
        failed += bad
    if not programs or (status and not failed):
        count.add(0, 1)
    if status:
        show_failures(build / "tests")


def sanitized_unit_tests(build, count):
    folder = build / "sanitized"
    folder.mkdir(exist_ok=True)
    log = folder / "configure-and-build.txt"
    with log.open("w") as out:
        configure = [TOP / "configure", "--enable-sanitizers", "--enable-werror", "--quiet", "CFLAGS=-g1 -O1"]  # lines, for reports
        for command in (configure, ["make", f"-j{os.cpu_count()}"]):
            if call(command, cwd=folder, stdout=out, stderr=out):
                print(log.read_text()[-4000:])
                count.add(0, 1)
                return
    unit_tests(folder, count)


def failed_cases(suite, name):
    """A line for each: the test, and the first line of why."""
    for case in suite.iter("testcase"):
        for why in [*case.iter("failure"), *case.iter("error")]:
            yield f"{name}::{case.get('name')[:100]}: {(why.get('message') or 'no reason').splitlines()[0][:200]}"


def pytest_results(name, report, status, count):
    if not report.exists():
        count.add(0, 1, failures=[f"{name}: no report: the run ended with status {status}"])
        return
    suite = xml.etree.ElementTree.parse(report).getroot().find("testsuite")
    tests, skipped = int(suite.get("tests")), int(suite.get("skipped"))
    failed = int(suite.get("failures")) + int(suite.get("errors"))
    count.add(tests - failed - skipped, failed, skipped, failed_cases(suite, name))
    if status and not failed:
        count.add(0, 1, failures=[f"{name}: no test failed, but the run ended with status {status}"])


def report(name, seconds, output, status, folder, count):
    print(f"\n-- {name}.py, {seconds} s\n{output}", flush=True)
    if status != NO_TESTS:
        pytest_results(name, folder / "report.xml", status, count)


interrupted = threading.Event()  # by Ctrl-C: nothing more is begun

HOST_DIED = 125  # kvmhost: the emulated host did not come up, or fell over; not what a test found
FILE_LIMIT_S = 1800
HOST_LIMIT_S = 4 * 3600


class Hosts:
    """Hosts with KVM, or this machine as it is, and the files of tests that wait for one. What hosts share is the folder `out`, which
    they have as $KVMHOST_OUT: who takes a file there renames it (in_host.py)."""

    def __init__(self, out, names, marks, extra, here=False):
        self.out, self.cwd = out, TOP if here else out.parent
        self.command = ["/usr/bin/python3", TOP / "tests" / "in_host.py", TOP / "tests" / "system", FILE_LIMIT_S, marks, *extra]
        if not here:
            self.command[:0] = [TOP / "tools" / "kvmhost", "run", "-m", 7168, "-t", HOST_LIMIT_S, "--"]
        for folder in ("queue", "taken"):
            shutil.rmtree(out / folder, ignore_errors=True)
            (out / folder).mkdir(parents=True)
        for i, name in enumerate(names):
            for file in ("output.txt", "report.xml"):
                (out / name / file).unlink(missing_ok=True)
            (out / "queue" / f"{i:02}-{name}").touch()

    def run(self, count):
        """One host after the other, until there is nothing to take: each after the first because one died. A host that died took the
        results of a file of tests with it, so that runs once more, and it is said."""
        died_with = set()
        while any((self.out / "queue").iterdir()) and not interrupted.is_set():
            name, said, status = self.run_one(count)
            if status == HOST_DIED and name not in died_with:
                died_with.add(name)
                print(f"\n{name or 'tests'}: the emulated host died; once more\n{said}", flush=True)
                for place in (self.out / "taken").glob(f"[0-9]*-{name}"):
                    place.rename(self.out / "queue" / place.name)
            elif name or status:
                print(f"\n-- {name or 'tests'}: the host ended with {status}\n{self.output(name)}\n{said}", flush=True)
                count.add(0, 1, failures=[f"{name or 'tests'}: the host ended with {status}"])
                if not name or status != HOST_DIED:
                    return

    def run_one(self, count):
        """(the file of tests that it was at when it ended, what it said, its status)"""
        host = subprocess.Popen(list(map(str, self.command)), cwd=self.cwd, env={**os.environ, "KVMHOST_OUT": str(self.out)},
                                stdin=subprocess.DEVNULL, text=True, errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        name, said, overdue = "", "", False

        def end_it():
            nonlocal overdue
            overdue = True
            host.terminate()

        while True:
            patience = threading.Timer(FILE_LIMIT_S + 60, end_it)  # longer than in_host.py's own: it does not answer
            patience.start()
            line = host.stdout.readline()
            patience.cancel()
            match line.split():
                case ["begin", name]:
                    pass
                case ["end", name, status, seconds]:
                    report(name, seconds, self.output(name), int(status), self.out / name, count)
                    name = ""
                case []:
                    if not line:
                        status = host.wait()
                        return name, said, HOST_DIED if overdue else status
                case _:
                    said += line

    def left(self):
        """The files that nobody has taken; each is a failure."""
        return [place.name for place in (self.out / "queue").iterdir()]

    def output(self, name):
        path = self.out / name / "output.txt"
        return path.read_text(errors="replace") if name and path.exists() else ""


def run_system(build, count, extra, here=True, kvm=True):
    """Three at a time: two hosts with KVM, where an emulated one is one processor that is seldom idle, and beside them what needs none
    and mostly waits. Who finds nothing more of its own helps with that."""
    with_none = Hosts(build / "system", system_files(False) if here else [], "not kvm", extra, here=True)
    with_kvm = Hosts(build / "kvm" / "kvmhost-out", system_files(True) if kvm else [], "kvm and not tuned", extra)
    add_lanes(count, [[with_none], [with_kvm, with_none], [with_kvm, with_none]])


def add_lanes(count, lanes):
    """Runs lanes side by side, each its hosts one after the other."""

    def run(lane):
        own = Count()
        for hosts in lane:
            hosts.run(own)
        return own

    with concurrent.futures.ThreadPoolExecutor(max_workers=len(lanes)) as pool:
        try:
            for own in pool.map(run, lanes):
                count.add_all(own)
        except KeyboardInterrupt:
            interrupted.set()
            raise
    for hosts in {id(hosts): hosts for lane in lanes for hosts in lane}.values():
        for name in hosts.left():
            count.add(0, 1, failures=[f"{name}: no host was left to run it"])


def system_files(with_kvm):
    """The files of tests that have some with KVM, or some without, in the order in which they begin."""
    texts = {path.stem: path.read_text() for path in sorted((TOP / "tests" / "system").glob("test_*.py"))}
    names = [name for name, text in texts.items() if ("mark.kvm" in text if with_kvm else "pytestmark = pytest.mark.kvm" not in text)]
    return sorted(names, key=lambda name: (name in LAST, name not in LONGEST, LONGEST.index(name) if name in LONGEST else 0))


def tuned_kernel_tests(build, count, extra):
    """The tests that need KVM, with the tuned kernel in the place of the stock one."""
    os.environ["HULL_GUEST"] = str(build / "guest-tuned")
    hosts = Hosts(build / "kvm-tuned" / "kvmhost-out", system_files(True), "kvm", extra)
    add_lanes(count, [[hosts], [hosts]])
    del os.environ["HULL_GUEST"]


def rules(build, count, _extra):
    """The tree's own rules, and its scripts' syntax."""
    checks = sorted((TOP / "tests" / "rules").iterdir())
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for check, status in zip(checks, pool.map(lambda check: call([check], cwd=TOP), checks)):
            count.add(status == 0, status != 0, failures=[f"rules/{check.name}"] if status else [])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=lambda path: Path(path).resolve(), default=TOP / "build")
    suites = {
        "rules": rules,
        "unit": lambda build, count, _: unit_tests(build, count),
        "sanitized": lambda build, count, _: sanitized_unit_tests(build, count),
        "system": run_system,
    }
    parts = {
        "kvm": lambda build, count, extra: run_system(build, count, extra, here=False),
        "no-kvm": lambda build, count, extra: run_system(build, count, extra, kvm=False),
        "tuned": tuned_kernel_tests,
    }
    parser.add_argument("--only", choices=suites | parts, action="append",
                        help="run this suite, or a part of the system tests; may be repeated")
    parser.add_argument("--tuned", action="store_true", help="the tests with KVM on the tuned guest kernel, too")
    parser.add_argument("extra", nargs="*", help="arguments for pytest, after --")
    options = parser.parse_args()
    # A shell's job in the background has it ignored, and so would all that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["HULL_BUILD"] = str(options.build)
    total, failed = Count(), []
    for name in [*(options.only or suites), *(["tuned"] if options.tuned else [])]:
        count, start, spent = Count(), time.monotonic(), processor_seconds()
        print(f"\n== {name}", flush=True)
        (suites | parts)[name](options.build, count, options.extra)
        print(f"== {name}: {count.passed} passed, {count.failed} failed, {count.skipped} skipped "
              f"in {time.monotonic() - start:.0f} s, {processor_seconds() - spent:.0f} s of processors", flush=True)
        total.add_all(count)
        if count.failed or not count.passed:
            failed.append(name)
    if failed:
        print("\n".join(["", "failed: " + ", ".join(failed), *total.failures]))
    print(f"\n{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
