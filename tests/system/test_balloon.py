"""The balloon, and the two kinds of guest RAM: what a guest does without, the host has again.

Measured on the host, as its operator would: the monitor's proportional set size, and what its cgroup is charged."""
import json
import re
import select
import time
from pathlib import Path

import pytest

from conftest import BOOT_ARGS, Counts, DEADLINE

MIB = 1 << 20
MODULES = ["virtio_mmio", "virtio_balloon"]
NOT_YET = "not supported before starting the microVM"
NOT_ANY_MORE = "not supported after starting the microVM"
WHOLE = {"amount_mib": 0, "deflate_on_oom": True, "stats_polling_interval_s": 1, "free_page_hinting": True, "free_page_reporting": True}

# Does what it is told, line by line.
SHELL = """mount -t tmpfs -o size=100% tmp /mnt; echo guest: ready
while read -r line; do eval "$line"; done"""


def until(what, timeout=DEADLINE):
    """`what()` is asked again and again until it is true; what it returned then."""
    deadline = time.monotonic() + timeout
    while not (result := what()):
        assert time.monotonic() < deadline, "it did not come about in time"
        select.select([], [], [], 0.05)
    return result


@pytest.fixture
def api(vmm):
    return vmm(None)


# The API, without a guest.

WRONG = [({"deflate_on_oom": True}, "amount_mib: is required"), ({"amount_mib": 1}, "deflate_on_oom: is required"),
         ({"amount_mib": 129, "deflate_on_oom": True}, "balloon.amount_mib: is 129: too large for a machine of 128 MiB"),
         ({"amount_mib": -1, "deflate_on_oom": True}, "amount_mib: must be 0 to"), ({**WHOLE, "stats_polling_interval_s": 65536}, "65535"),
         ({**WHOLE, "stats_polling_interval_s": "1"}, "stats_polling_interval_s: must be an integer"),
         ({**WHOLE, "deflate_on_oom": "yes"}, "deflate_on_oom: must be true or false"),
         ({**WHOLE, "free_page_hint": True}, "free_page_hint: unknown field"), ([], "must be an object"), (None, "Empty PUT request.")]


@pytest.mark.parametrize("body, reason", WRONG)
def test_what_a_balloon_may_not_be(api, body, reason):
    api.refused("PUT", "/balloon", body, reason)
    assert api.must("GET", "/vm/config")["balloon"] is None
    api.refused("GET", "/balloon", None, "No balloon device found.")


def test_a_balloon_is_put_and_read_again(api):
    api.must("PUT", "/balloon", {"amount_mib": 64, "deflate_on_oom": False})
    assert api.must("GET", "/balloon") == {"amount_mib": 64, "deflate_on_oom": False, "stats_polling_interval_s": 0,
                                           "free_page_hinting": False, "free_page_reporting": False}
    api.must("PUT", "/balloon", WHOLE)
    assert api.must("GET", "/balloon") == api.must("GET", "/vm/config")["balloon"] == WHOLE
    api.must("PUT", "/balloon", {**WHOLE, "amount_mib": 128})
    api.refused("PATCH", "/machine-config", {"mem_size_mib": 127}, "balloon.amount_mib: is 128: too large for a machine of 127 MiB")
    api.must("PATCH", "/machine-config", {"mem_size_mib": 256})


