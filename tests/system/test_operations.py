"""How a machine is operated: metrics, logs, an orderly end."""
import json
import os
import re
import select
import subprocess
import time

import pytest

from conftest import BUILD, DEADLINE

from test_vmm import config  # noqa: F401 (a fixture)


@pytest.fixture
def boot(vmm, config, initramfs, tmp_path_factory):
    """boot(script, modules, arguments): a guest that runs `script` on the machine that `config` describes, with an API."""

    def start(script, modules=(), arguments=()):
        config["boot-source"]["initrd_path"] = str(initramfs(script, modules))
        path = tmp_path_factory.mktemp("config") / "config.json"
        path.write_text(json.dumps(config))
        return vmm(None, "--config-file", path, *arguments)

    return start


class Lines:
    """The lines of JSON in a FIFO, as they come."""

    def __init__(self, fifo):
        self.file = os.fdopen(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)
        self.text = b""

    def next(self):
        while b"\n" not in self.text:
            assert select.select([self.file], [], [], DEADLINE)[0], "no more lines came in time"
            more = self.file.read(65536)
            assert more, "the lines ended"
            self.text += more
        line, self.text = self.text.split(b"\n", 1)
        return json.loads(line)


@pytest.mark.kvm
def test_metrics_tell_what_the_guest_did(boot, config, tmp_path_factory):
    """To a FIFO, whose reader comes when the guest has done all its work."""
    folder = tmp_path_factory.mktemp("metrics")
    fifo = folder / "metrics.fifo"
    os.mkfifo(fifo)
    (folder / "data").write_bytes(b"\0" * (8 << 20))
    config["drives"] = [{"drive_id": "data", "path_on_host": str(folder / "data"), "is_root_device": False, "cache_type": "Writeback",
                         "io_engine": "Async"}]
    config["entropy"] = {}
    config["vsock"] = {"guest_cid": 3, "uds_path": str(folder / "vsock")}
    config["metrics"] = {"metrics_path": str(fifo), "emit_id": True, "properties": {"customer": "1234"}}
    machine = boot("""dd if=/dev/vda of=/dev/null bs=64k count=16 iflag=direct
        dd if=/dev/zero of=/dev/vda bs=64k count=4 oflag=direct conv=fsync
        head -c 4096 /dev/hwrng > /dev/null
        echo guest: ready; read line; echo guest: bye; poweroff -f""", ["virtio_mmio", "virtio_blk", "virtio_rng"], ["--id", "web-1"])
    machine.wait_for("guest: ready")
    machine.must("PATCH", "/vm", {"state": "Paused"})
    machine.must("PATCH", "/vm", {"state": "Resumed"})
    machine.must("PUT", "/actions", {"action_type": "FlushMetrics"})
    lines = Lines(fifo)
    line = lines.next()
    assert line["id"] == "web-1" and line["properties"] == {"customer": "1234"}
    drive = line["block_data"]
    assert drive["read_bytes"] >= 1 << 20 and drive["read_count"] >= 16  # and the partition table
    assert drive["write_bytes"] == 4 << 16 and drive["write_count"] >= 4 and drive["flush_count"] >= 1
    assert drive["write_agg"]["sum_us"] >= drive["write_agg"]["max_us"] >= drive["write_agg"]["min_us"] > 0
    assert drive["execute_fails"] == drive["invalid_reqs_count"] == drive["activate_fails"] == 0
    assert line["block"]["read_bytes"] == drive["read_bytes"]
    assert line["entropy"]["entropy_bytes"] >= 4096
    assert line["uart"]["write_count"] >= len("guest: ready\r\nguest: bye\r\n")
    assert line["vcpu"]["exit_io_out"] >= line["uart"]["write_count"] and line["vcpu"]["exit_mmio_read"] > 0
    assert line["vcpu"]["failures"] == 0
    assert line["interrupts"]["triggers"] > 0
    assert line["latencies_us"]["pause_vm"] > 0 and line["latencies_us"]["resume_vm"] > 0
    assert line["vsock"]["conns_added"] == line["net"]["rx_count"] == 0
    # What comes next is what was added: the last line comes by itself.
    machine.send("\n")
    assert machine.wait() == 0
    last = lines.next()
    assert last["block_data"]["write_bytes"] == 0
    assert last["entropy"]["entropy_bytes"] < 4096  # the guest's kernel asks for some of its own
    assert 0 < last["uart"]["write_count"] < line["uart"]["write_count"]
    assert lines.file.read() == b"" and not lines.text


