"""What a guest's processors are: their shape, their features, their registers, and that their clocks tell the host's time."""
import json
import os
import re
import select
import subprocess
import time

import pytest

from conftest import DEADLINE, TOP

from test_vmm import boot, config, refused  # noqa: F401 (fixtures)

MS = 1_000_000  # nanoseconds


@pytest.fixture(scope="session")
def probe(tmp_path_factory):
    path = tmp_path_factory.mktemp("probe") / "probe"
    subprocess.run(["cc", "-static", "-O2", "-pthread", "-o", path, TOP / "tests" / "system" / "probe.c"], check=True)
    return path.read_bytes()


@pytest.fixture
def guest(boot, probe):
    """guest(script, …): as boot(), with the program `probe` in it."""

    def start(script, modules=(), **options):
        return boot(script, modules, files={"bin/probe": probe}, **options)

    return start


def leaf(number, subleaf=0, **registers):
    """A CPUID modifier: leaf(7, ebx="0b0")."""
    return {"leaf": hex(number), "subleaf": hex(subleaf), "flags": 0,
            "modifiers": [{"register": name, "bitmap": bitmap} for name, bitmap in registers.items()]}


def bit(number, value):
    return f"0b{value}" + "x" * number


# Shape.

@pytest.mark.kvm
@pytest.mark.parametrize("cpus, smt", [(1, False), (2, False), (4, False), (4, True)])
def test_the_guest_finds_the_machine_that_was_asked_for(guest, cpus, smt):
    machine = guest("""cd /sys/devices/system/cpu
        for c in cpu[0-9]*; do
            echo guest: $c core $(cat $c/topology/core_id) package $(cat $c/topology/physical_package_id) threads $(cat $c/topology/core_cpus_list)
        done
        for i in cpu0/cache/index*; do echo guest: cache $(cat $i/level) $(cat $i/type) $(cat $i/shared_cpu_list); done
        grep -E 'siblings|cpu cores|model name|initial apicid' /proc/cpuinfo | sort -u | sed 's/^/guest: /'
        probe cpuid 0x80000000 0 | sed 's/^/guest: extended /'; probe cpuid 0x40000000 0 | sed 's/^/guest: hypervisor /'
        echo guest: online $(nproc) end; poweroff -f""", vcpu_count=cpus, smt=smt)
    machine.wait_for(f"guest: online {cpus} end")
    assert machine.wait() == 0
    threads = 2 if smt else 1
    for i in range(cpus):
        first = i // threads * threads
        siblings = f"{first}-{first + 1}" if smt else str(i)
        assert re.search(rf"guest: cpu{i} core {i // threads} package 0 threads {siblings}\r?$", machine.console, re.M), machine.console
        assert re.search(rf"initial apicid\s*: {i}\r?$", machine.console, re.M)
    assert re.search(rf"siblings\s*: {cpus}\r?$", machine.console, re.M)
    assert re.search(rf"cpu cores\s*: {cpus // threads}\r?$", machine.console, re.M)
    assert re.search(r"model name\s*: (AMD EPYC|Intel\(R\) Xeon\(R\) Processor)", machine.console)
    # An AMD processor without leaf 0x8000001d, as an emulated host's, cannot say of a cache that the threads of a core share it.
    last, *vendor = re.search("guest: extended (.*)", machine.console).group(1).split()
    can_say = "68747541" not in vendor or int(last, 16) >= 0x8000001d
    caches = re.findall(r"guest: cache (\d) \w+ (\S+)", machine.console)
    assert len(caches) >= 3
    for level, shared in caches:
        first = "0-1" if smt and can_say else "0"
        everyone = f"0-{cpus - 1}" if cpus > 1 else "0"
        assert shared == (everyone if level == "3" else first)
    assert re.search("guest: hypervisor 40000001 4b4d564b 564b4d56 0000004d", machine.console)  # KVMKVMKVM, and one leaf more


# Features.

@pytest.mark.kvm
@pytest.mark.parametrize("how", ["inline", "path"])
def test_a_template_hides_a_feature(guest, config, how, tmp_path_factory):
    template = {"kvm_capabilities": ["!56"], "cpuid_modifiers": [leaf(7, ebx=bit(19, 0)), leaf(1, ecx=bit(30, 0))]}
    if how == "path":
        path = tmp_path_factory.mktemp("template") / "template.json"
        path.write_text(json.dumps(template))
        template = str(path)
    script = "echo guest: flags $(sed -n 's/^flags.*://p' /proc/cpuinfo | head -n 1) end; poweroff -f"
    plain = guest(script)
    before = set(plain.wait_for(r"guest: flags (.*) end").group(1).split())
    assert plain.wait() == 0
    config["cpu-config"] = template
    machine = guest(script)
    after = set(machine.wait_for(r"guest: flags (.*) end").group(1).split())
    assert machine.wait() == 0
    assert {"adx", "rdrand", "hypervisor", "tsc_deadline_timer"} <= before
    assert not before & {"vmx", "svm", "arch_perfmon", "perfctr_core", "pdcm", "sgx", "waitpkg"}
    assert before - after == {"adx", "rdrand"} and not after - before