@pytest.mark.parametrize("method, path, body", [
    ("PATCH", "/balloon", {"amount_mib": 1}), ("GET", "/balloon/statistics", None), ("GET", "/balloon/hinting/status", None),
    ("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 1}), ("PATCH", "/balloon/hinting/start", {}),
    ("PATCH", "/balloon/hinting/stop", None)])
def test_what_is_for_a_started_machine_only(api, method, path, body):
    api.must("PUT", "/balloon", WHOLE)
    api.refused(method, path, body, NOT_YET)
    assert api.must("GET", "/balloon") == WHOLE


def test_paths_that_are_none(api):
    for method, path in (("GET", "/balloon/hinting"), ("GET", "/balloon/x"), ("PATCH", "/balloon/hinting/x"), ("DELETE", "/balloon")):
        api.refused(method, path, None, "Invalid request method and/or path")


def test_kinds_of_memory(api):
    api.must("PATCH", "/machine-config", {"memory_kind": "cow"})
    assert api.must("GET", "/machine-config")["memory_kind"] == "cow"
    api.refused("PATCH", "/machine-config", {"memory_kind": "private"}, "memory_kind: must be one of auto, shared, cow")
    api.must("PATCH", "/machine-config", {"memory_kind": "auto"})
    assert "memory_kind" not in api.must("GET", "/machine-config")  # what is Hull's own is told where it was asked for


def test_vhost_user_needs_shared_memory(vmm):
    refused = vmm({"boot-source": {"kernel_image_path": "/k"}, "machine-config": {"vcpu_count": 1, "mem_size_mib": 128, "memory_kind": "cow"},
                   "drives": [{"drive_id": "user", "is_root_device": False, "path_on_host": "/d", "socket": "/s"}]})
    assert refused.wait() == 1
    assert refused.log == ("hull-vmm: drives[0].socket: vhost-user maps the guest's memory, and of memory_kind cow it is private to the "
                           "monitor: use shared\n")


# With a guest, and a host that counts.

@pytest.fixture
def cgroup(request):
    """A cgroup of the test's own, with a memory controller."""
    top = Path("/sys/fs/cgroup")
    if not (top / "cgroup.controllers").exists():
        pytest.skip("needs a cgroup v2")
    (top / "cgroup.subtree_control").write_text("+memory")
    path = top / f"hull-{abs(hash(request.node.name)):x}"
    path.mkdir()
    yield path
    path.rmdir()


class Guest:
    """A machine with a balloon, whose guest is told what to do."""

    def __init__(self, machine, cgroup, metrics_path):
        self.machine = machine
        self.cgroup = cgroup
        self.counts = Counts(machine, metrics_path)
        self.told = 0
        machine.wait_for("guest: ready")

    def tell(self, command):
        """The last line that it says, once it is done."""
        self.told += 1
        self.machine.send(f'echo guest: {self.told} "$({command} 2>&1 | tail -n 1)"\n')
        return self.machine.wait_for(rf"^guest: {self.told} (.*?)\r?$").group(1)

    def free_mib(self):
        return int(self.tell("grep MemFree /proc/meminfo").split()[1]) // 1024

    def fill(self, mib):
        self.tell(f"dd if=/dev/zero of=/mnt/file bs=1M count={mib}")
        assert self.tell("stat -c %s /mnt/file") == str(mib * MIB)

    def empty(self):
        self.tell("rm /mnt/file")

    def use_again(self):
        """Memory that was given back and comes again is memory. (The first write to each page costs, and so does a comparison.)"""
        assert self.tell(f"{{ dd if=/dev/urandom of=/mnt/a bs=1M count={AGAIN_MIB}; cp /mnt/a /mnt/b; cmp /mnt/a /mnt/b && echo equal; }}") == "equal"

    def pss_mib(self):
        rollup = Path(f"/proc/{self.machine.process.pid}/smaps_rollup").read_text()
        return int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE).group(1)) / 1024

    def charged_mib(self):
        return int((self.cgroup / "memory.current").read_text()) / MIB

    def held(self):
        return self.pss_mib(), self.charged_mib()

    def balloon(self):
        return self.machine.must("GET", "/balloon/statistics")

    def inflate(self, mib):
        self.machine.must("PATCH", "/balloon", {"amount_mib": mib})
        until(lambda: self.balloon()["actual_mib"] == mib)

    def counted(self):
        """What the balloon counted since the last time."""
        return self.counts.next()["balloon"]

    def bye(self):
        self.machine.send("poweroff -f\n")
        assert self.machine.wait() == 0


@pytest.fixture
def start(cgroup, vmm, vmlinux, initramfs, tmp_path_factory):
    """start(balloon, **machine): a guest, in a cgroup of its own."""

    def start(balloon, options=(), modules=MODULES, **machine):
        config = {"boot-source": {"kernel_image_path": str(vmlinux), "initrd_path": str(initramfs(SHELL, modules)),
                                  "boot_args": BOOT_ARGS},
                  "machine-config": {"vcpu_count": 1, "mem_size_mib": MEMORY_MIB, **machine}, "balloon": balloon}
        path, metrics_path = (tmp_path_factory.mktemp("config") / name for name in ("config.json", "metrics"))
        config["metrics"] = {"metrics_path": str(metrics_path)}
        path.write_text(json.dumps(config))
        return Guest(vmm(None, "--config-file", path, *options,
                         wrapper=["sh", "-c", f'echo $$ > {cgroup}/cgroup.procs; exec "$@"', "sh"]), cgroup, metrics_path)

    yield start


# Each page costs an emulated host dearly: no larger than a tenth of the file stands out from what a guest does beside.
MEMORY_MIB, FILE_MIB, AGAIN_MIB = 384, 224, 16