def test_metrics_are_set_up_once_and_before_the_start(vmm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("metrics")
    api = vmm(None, "--start-time-us", str(time.monotonic_ns() // 1000), "--start-time-cpu-us=1", "--parent-cpu-time-us=1000")
    api.refused("PUT", "/actions", {"action_type": "FlushMetrics"}, "not supported before starting the microVM")
    api.refused("PUT", "/metrics", {}, "metrics_path: is required")
    api.refused("PUT", "/metrics", {"metrics_path": "/nonexistent/m"}, "metrics_path: /nonexistent/m: No such file")
    api.refused("PUT", "/metrics", {"metrics_path": str(folder / "m"), "properties": {"a": 1}}, "properties.a")
    api.must("PUT", "/metrics", {"metrics_path": str(folder / "m"), "emit_id": True})
    api.refused("PUT", "/metrics", {"metrics_path": str(folder / "n")}, "Reinitialization of metrics not allowed.")
    assert api.must("GET", "/vm/config")["metrics"] == {"metrics_path": str(folder / "m"), "emit_id": True}
    api.terminate()
    assert api.wait() == 0
    line = json.loads((folder / "m").read_text())
    assert line["id"] == "hull-vmm"
    assert line["put_api_requests"]["metrics_count"] == 5 and line["put_api_requests"]["metrics_fails"] == 4
    assert line["put_api_requests"]["actions_count"] == line["put_api_requests"]["actions_fails"] == 1
    assert line["get_api_requests"]["instance_info_count"] == line["put_api_requests"]["vsock_count"] == 0
    assert 0 < line["api_server"]["process_startup_time_us"] < DEADLINE * 1e6
    assert line["api_server"]["process_startup_time_cpu_us"] >= 1000
    assert not (folder / "n").exists()


@pytest.fixture
def firecracker(tmp_path_factory):
    """The monitor under Firecracker's name."""
    path = tmp_path_factory.mktemp("bin") / "firecracker"
    path.symlink_to(BUILD / "hull-vmm")
    return path


STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}"


def test_the_log_is_firecrackers_under_its_name(firecracker, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    done = subprocess.run([firecracker, "--no-api", "--config-file", "/dev/null", "--log-path", folder / "log", "--id", "vm-1"],
                          capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 1 and "line 1" in done.stderr
    (folder / "config.json").write_text(json.dumps({"boot-source": {"kernel_image_path": "/nonexistent"},
                                                    "logger": {"log_path": "/nonexistent/x", "level": "Error"}}))
    for shown, inner in (([], ""), (["--show-level", "--show-log-origin"], r":INFO:vmm/main\.c:\d+")):
        (folder / "log").unlink(missing_ok=True)
        # The command line has the last word.
        subprocess.run([firecracker, "--no-api", "--config-file", folder / "config.json", "--log-path", folder / "log", "--id", "vm-1",
                        "--level", "info", *shown], capture_output=True, timeout=DEADLINE)
        assert re.match(rf"{STAMP} \[vm-1:main{inner}\] Running Firecracker v1\.17\.0\n", (folder / "log").read_text())


def all_of(reader):
    """What lies in the FIFO now."""
    return (reader.read(1 << 20) or b"").decode()


def test_a_client_moves_the_log_and_narrows_it(vmm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    fifo = folder / "log.fifo"
    os.mkfifo(fifo)
    api = vmm(None)
    api.must("PUT", "/logger", {"log_path": str(fifo), "level": "Info", "show_log_origin": True})  # nobody reads it
    with os.fdopen(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as reader:
        api.must("GET", "/version")
        assert re.fullmatch(r"(\S+ INFO  hull-vmm: vmm/api\.c:\d+: API: \w+ /\w+: 20\d\n)+", all_of(reader))
        api.must("PUT", "/logger", {"module": "devices"})
        all_of(reader)
        api.must("GET", "/version")
        assert all_of(reader) == ""
        api.must("PUT", "/logger", {"module": "vmm", "show_log_origin": False})  # the file stays
        api.must("GET", "/version")
        assert "hull-vmm: API: GET /version: 200" in all_of(reader)
        # What the reader does not take is lost, and holds nothing up.
        for _ in range(1000):
            api.must("GET", "/version")
    for body, reason in (({"log_path": "/nonexistent/l"}, "log_path: /nonexistent/l: No such file"), ({"level": "loud"}, "must be one of"),
                         ({"module": "x" * 64}, "module"), ({"show_level": 1}, "show_level"), ({"colour": True}, "colour: unknown field")):
        api.refused("PUT", "/logger", body, reason)