# What a dump of another host's CPUID would do: all leaves of this machine, with somebody else's numbers in them.
@pytest.mark.kvm
def test_a_template_does_not_spoil_the_machines_shape(guest, config):
    ones = "0b" + "1" * 32
    config["cpu-config"] = {"cpuid_modifiers": [
        leaf(0, ebx=ones, ecx=ones, edx=ones), leaf(1, ebx=ones), leaf(0xb, edx=ones, eax=ones, ebx=ones),
        leaf(0x80000002, eax=ones)]}
    machine = guest("echo guest: $(grep -c ^processor /proc/cpuinfo) $(cat /sys/devices/system/cpu/cpu1/topology/core_cpus_list) "
                    "$(sed -n 's/^vendor_id.*: //p' /proc/cpuinfo | head -n 1); poweroff -f", vcpu_count=2)
    assert machine.wait_for(r"guest: (\S+) (\S+) (\S+)").groups()[:2] == ("2", "1")
    assert re.search(r"guest: 2 1 (AuthenticAMD|GenuineIntel)", machine.console)
    assert machine.wait() == 0


@pytest.mark.kvm
@pytest.mark.parametrize("template, field, reason", [
    ({"cpuid_modifiers": [leaf(1, eax="0bx"), leaf(0x7f)]}, "cpu-config.cpuid_modifiers[1].leaf", "offers no leaf 0x7f with subleaf 0x0"),
    ({"cpuid_modifiers": [leaf(1, 1)]}, "cpu-config.cpuid_modifiers[0].leaf", "offers no leaf 0x1 with subleaf 0x1"),
    ({"kvm_capabilities": ["0", "9999"]}, "cpu-config.kvm_capabilities[1]", "does not have capability 9999"),
    ({"msr_modifiers": [{"addr": "0x10", "bitmap": "0bx"}, {"addr": "0x4b564dff", "bitmap": "0bx"}]}, "cpu-config.msr_modifiers[1].addr",
     "does not have MSR 0x4b564dff"),
    ({"msr_modifiers": [{"addr": "0x1b", "bitmap": "0b" + "1" * 64}]}, "cpu-config.msr_modifiers[0].addr", "does not take this for MSR 0x1b"),
], ids=["leaf", "subleaf", "capability", "msr", "value"])
def test_a_template_that_this_host_cannot_give_is_refused(vmm, config, template, field, reason):
    config["cpu-config"] = template
    refused(vmm(config), field, reason)


# MSRs.

MICROCODE = 0x8b  # its revision: KVM has a guest read what it was told


@pytest.mark.kvm
def test_a_template_sets_an_msr_of_each_processor(guest, config):
    config["cpu-config"] = {"msr_modifiers": [{"addr": hex(MICROCODE), "bitmap": "0b" + format(0x12345678, "032b")}]}
    machine = guest(f"echo guest: $(probe msr read {MICROCODE:#x}) $(grep -c 'microcode.*0x12345678' /proc/cpuinfo); poweroff -f",
                    ["msr"], vcpu_count=2)
    assert int(machine.wait_for(r"guest: value (0x\w+) 2").group(1), 16) & 0xffffffff == 0x12345678
    assert machine.wait() == 0


@pytest.mark.kvm
def test_other_msrs_are_errors_in_the_guest_and_counted(guest, config, tmp_path_factory):
    """A performance counter, Hyper-V's, VMX's, SVM's and system management's: each is an error; the TSC is none."""
    metrics = tmp_path_factory.mktemp("metrics") / "metrics"
    config["metrics"] = {"metrics_path": str(metrics)}
    machine = guest("""for msr in 0xc1 0x40000000 0x480 0xc0010114 0x9e 0xc0010117; do
            echo guest: $msr $(probe msr read $msr) $(probe msr write $msr); done
        echo guest: tsc $(probe msr read 0x10)
        echo guest: storm $(probe msr read 0xc1 20000); poweroff -f""", ["msr"], arguments=["--level", "Debug"])
    machine.wait_for(r"guest: storm error 5")
    assert machine.wait() == 0
    for msr in ("0xc1", "0x40000000", "0x480", "0xc0010114", "0x9e", "0xc0010117"):
        assert re.search(rf"guest: {msr} error 5 error 5\r?$", machine.console, re.M), machine.console
    assert re.search(r"guest: tsc value 0x\w+", machine.console)
    counts = json.loads(metrics.read_text().splitlines()[-1])["vcpu"]
    assert 20012 <= counts["exit_msr_refused"] < 20012 + 64  # and a few that the kernel has tried
    assert counts["exit_io_out_agg"]["sum_us"] > 0 and counts["failures"] == 0
    told = re.findall(r"has no MSR (0x\w+), which the guest (reads|writes)", machine.log)
    assert 0 < len(told) <= 16


# Time.