def given_back(before, after, mib=FILE_MIB):
    """Of what the guest has freed, how much the host has again; by each of the two measures."""
    return [(b - a) / mib for b, a in zip(before, after)]


def fill_and_empty(guest):
    """What the monitor holds when the guest has filled FILE_MIB and freed them again."""
    guest.fill(FILE_MIB)
    filled = guest.held()
    assert min(filled) > FILE_MIB
    guest.empty()
    return filled


@pytest.mark.kvm
@pytest.mark.parametrize("kind, pages", [("shared", "None"), ("cow", "None"), ("cow", "Transparent")])
def test_inflation_gives_back_what_the_guest_freed(start, kind, pages):
    guest = start({"amount_mib": 0, "deflate_on_oom": False, "stats_polling_interval_s": 1}, memory_kind=kind, huge_pages=pages)
    filled = fill_and_empty(guest)
    target = guest.free_mib() - 20
    kept = guest.held()
    assert max(given_back(filled, kept)) < 0.1  # so far it has heard nothing
    guest.inflate(target)
    given = given_back(filled, guest.held())
    print(f"{kind}, pages {pages}: a balloon of {target} MiB gave back {given[0]:.1%} (PSS), {given[1]:.1%} (cgroup) of {FILE_MIB} MiB")
    assert min(given) >= 0.9
    assert guest.free_mib() < 60
    guest.inflate(0)
    counted = guest.counted()
    assert counted["inflate_count"] >= target and counted["deflate_count"] >= target  # Linux hands them over by the mebibyte
    assert counted["stats_updates_count"] > 0
    assert counted["event_fails"] == counted["stats_update_fails"] == counted["activate_fails"] == counted["cfg_fails"] == 0
    assert guest.free_mib() > FILE_MIB
    guest.use_again()
    guest.bye()


@pytest.mark.kvm
@pytest.mark.parametrize("kind", ["shared", "cow"])
def test_free_page_reporting_gives_back_what_the_guest_freed(start, kind):
    guest = start({"amount_mib": 0, "deflate_on_oom": False, "free_page_reporting": True}, memory_kind=kind)
    filled = fill_and_empty(guest)
    until(lambda: min(given_back(filled, guest.held())) >= 0.9)
    given = given_back(filled, guest.held())
    counted = guest.counted()
    assert counted["free_page_report_freed"] >= 0.9 * FILE_MIB * MIB and counted["free_page_report_fails"] == 0
    assert 0 < counted["free_page_report_count"] <= counted["free_page_report_freed"] / (2 * MIB)
    print(f"{kind}: reporting gave back {given[0]:.1%} (PSS), {given[1]:.1%} (cgroup) of {FILE_MIB} MiB")
    guest.use_again()
    guest.bye()


@pytest.mark.kvm
@pytest.mark.parametrize("kind", ["shared", "cow"])
def test_a_run_of_hinting_gives_back_what_the_guest_freed(start, kind):
    guest = start({"amount_mib": 0, "deflate_on_oom": False, "free_page_hinting": True}, memory_kind=kind)
    machine = guest.machine
    assert machine.must("GET", "/balloon/hinting/status") == {"host_cmd": 0, "guest_cmd": None}
    filled = fill_and_empty(guest)
    machine.must("PATCH", "/balloon/hinting/start")
    until(lambda: machine.must("GET", "/balloon/hinting/status") == {"host_cmd": 1, "guest_cmd": 0})
    given = given_back(filled, guest.held())
    print(f"{kind}: a run of hinting gave back {given[0]:.1%} (PSS), {given[1]:.1%} (cgroup) of {FILE_MIB} MiB")
    # The guest names whole blocks of 4 MiB: one page that a processor still has in its list of free ones keeps a block. 87 to 95 % were seen.
    assert min(given) >= 0.8
    # The guest keeps what it has named until it is told that it may have it again.
    machine.must("PATCH", "/balloon/hinting/start", {"acknowledge_on_stop": False})
    until(lambda: machine.must("GET", "/balloon/hinting/status") == {"host_cmd": 3, "guest_cmd": 0})
    assert guest.free_mib() < FILE_MIB / 2
    machine.must("PATCH", "/balloon/hinting/stop")
    assert machine.must("GET", "/balloon/hinting/status") == {"host_cmd": 1, "guest_cmd": 0}
    until(lambda: guest.free_mib() > FILE_MIB)
    guest.fill(FILE_MIB)  # all of it
    guest.bye()


