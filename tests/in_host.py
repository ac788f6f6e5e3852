#!/usr/bin/env python3
"""Runs files of tests where it is, one after the other: whichever of $KVMHOST_OUT/queue nobody has taken yet. run.py starts one on each host
that it has: an emulated one takes seconds to come up, and seconds more to import pytest.

usage: in_host.py FOLDER LIMIT_S MARKS [PYTEST'S ARGUMENT]...

Prints `begin NAME`, and `end NAME STATUS SECONDS` with pytest's exit status, or 124 after LIMIT_S; what pytest printed is in
$KVMHOST_OUT/NAME/output.txt, its report beside it. NAME is FOLDER/NAME.py.
"""
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest

OUT = Path(os.environ["KVMHOST_OUT"])
LIMIT_STATUS = 124
TIDY_UP_S = 120


def take():
    """The next file's number and name, or (None, None). Who renames it has it."""
    for place in sorted((OUT / "queue").iterdir()):
        try:
            place.rename(OUT / "taken" / place.name)
        except FileNotFoundError:
            continue
        return place.name.split("-")
    return None, None


def be_pytest(tests, folder, temporary, marks, extra):
    """In a process, and a session, of its own. Not in pytest's own temporary folder: on an emulated host that lies over this machine's,
    and pytest would clear away what is in there."""
    os.setsid()
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    status = pytest.main(["-p", "no:cacheprovider", "-v", "--color=no", "-m", marks, f"--basetemp={temporary}",
                          f"--junitxml={folder / 'report.xml'}", *extra, str(tests)])
    sys.stdout.flush()
    os._exit(status)


def run(tests, temporary, limit_s, marks, extra):
    """pytest's status, or LIMIT_STATUS. What tests that passed have left in `temporary` is removed, for on an emulated host it is memory."""
    folder = OUT / tests.stem
    folder.mkdir(exist_ok=True)
    child = os.fork()
    if child == 0:
        be_pytest(tests, folder, temporary, marks, extra)
    end = os.pidfd_open(child)
    try:
        ended, _, _ = select.select([end], [], [], limit_s)
    except KeyboardInterrupt:  # the session of its own keeps Ctrl-C from it
        os.killpg(child, signal.SIGINT)
        select.select([end], [], [], TIDY_UP_S)
        raise
    finally:
        try:
            os.killpg(child, signal.SIGKILL)  # also what a file of tests leaves behind has its end here
        except ProcessLookupError:
            pass
        os.close(end)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        shutil.rmtree(temporary, ignore_errors=True)
    return status if ended else LIMIT_STATUS


def main():
    tests, limit_s, marks, *extra = sys.argv[1:]
    temporary = Path(tempfile.gettempdir(), f"in_host-{os.getpid()}")  # short: addresses of sockets are in there
    temporary.mkdir(mode=0o700)
    while True:
        number, name = take()
        if not name:
            break
        begun = time.monotonic()
        print("begin", name, flush=True)
        status = run(Path(tests) / f"{name}.py", temporary / number, int(limit_s), marks, extra)
        print("end", name, status, round(time.monotonic() - begun), flush=True)
    if not any(temporary.iterdir()):
        temporary.rmdir()


if __name__ == "__main__":
    main()