class Clock:
    """The guest's wall clock against the host's, by `probe clock`."""

    def __init__(self, machine):
        self.machine = machine
        self.output = machine.process.stdout.fileno()
        machine.wait_for(r"guest: clock\r?\n")

    def _read(self, answer, until):
        while until not in answer:
            assert select.select([self.output], [], [], DEADLINE)[0], "no answer came in time"
            more = os.read(self.output, 4096)
            assert more, "the console ended"
            answer += more
        return answer

    def _ask(self, cpu):
        """(least, most): what the guest's clock may be ahead, by one question to this processor."""
        asked = time.time_ns()
        os.write(self.machine.process.stdin.fileno(), b"%d" % cpu)
        answer = self._read(b"", b"@")
        heard = time.time_ns()
        said = int(self._read(answer.split(b"@")[1], b"\n"))
        return said - heard, said - asked

    def bounds(self, cpus, times=50):
        """(least, most): what each processor's clock is ahead of the host's, in nanoseconds, at least and at most."""
        answers = [self._ask(cpu) for _ in range(times) for cpu in range(cpus)]
        return max(least for least, _ in answers), min(most for _, most in answers)

    def end(self):
        os.write(self.machine.process.stdin.fileno(), b"q")


@pytest.fixture
def guest_with_api(vmm, config, initramfs, probe, tmp_path_factory):
    """guest_with_api(script, **machine): the same, of an API."""

    def start(script, modules=(), **sizes):
        config["boot-source"]["initrd_path"] = str(initramfs(script, modules, {"bin/probe": probe}))
        config["machine-config"].update(sizes)
        path = tmp_path_factory.mktemp("config") / "config.json"
        path.write_text(json.dumps(config))
        return vmm(None, "--config-file", path)

    return start


def stay_paused(machine, seconds):
    """It does, and says nothing meanwhile. The time that it is paused is what is tested."""
    machine.must("PATCH", "/vm", {"state": "Paused"})
    while select.select([machine.process.stdout], [], [], 0)[0]:
        machine.output += os.read(machine.process.stdout.fileno(), 4096)  # what it had said
    assert not select.select([machine.process.stdout], [], [], seconds)[0]
    machine.must("PATCH", "/vm", {"state": "Resumed"})


@pytest.mark.kvm
@pytest.mark.parametrize("cpus", [1, 4])
def test_the_guests_time_is_the_hosts_before_and_after_a_pause(guest_with_api, cpus):
    """A kernel counts ticks until it has its clock, and loses those of its early boot: the guest sets its clock by the host's, once.
    How far it is off after two pauses is told by the kernel (of TSC and clock, read at the same time on the host), to be
    believed because the bounds that questions and answers have, which a loaded machine makes wide, do not say otherwise."""
    machine = guest_with_api("echo guest: boot $(probe ptp set); probe clock; echo guest: end $(probe ptp); poweroff -f",
                             ["ptp_kvm"], vcpu_count=cpus)
    lost = -int(machine.wait_for(r"guest: boot ahead (-?\d+)").group(1))
    clock = Clock(machine)
    seen = [clock.bounds(cpus)]
    for seconds in (3, 1):
        stay_paused(machine, seconds)
        seen.append(clock.bounds(cpus))
    clock.end()
    ahead = int(machine.wait_for(r"guest: end ahead (-?\d+)").group(1))
    assert machine.wait() == 0
    print(f"{cpus} vCPU(s): boot lost {lost / MS:.3f} ms; ahead by",
          ", ".join(f"{least / MS:.3f} to {most / MS:.3f} ms" for least, most in seen), f"and exactly {ahead / MS:.6f} ms")
    assert -MS < ahead < MS
    for least, most in seen:
        assert least <= most and least < MS and most > -MS, seen


@pytest.mark.kvm
def test_the_clocks_of_four_processors_are_one(guest):
    machine = guest("echo guest: $(probe warps 20000); dmesg | grep -i 'tsc.*unstable\\|warp'; poweroff -f", vcpu_count=4)
    assert machine.wait_for(r"guest: tsc (\d+) clock (\d+)").groups() == ("0", "0")
    assert machine.wait() == 0
    assert "unstable" not in machine.console


@pytest.mark.kvm
def test_a_pause_is_no_soft_lockup(guest_with_api):
    """With a threshold of one second the watchdog barks after two; a processor that is busy is watched. It says for how long: what is less than
    the pause is that of a busy host."""
    machine = guest_with_api("""echo 1 > /proc/sys/kernel/watchdog_thresh
        sh -c 'while :; do :; done' &
        sh -c 'while :; do :; done' &
        echo guest: busy; read line; dmesg | grep -cE 'soft lockup.* for ([5-9]|[1-9][0-9]+)s' | sed 's/^/guest: lockups /'; poweroff -f""", vcpu_count=2)
    machine.wait_for("guest: busy")
    stay_paused(machine, 6)  # it would say five at least: its seconds are longer
    # It is looked at when the watchdog's timers have come: they are due at once.
    machine.send("go\n")
    assert machine.wait_for(r"guest: lockups (\d+)").group(1) == "0"
    assert machine.wait() == 0