@pytest.mark.kvm
@pytest.mark.parametrize("deflates", [True, False])
def test_a_guest_out_of_memory_takes_from_its_balloon(start, deflates):
    guest = start({"amount_mib": 0, "deflate_on_oom": deflates, "stats_polling_interval_s": 1}, mem_size_mib=256)
    target = guest.free_mib() - 30
    guest.inflate(target)
    # A process that needs more than what is left.
    ended = guest.tell("dd if=/dev/zero of=/dev/null bs=90M count=1; echo $?")
    if deflates:
        assert ended == "0"
        assert 40 <= until(lambda: target - guest.balloon()["actual_mib"])
    else:
        assert ended != "0"
        assert guest.balloon()["actual_mib"] == target
    assert guest.machine.must("GET", "/balloon")["amount_mib"] == guest.balloon()["target_mib"] == target
    guest.bye()


@pytest.mark.kvm
def test_statistics_are_polled(start):
    guest = start({"amount_mib": 0, "deflate_on_oom": False, "stats_polling_interval_s": 1})
    machine = guest.machine
    first = until(lambda: (stats := guest.balloon()).get("free_memory") and stats)
    assert first["target_pages"] == first["target_mib"] == first["actual_pages"] == first["actual_mib"] == 0
    assert 200 * MIB < first["free_memory"] < first["total_memory"] < MEMORY_MIB * MIB and first["available_memory"] > 200 * MIB
    assert {"swap_in", "swap_out", "major_faults", "minor_faults", "disk_caches", "hugetlb_allocations", "hugetlb_failures"} <= set(first)
    guest.fill(100)
    until(lambda: guest.balloon()["free_memory"] < first["free_memory"] - 90 * MIB)
    # The next one comes at once, and then at the new interval.
    machine.must("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 3600})
    assert machine.must("GET", "/balloon")["stats_polling_interval_s"] == 3600
    machine.refused("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 0}, "Statistics cannot be enabled/disabled after activation.")
    machine.refused("PATCH", "/balloon/statistics", {}, "stats_polling_interval_s: is required")
    machine.refused("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 1, "amount_mib": 1}, "amount_mib: unknown field")
    assert machine.must("GET", "/balloon")["stats_polling_interval_s"] == 3600
    guest.bye()


@pytest.mark.kvm
def test_a_running_machines_balloon_is_changed_in_its_target_only(start):
    guest = start({"amount_mib": 16, "deflate_on_oom": False, "stats_polling_interval_s": 1})
    machine = guest.machine
    until(lambda: guest.balloon()["actual_mib"] == 16)
    machine.refused("PUT", "/balloon", WHOLE, NOT_ANY_MORE)
    machine.refused("PATCH", "/balloon", {}, "amount_mib: is required")
    machine.refused("PATCH", "/balloon", None, "Empty PATCH request.")
    machine.refused("PATCH", "/balloon", {"amount_mib": MEMORY_MIB + 1}, f"too large for a machine of {MEMORY_MIB} MiB")
    machine.refused("PATCH", "/balloon", {"amount_mib": 1, "deflate_on_oom": True}, "deflate_on_oom: unknown field")
    machine.refused("PATCH", "/balloon/hinting/start", None, "Attempting to use hinting when not enabled")
    machine.refused("PATCH", "/balloon/hinting/start", {"acknowledge": True}, "acknowledge: unknown field")
    machine.refused("PATCH", "/balloon/hinting/stop", None, "Attempting to use hinting when not enabled")
    machine.refused("GET", "/balloon/hinting/status", None, "Attempting to use hinting when not enabled")
    assert machine.must("GET", "/balloon")["amount_mib"] == guest.balloon()["target_mib"] == 16
    # Told while it is paused, the guest hears it afterwards.
    machine.must("PATCH", "/vm", {"state": "Paused"})
    machine.must("PATCH", "/balloon", {"amount_mib": 32})
    assert guest.balloon()["target_mib"] == 32 and guest.balloon()["actual_mib"] == 16
    machine.must("PATCH", "/vm", {"state": "Resumed"})
    until(lambda: guest.balloon()["actual_mib"] == 32)
    # A driver that is there anew starts from nothing.
    driver = "/sys/bus/virtio/drivers/virtio_balloon"
    device = guest.tell(f"cd {driver}; echo virtio*")
    guest.tell(f"echo {device} > {driver}/unbind")
    assert guest.balloon()["actual_mib"] == 0
    machine.refused("PATCH", "/balloon", {"amount_mib": 8}, "Device not activated yet.")
    assert machine.must("GET", "/balloon")["amount_mib"] == 32
    guest.tell(f"echo {device} > {driver}/bind")
    until(lambda: guest.balloon()["actual_mib"] == 32)
    guest.bye()


@pytest.mark.kvm
def test_all_of_it_over_pci(start):
    guest = start(WHOLE, ["--enable-pci"])
    machine = guest.machine
    assert guest.tell("grep -c virtio0-inflate /proc/interrupts") == "1"
    until(lambda: guest.balloon().get("free_memory"))
    filled = fill_and_empty(guest)
    until(lambda: min(given_back(filled, guest.held())) >= 0.9)
    assert guest.counted()["free_page_report_freed"] >= 0.9 * FILE_MIB * MIB
    machine.must("PATCH", "/balloon/hinting/start")
    until(lambda: machine.must("GET", "/balloon/hinting/status") == {"host_cmd": 1, "guest_cmd": 0})
    assert guest.counted()["free_page_hint_freed"] >= 0.8 * FILE_MIB * MIB
    guest.inflate(64)
    guest.inflate(0)
    guest.bye()


@pytest.mark.kvm
def test_without_statistics_or_a_balloon(start):
    guest = start({"amount_mib": 0, "deflate_on_oom": False})
    guest.machine.refused("GET", "/balloon/statistics", None, "Received stats query when stats are disabled.")
    guest.machine.refused("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 1}, "Statistics cannot be enabled/disabled")
    guest.bye()
    guest = start(None, modules=["virtio_mmio"])
    for method, path, body in (("GET", "/balloon", None), ("PATCH", "/balloon", {"amount_mib": 1}), ("GET", "/balloon/statistics", None),
                               ("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 1}), ("PATCH", "/balloon/hinting/start", None),
                               ("PATCH", "/balloon/hinting/stop", None), ("GET", "/balloon/hinting/status", None)):
        guest.machine.refused(method, path, body, "No balloon device found.")
    guest.bye()


@pytest.fixture
def huge_pages():
    """So many pages of 2 MiB as a machine has."""
    path = Path("/proc/sys/vm/nr_hugepages")
    before = path.read_text()
    for how, what in (("drop_caches", "3"), ("compact_memory", "1")):  # a host that has run other tests has its memory in pieces
        path.with_name(how).write_text(what)
    path.write_text(str(MEMORY_MIB // 2))
    if int(path.read_text()) < MEMORY_MIB // 2:
        path.write_text(before)
        pytest.skip(f"the host has no {MEMORY_MIB // 2} huge pages")
    yield lambda: int(re.search(r"HugePages_Free:\s+(\d+)", Path("/proc/meminfo").read_text()).group(1)) * 2
    path.write_text(before)


@pytest.mark.kvm
@pytest.mark.parametrize("kind", ["shared", "cow"])
def test_a_balloon_gives_back_huge_pages_once_they_are_whole(start, huge_pages, kind):
    guest = start({"amount_mib": 0, "deflate_on_oom": False, "stats_polling_interval_s": 1}, memory_kind=kind, huge_pages="2M")
    guest.fill(FILE_MIB)
    filled = huge_pages()
    guest.empty()
    guest.inflate(guest.free_mib() - 20)
    print(f"{kind}: a balloon gave back {(huge_pages() - filled) / FILE_MIB:.1%} of {FILE_MIB} MiB in huge pages")
    assert huge_pages() - filled >= 0.9 * FILE_MIB
    guest.inflate(0)
    guest.use_again()
    guest.bye()


@pytest.mark.kvm
@pytest.mark.parametrize("kind", ["shared", "cow"])
def test_reporting_gives_back_huge_pages(start, huge_pages, kind):
    guest = start({"amount_mib": 0, "deflate_on_oom": False, "free_page_reporting": True}, memory_kind=kind, huge_pages="2M")
    guest.fill(FILE_MIB)
    filled = huge_pages()
    guest.empty()
    until(lambda: huge_pages() - filled >= 0.9 * FILE_MIB)
    print(f"{kind}: reporting gave back {(huge_pages() - filled) / FILE_MIB:.1%} of {FILE_MIB} MiB in huge pages")
    counted = guest.counted()
    assert counted["free_page_report_freed"] >= 0.9 * FILE_MIB * MIB and counted["free_page_report_fails"] == 0
    guest.use_again()
    guest.bye()
