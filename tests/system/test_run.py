"""What tests/run.py makes of hosts that come and go: what was not run, or not to its end, does not count as passed."""
import importlib.util
import sys
from pathlib import Path

import pytest

from conftest import TOP

GOOD = "def test_one():\n    pass\n\n\ndef test_two():\n    pass\n"
BAD = "def test_one():\n    assert False, 'so it is'\n"
# It takes the first file that waits, and falls over.
FALL = 'set -- $(ls queue | head -n 1); mv queue/$1 taken/; echo begin ${1#*-}; echo it falls over; exit 125'


@pytest.fixture(scope="module")
def run():
    spec = importlib.util.spec_from_file_location("hull_tests_run", TOP / "tests" / "run.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def counted(run, tmp_path, capfd):
    """counted(script, files): (passed, failed, what was printed and then the failures, a line each) of hosts that run `script`, where
    in_host runs files as in a real one."""

    def start(script, files, hosts=1, limit_s=60, extra=""):
        folder, out = tmp_path / "files", tmp_path / "out"
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        waiting = run.Hosts(out, list(files), "not kvm", [])
        waiting.command = ["sh", "-c", f"""cd {out}; export TMPDIR={tmp_path}
            in_host() {{ /usr/bin/python3 {TOP}/tests/in_host.py {folder} {limit_s} 'not kvm' {extra}; }}
            {script}"""]
        total = run.Count()
        run.add_lanes(total, [[waiting]] * hosts)
        return total.passed, total.failed, "\n".join([capfd.readouterr().out, *total.failures])

    return start


def test_two_hosts_share_what_there_is(counted):
    passed, failed, said = counted("in_host", {"test_a": GOOD, "test_b": BAD, "test_c": GOOD}, hosts=2)
    assert (passed, failed) == (4, 1)
    assert [said.count(f"\n-- {name}.py, ") for name in ("test_a", "test_b", "test_c")] == [1, 1, 1] and "so it is" in said


def test_a_file_of_which_no_test_is_wanted_is_no_failure(counted):
    assert counted("in_host", {"test_a": GOOD, "test_b": BAD}, extra="-k two")[:2] == (1, 0)


def test_a_host_that_dies_once_is_followed_by_another(counted):
    passed, failed, said = counted(f"if mkdir once 2>&-; then {FALL}; fi; in_host", {"test_a": GOOD, "test_b": GOOD})
    assert (passed, failed) == (4, 0)
    assert "test_a: the emulated host died; once more\nit falls over\n" in said


def test_a_file_with_which_hosts_die_fails_and_the_others_are_run(counted):
    passed, failed, said = counted(f"if [ -e queue/00-test_a ]; then {FALL}; fi; in_host", {"test_a": GOOD, "test_b": GOOD})
    assert (passed, failed) == (2, 1) and "-- test_a: the host ended with 125" in said


def test_where_no_host_comes_up_nothing_has_passed(counted):
    passed, failed, said = counted("echo no host; exit 125", {"test_a": GOOD, "test_b": GOOD}, hosts=2)
    assert passed == 0 and failed >= 2 and "test_a: no host was left to run it" in said and "test_b: no host was left" in said


def test_a_host_that_ends_otherwise_fails(counted):
    passed, failed, _ = counted("in_host; exit 2", {"test_a": GOOD})
    assert (passed, failed) == (2, 1)
    passed, failed, said = counted('mv queue/* taken/; echo begin test_a; exit 0', {"test_a": GOOD})
    assert (passed, failed) == (0, 1) and "-- test_a: the host ended with 0" in said


def test_a_file_has_so_much_time_and_what_it_started_ends_with_it(counted, tmp_path):
    endless = f"import subprocess\n\n\ndef test_one():\n    subprocess.run(['sh', '-c', 'echo $$ >{tmp_path}/pid; exec sleep 1000'])\n"
    passed, failed, said = counted("in_host", {"test_a": endless}, limit_s=5)
    assert (passed, failed) == (0, 1) and "status 124" in said
    left = Path("/proc", (tmp_path / "pid").read_text().strip(), "cmdline")
    assert not left.exists() or b"sleep" not in left.read_bytes()
