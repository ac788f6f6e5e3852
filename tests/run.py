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
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
PYTEST = ["/usr/bin/python3", "-m", "pytest", "-p", "no:cacheprovider", "-v", "--color=no"]
# With KVM they take two minutes and more each, and are begun first: who is last has nobody beside.
LONGEST = ["test_vhost", "test_balloon", "test_devices", "test_leaks", "test_exec_kvm", "test_hulld_kvm", "test_pci", "test_vmm", "test_cpu"]
NO_TESTS = 5  # pytest: none was selected


class Count:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def add(self, passed, failed, skipped=0):
        self.passed += passed
        self.failed += failed
        self.skipped += skipped


def call(command, **kwargs):
    print("$ " + " ".join(map(str, command)), flush=True)
    return subprocess.run(list(map(str, command)), **kwargs).returncode


def show_failures(folder):
    for log in sorted(folder.rglob("*.log")):
        text = log.read_text(errors="replace")
        if "[  FAILED  ]" in text or "ERROR: " in text or "runtime error" in text:
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
        count.add(sum(map(int, re.findall(r"\[  PASSED  \] (\d+) test\(s\)", text))), bad)
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


def pytest_results(report, status, count):
    if not report.exists():
        print(f"no report: the run ended with status {status}")
        count.add(0, 1)
        return
    suite = xml.etree.ElementTree.parse(report).getroot().find("testsuite")
    tests, skipped = int(suite.get("tests")), int(suite.get("skipped"))
    failed = int(suite.get("failures")) + int(suite.get("errors"))
    count.add(tests - failed - skipped, failed, skipped)
    if status and not failed:
        count.add(0, 1)


HOST_DIED = 125  # kvmhost: the emulated host did not come up, or fell over; not what a test found


def captured(command, folder):
    return subprocess.run(list(map(str, command)), cwd=folder, stdin=subprocess.DEVNULL, text=True, errors="replace",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def run_here(tests, folder, extra):
    """What of a file of tests needs no KVM, where we are. Returns the exit status, and what was printed."""
    return captured(PYTEST + ["-m", "not kvm", f"--junitxml={folder / 'report.xml'}", *extra, tests], TOP)


def run_in_kvmhost(tests, folder, extra, marks="kvm and not tuned"):
    """What of it does, on a host of its own, whose /out is `folder` afterwards. A host that died took its tests' results
    with it, so they run once more, and it is said."""
    inner = PYTEST + ["-m", marks, "--junitxml=/out/report.xml", *extra, tests]
    command = [TOP / "tools" / "kvmhost", "run", "-m", 7168, "-t", 1800, "--", *inner]
    result = captured(command, folder.parent)
    if result.returncode == HOST_DIED and not (folder / "report.xml").exists():
        again = captured(command, folder.parent)
        again.stdout = f"{result.stdout}\n{tests.name}: the emulated host died; once more\n{again.stdout}"
        return again
    return result


def run_file(run, folder, tests, extra):
    count, start = Count(), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.xml").unlink(missing_ok=True)
    result = run(tests, folder, extra)
    print(f"\n-- {tests.name}, {time.monotonic() - start:.0f} s\n{result.stdout}", flush=True)
    if result.returncode != NO_TESTS:
        pytest_results(folder / "report.xml", result.returncode, count)
    return count


def system_files(build, marked_kvm):
    """(run, folder, file) for each file of tests that has some with KVM, or without."""
    for tests in sorted((TOP / "tests" / "system").glob("test_*.py"), key=lambda tests: (tests.stem not in LONGEST, tests)):
        if not marked_kvm:
            yield run_here, build / "system" / tests.stem, tests
        elif "mark.kvm" in tests.read_text():
            yield run_in_kvmhost, build / "kvm" / tests.stem / "kvmhost-out", tests


def tuned_kernel_tests(build, count, extra):
    """The tests that need KVM, with the tuned kernel in the place of the stock one."""
    os.environ["HULL_GUEST"] = str(build / "guest-tuned")

    def run(tests, folder, extra):
        return run_in_kvmhost(tests, folder, extra, "kvm")

    run_files([(run, build / "kvm-tuned" / tests.stem / "kvmhost-out", tests) for _, _, tests in system_files(build, True)], count, extra)
    del os.environ["HULL_GUEST"]


def run_files(files, count, extra):
    """Two at a time: an emulated host is one processor, and whoever waits for one uses none."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        for one in pool.map(lambda file: run_file(*file, extra), files):
            count.add(one.passed, one.failed, one.skipped)


def rules(build, count, _extra):
    """The tree's own rules, and its scripts' syntax."""
    for check in sorted((TOP / "tests" / "rules").iterdir()):
        status = call([check], cwd=TOP)
        count.add(status == 0, status != 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=lambda path: Path(path).resolve(), default=TOP / "build")
    suites = {
        "rules": rules,
        "unit": lambda build, count, _: unit_tests(build, count),
        "sanitized": lambda build, count, _: sanitized_unit_tests(build, count),
        "system": lambda build, count, extra: run_files([*system_files(build, False), *system_files(build, True)], count, extra),
    }
    parts = {
        "kvm": lambda build, count, extra: run_files(system_files(build, True), count, extra),
        "no-kvm": lambda build, count, extra: run_files(system_files(build, False), count, extra),
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
        count, start = Count(), time.monotonic()
        print(f"\n== {name}", flush=True)
        (suites | parts)[name](options.build, count, options.extra)
        print(f"== {name}: {count.passed} passed, {count.failed} failed, {count.skipped} skipped "
              f"in {time.monotonic() - start:.0f} s", flush=True)
        total.add(count.passed, count.failed, count.skipped)
        if count.failed or not count.passed:
            failed.append(name)
    if failed:
        print("failed: " + ", ".join(failed))
    print(f"\n{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
