"""What benches/boot makes of a trace and of a guest's log, and its smallest run. No figure is looked at but for being one."""
import re
import subprocess
import xml.etree.ElementTree

import pytest

from conftest import TOP


BENCH = "boot"


TRACE = """# tracer: nop
#
        hull-vmm-70      [000] ...1.     9.900000: kvm_userspace_exit: reason KVM_EXIT_IO (2)
        hull-vmm-99      [000] .....    10.000500: sys_enter: NR 257 (ffffff9c, 7f, 0, 0, 0, 0)
        hull-vmm-99      [000] .....    10.000900: sys_exit: NR 257 = 3
          vcpu 0-100     [000] .....    10.002000: sys_ioctl(fd: b, cmd: ae80, arg: 0)
          vcpu 0-100     [000] ...1.    10.020000: kvm_userspace_exit: reason KVM_EXIT_IO (2)
          vcpu 0-100     [000] .....    10.020100: sys_ioctl(fd: b, cmd: ae80, arg: 0)
          vcpu 0-100     [000] ...1.    10.030000: kvm_pio: pio_write at 0x4b4d size 1 count 1 val 0x31
          vcpu 0-100     [000] ...1.    10.031000: kvm_pio: pio_write at 0x4b4d size 1 count 1 val 0x32
          vcpu 0-100     [000] ...1.    10.031500: kvm_pio: pio_write at 0x4b4d size 1 count 1 val 0x33
          vcpu 0-100     [000] ...1.    10.035000: kvm_userspace_exit: reason KVM_EXIT_MMIO (6)
        hull-vmm-99      [000] .....    10.036000: sys_enter: NR 11 (7f, 8000000, 0, 0, 0, 0)
        hull-vmm-99      [000] .....    10.038000: sys_exit: NR 11 = 0
"""

LOG = """<6>[    0.000000] Linux version 6.12\r
<7>[    0.004000] calling  one+0x0/0x10 @ 1\r
<7>[    0.006000] initcall one+0x0/0x10 returned 0 after 2000 usecs\r
<6>[    0.010000] Run /init as init process\r
guest: up\r
"""


def read(bench, trace=TRACE, console=LOG):
    return bench.life(10_000_000_000, 10_040_000_000, bench.traces.events(trace), console)


def test_each_phase_has_its_length(bench):
    one = read(bench)
    assert {name: round(length, 3) for name, length in one.lengths().items()} == {
        "set up": 2, "kernel": 28, "PID 1": 1, "off": 3.5, "gone": 5, "total": 39.5}
    assert one.exits == 2, "what another monitor did before is not counted"


@pytest.mark.parametrize("trace, console", [(TRACE, "panic"), (TRACE.replace("0x4b4d", "0x80"), LOG), (TRACE.replace("ae80", "ae01"), LOG)])
def test_a_guest_that_did_not_come_up_has_no_figures(bench, trace, console):
    with pytest.raises(RuntimeError, match="did not come up"):
        read(bench, trace, console)


def test_the_chart_has_calls_and_initcalls_where_they_were(bench):
    one = read(bench)
    spans = {span.name: span for span in bench.chart_spans(one, {"257": "openat", "11": "munmap"})}
    place = {name: (span.level, round(span.begin, 3), round(span.end, 3)) for name, span in spans.items()}
    assert place["kernel"] == (1, 2, 30)
    assert place["openat"] == (2, 0.5, 0.9) and place["munmap"] == (2, 35.5, 37.5), "the log's printing is cut out"
    assert place["one"] == (3, 24, 26), "PID 1 begins where the guest's kernel says that it does"
    assert place["Linux version 6.12"] == (3, 20, 24)
    drawing = xml.etree.ElementTree.fromstring(bench.svg("a < b", list(spans.values())))
    titles = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}title")]
    assert "one 2.00 ms" in titles and len(titles) == len(spans)


def test_any_monitor_can_be_named(bench):
    files = {"kernel": "/k", "bzimage": "/z", "initrd": "/i"}
    assert bench.command("kvmtool=lkvm run -k {bzimage} -i {initrd} -m {mib} -p {cmdline}", files, "quiet") == [
        "lkvm", "run", "-k", "/z", "-i", "/i", "-m", "128", "-p", "quiet"]
    assert bench.MEMORY / "qemu/qemu-system-x86_64" in bench.command("QEMU", files, "quiet")


def test_the_table_has_a_column_for_each_phase(bench):
    head, line = bench.show(["Hull"], {"Hull": [read(bench)] * 3})
    assert head.split() == ["set", "up", "kernel", "PID", "1", "off", "gone", "total", "exits"]
    assert line.split() == ["Hull", "2.00", "±0.0%", "28.00", "±0.0%", "1.00", "±0.0%", "3.50", "±0.0%", "5.00", "±0.0%", "39.50", "±0.0%", "2"]


def test_a_guest_that_stands_still_is_booted_anew(bench):
    turns = iter([1, None, 2])

    def once():
        turn = next(turns)
        if turn is None:
            raise subprocess.TimeoutExpired("launch", 1)
        return turn

    assert bench.harness.repeat("Hull", 2, once) == ([1, 2], 1)


def test_a_monitor_whose_guests_all_stand_still_is_given_up(bench):
    def once():
        raise subprocess.TimeoutExpired("launch", 1)

    with pytest.raises(RuntimeError, match=f"Hull: {bench.harness.STALLS_MAX + 1} guests stood still"):
        bench.harness.repeat("Hull", 1, once)


def test_the_smallest_run(tmp_path):
    """Without a chart, which takes as long again."""
    done = subprocess.run([TOP / "benches/boot", "-m", "Hull", "-r", "1"], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Hull(  +[\d,.]+ ±0\.0%){6}  +\d+$", done.stdout, re.MULTILINE), done.stdout
