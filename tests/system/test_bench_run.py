"""What benches/run makes of a trace, and its smallest run. No figure is looked at but for being one."""
import re
import subprocess

import pytest

from conftest import TOP


BENCH = "run"


def switch(at, task, pid, state, following):
    return (f"  {task}-{pid}  [000] d..2.  {at:.6f}: sched_switch: prev_comm={task} prev_pid={pid} prev_prio=120 prev_state={state} ==> "
            f"next_comm={following} next_pid=9 next_prio=120\n")


TRACE = (switch(10.001, "hull", 7, "S", "hulld") + switch(10.003, "hulld", 8, "S", "hull-vmm")
         + "  hull-vmm-11 [000] .....    10.003500: sched_process_exec: filename=/bin/hull-vmm pid=11 old_pid=11\n"
         + switch(10.005, "hull-vmm", 11, "S", "vcpu 0")
         + "  vcpu 0-12   [000] .....    10.005500: sys_ioctl(fd: b, cmd: ae80, arg: 0)\n"
         + "  vcpu 0-12   [000] ...1.    10.020000: kvm_pio: pio_write at 0x4b4d size 1 count 1 val 0x31\n"
         + "  vcpu 0-12   [000] ...1.    10.021000: kvm_pio: pio_write at 0x4b4d size 1 count 1 val 0x32\n"
         + switch(10.022, "vcpu 0", 12, "X", "swapper/0") + switch(10.025, "swapper/0", 0, "R", "hull-vmm")
         + switch(10.026, "hull-vmm", 11, "Z", "kworker/0:1") + switch(10.027, "kworker/0:1", 5, "I", "hull"))


def read(bench, trace=TRACE, status=0, output="guest: up\n"):
    return bench.run_of(bench.traces.Launch(10_000_000_000, 10_030_000_000, status, bench.traces.events(trace), output, "no such image\n"))


def test_each_step_has_its_length(bench):
    assert {name: round(length, 3) for name, length in read(bench).lengths().items()} == {
        "asked": 3.5, "set up": 2, "boot": 14.5, "runs": 1, "down": 5, "told": 4, "total": 30}


def test_each_has_its_share_and_they_are_the_whole(bench):
    shares = read(bench).shares
    assert {name: round(took, 3) for name, took in shares.items()} == {
        "hull": 4, "hulld": 2, "hull-vmm": 3, "vCPU": 17, "idle": 3, "others": 1}
    assert round(sum(shares.values()), 6) == 30


@pytest.mark.parametrize("what, message", [
    ({"status": 125, "output": ""}, "hull ended with 125, and said 'no such image"),
    ({"trace": TRACE.replace("0x4b4d", "0x80")}, "the command did not run"),
    ({"trace": TRACE.replace("prev_state=Z", "prev_state=S")}, "the monitor's end"),
    ({"trace": TRACE.replace("/bin/hull-vmm", "/bin/passt")}, "the exec of a monitor")])
def test_a_run_that_failed_has_no_figures(bench, what, message):
    with pytest.raises(RuntimeError, match=message):
        read(bench, **what)


def test_who_had_no_share_has_no_figure(bench):
    lines = bench.show({"none": [read(bench)] * 3})
    assert lines[0].split() == ["network", "asked", "set", "up", "boot", "runs", "down", "told", "total"]
    assert lines[-2].split() == ["network", "hull", "hulld", "hull-vmm", "vCPU", "others", "idle"]
    assert lines[-1].split()[:3] == ["none", "4.00", "±0.0%"]


def test_a_guest_that_stands_still_is_ended_and_its_run_repeated(bench):
    """Its machine is hulld's, and would go on."""
    class Daemon:
        machines = ended = 0
        repeat = bench.Daemon.repeat

        def end_machines(self):
            self.machines, self.ended = 0, self.ended + 1

    daemon, stalls = Daemon(), iter([subprocess.TimeoutExpired("hull", 20), TimeoutError("/v1/machines/a/wait")])

    def once():
        assert daemon.machines == 0
        daemon.machines = 1
        for stall in stalls:
            raise stall
        daemon.machines = 0
        return "run"

    assert daemon.repeat("none", 2, once) == (["run", "run"], 2) and daemon.ended == 2


def test_the_smallest_run(tmp_path):
    done = subprocess.run([TOP / "benches/run", "-n", "none", "-r", "1"], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^none(  +[\d,.]+ ±0\.0%){7}$", done.stdout, re.MULTILINE), done.stdout
