"""The API's socket as a client of Firecracker's meets it: routes, states, refusals, and the socket's own manners."""
import json
import os
import re
import signal
import socket

import pytest

from conftest import BOOT_ARGS, DEADLINE, UnixConnection

NOT_YET = "not supported before starting the microVM"
NOT_ANY_MORE = "not supported after starting the microVM"

# What the machine's description is made of: path, a body that is taken, and (body, reason) of some that are not.
PIECES = {
    "/boot-source": ({"kernel_image_path": "{kernel}", "boot_args": "quiet", "initrd_path": None}, [
        ({}, "kernel_image_path: is required"), ({"kernel_image_path": "/missing"}, "kernel_image_path: /missing: No such file"),
        ({"kernel_image_path": "{kernel}", "initrd_path": "/"}, "initrd_path: /: not a regular file"),
        ({"kernel_image_path": "{kernel}", "boot_arg": ""}, 'boot_arg: unknown field; did you mean "boot_args"?')]),
    "/machine-config": ({"vcpu_count": 2, "mem_size_mib": 256, "smt": True, "huge_pages": "None", "track_dirty_pages": False}, [
        ({"vcpu_count": 2}, "mem_size_mib: is required"), ({"vcpu_count": 0, "mem_size_mib": 128}, "vcpu_count: must be 1 to 32"),
        ({"vcpu_count": 33, "mem_size_mib": 128}, "vcpu_count"), ({"vcpu_count": 3, "mem_size_mib": 128, "smt": True}, "even"),
        ({"vcpu_count": "2", "mem_size_mib": 128}, "vcpu_count: must be an integer")]),
    "/cpu-config": ({"kvm_capabilities": ["!56"], "msr_modifiers": [{"addr": "0x10a", "bitmap": "0bx"}], "cpuid_modifiers": [
        {"leaf": "0x7", "subleaf": "0x0", "flags": 1, "modifiers": [{"register": "ebx", "bitmap": "0b0xxxxx"}]}]}, [
            ({"kvm_capabilities": ["x"]}, "kvm_capabilities[0]: must be the number of a KVM capability"),
            ({"cpuid_modifiers": [{"leaf": "0x7", "subleaf": "0x0", "flags": 1, "modifiers": [{"register": "rbx", "bitmap": "0b0"}]}]},
             "cpuid_modifiers[0].modifiers[0].register: must be one of eax, ebx, ecx, edx"),
            ({"msr_modifiers": [{"addr": "0x10a", "bitmap": "10"}]}, "msr_modifiers[0].bitmap: must be 1 to 64 of 0, 1 and x"),
            ({"reg_modifiers": []}, "reg_modifiers: unknown field")]),
    "/drives/data": ({"drive_id": "data", "path_on_host": "{disk}", "is_root_device": False, "is_read_only": True}, [
        ({"drive_id": "other", "path_on_host": "{disk}", "is_root_device": False}, 'drive_id: is "other", and the path says "data"'),
        ({"drive_id": "data", "path_on_host": "/missing", "is_root_device": False}, "path_on_host: /missing"),
        ({"drive_id": "data", "path_on_host": "{empty}", "is_root_device": False}, "path_on_host"),
        ({"drive_id": "data", "path_on_host": "{disk}"}, "is_root_device: is required"),
        ({"drive_id": "data", "path_on_host": "{disk}", "is_root_device": False, "io_engine": "async"}, "io_engine: must be one of")]),
    "/network-interfaces/eth0": ({"iface_id": "eth0", "stream_socket_path": "/passt.sock", "guest_mac": "06:00:ac:10:00:02"}, [
        ({"iface_id": "eth0"}, "host_dev_name"), ({"iface_id": "eth1", "stream_socket_path": "/s"}, "the path says"),
        ({"iface_id": "eth0", "stream_socket_path": "/s", "guest_mac": "01:00:ac:10:00:02"}, "guest_mac: is a multicast"),
        ({"iface_id": "eth0", "stream_socket_path": "/s", "mtu": 67}, "mtu: must be 68 to 65535")]),
    "/pmem/data": ({"id": "data", "path_on_host": "{disk}", "root_device": False, "read_only": True}, [
        ({"id": "other", "path_on_host": "{disk}"}, 'id: is "other", and the path says "data"'),
        ({"id": "data", "path_on_host": "/missing"}, "path_on_host: /missing"),
        ({"id": "data", "path_on_host": "{empty}"}, "is empty"), ({"id": "data"}, "path_on_host: is required"),
        ({"id": "data", "path_on_host": "{disk}", "readonly": True}, 'did you mean "read_only"?')]),
    "/hotplug/memory": ({"total_size_mib": 512, "block_size_mib": 4, "slot_size_mib": 256}, [
        ({}, "total_size_mib: is required"), ({"total_size_mib": 1024, "block_size_mib": 3}, "block_size_mib: must be a power of two"),
        ({"total_size_mib": 1000}, "total_size_mib: must be a multiple of slot_size_mib"),
        ({"total_size_mib": 1024, "slot_size_mib": 64}, "slot_size_mib: must be 128"),
        ({"total_size_mib": 1024, "requested_size_mib": 2}, "requested_size_mib: unknown field")]),
    "/vsock": ({"guest_cid": 3, "uds_path": "/tmp/v.sock"}, [
        ({"guest_cid": 2, "uds_path": "/v"}, "guest_cid: must be 3"), ({"guest_cid": 3}, "uds_path: is required")]),
    "/entropy": ({}, [({"rate": 1}, "rate: unknown field"), ([], "must be an object")]),
    "/serial": ({"serial_out_path": "/dev/null"}, [({"serial_out_path": 1}, "serial_out_path: must be a string")]),
}


@pytest.fixture
def api(vmm):
    return vmm(None)


@pytest.fixture
def fill(tmp_path_factory):
    """fill(body): with real files where it says {kernel}, {disk} and {empty}."""
    folder = tmp_path_factory.mktemp("files")
    for name, size in (("kernel", 4096), ("disk", 1 << 20), ("empty", 0)):
        (folder / name).write_bytes(b"\0" * size)

    def fill(body):
        text = json.dumps(body)
        for name in ("kernel", "disk", "empty"):
            text = text.replace("{%s}" % name, str(folder / name))
        return json.loads(text)

    return fill


def test_what_it_is(api):
    assert api.must("GET", "/") == {"app_name": "Hull", "id": "hull-vmm", "state": "Not started", "vmm_version": "0.1.0"}
    assert api.must("GET", "/version") == {"firecracker_version": "1.17.0"}
    assert api.must("GET", "/machine-config") == {"vcpu_count": 1, "mem_size_mib": 128, "smt": False, "track_dirty_pages": False,
                                                  "huge_pages": "None"}
    config = api.must("GET", "/vm/config")
    assert config["boot-source"]["kernel_image_path"] == "" and config["drives"] == [] and config["vsock"] is None
    api.terminate()
    assert api.wait() == 0 and api.status["cause"] == "signal"


@pytest.mark.parametrize("path", PIECES)
def test_each_piece_is_taken_and_read_again(api, fill, path):
    body = fill(PIECES[path][0])
    api.must("PUT", path, body)
    api.must("PUT", path, body)  # once more replaces it
    section = api.must("GET", "/vm/config")["memory-hotplug" if path == "/hotplug/memory" else path.split("/")[1]]
    if isinstance(section, list):
        assert len(section) == 1
        section = section[0]
    assert body.items() <= section.items()


@pytest.mark.parametrize("path, body, reason", [(path, body, reason) for path, (_, wrong) in PIECES.items() for body, reason in wrong])
def test_what_a_piece_may_not_be(api, fill, path, body, reason):
    before = api.must("GET", "/vm/config")
    api.refused("PUT", path, fill(body), reason)
    assert api.must("GET", "/vm/config") == before


def test_a_machine_is_changed_in_part(api):
    api.must("PATCH", "/machine-config", {"vcpu_count": 4})
    api.must("PATCH", "/machine-config", {"mem_size_mib": 512, "smt": True})
    assert api.must("GET", "/machine-config") == {"vcpu_count": 4, "mem_size_mib": 512, "smt": True, "track_dirty_pages": False,
                                                  "huge_pages": "None"}
    api.refused("PATCH", "/machine-config", {"vcpu_count": 5}, "even")
    api.refused("PATCH", "/machine-config", {}, "Empty PATCH request.")
    api.refused("PATCH", "/machine-config", {"vcpus": 5}, "vcpus: unknown field")
    assert api.must("GET", "/machine-config")["vcpu_count"] == 4


def test_drives_and_interfaces_are_taken_out_again(api, fill):
    for path in ("/drives/data", "/network-interfaces/eth0", "/pmem/data"):
        api.refused("DELETE", path, None, "has no")
        api.must("PUT", path, fill(PIECES[path][0]))
        api.must("DELETE", path)
        api.refused("DELETE", path, None, "has no")
    assert api.must("GET", "/vm/config")["drives"] == []


def test_a_file_is_the_root_device_or_a_drive_is(api, fill):
    drive = fill({"drive_id": "a", "path_on_host": "{disk}", "is_root_device": True})
    pmem = fill({"id": "p", "path_on_host": "{disk}", "root_device": True})
    api.must("PUT", "/drives/a", drive)
    api.refused("PUT", "/pmem/p", pmem, 'drive "a" is the root device already')
    api.must("DELETE", "/drives/a")
    api.must("PUT", "/pmem/p", pmem)
    api.refused("PUT", "/drives/a", drive, "the root device already")
    api.refused("PUT", "/pmem/q", {**pmem, "id": "q"}, "the root device already")


def test_two_root_devices_are_one_too_many(api, fill):
    root = fill({"drive_id": "a", "path_on_host": "{disk}", "is_root_device": True})
    api.must("PUT", "/drives/a", root)
    api.refused("PUT", "/drives/b", {**root, "drive_id": "b"}, "the root device already")
    api.must("PUT", "/drives/a", {**root, "is_root_device": False})
    api.must("PUT", "/drives/b", {**root, "drive_id": "b"})


@pytest.mark.parametrize("method, path, body, reason", [
    ("GET", "/nothing", None, "Invalid request method and/or path: GET /nothing."),
    ("PUT", "/", {}, "Invalid request method and/or path"),
    ("DELETE", "/vsock", None, "Invalid request method and/or path"),
    ("POST", "/actions", {}, "Invalid request method and/or path: POST /actions."),
    ("GET", "/version/x", None, "Invalid request method and/or path"),
    ("GET", "/", {}, "GET request cannot have a body."),
    ("PUT", "/boot-source", None, "Empty PUT request."),
    ("PATCH", "/vm", None, "Empty PATCH request."),
    ("PUT", "/drives", {}, "The ID cannot be empty."),
    ("PUT", "/drives/", {}, "The ID cannot be empty."),
    ("PUT", "/drives/a-b", {}, "alphanumeric"),
    ("PUT", "/drives/" + "a" * 65, {}, "alphanumeric"),
    ("PUT", "/drives/a/b", {}, "Invalid request method and/or path"),
    ("PUT", "/vsock", "{", "not valid JSON"),
    ("PUT", "/vsock", b"\xff\xfe", "not valid JSON"),
    ("PUT", "/vsock", '{"guest_cid":3,"guest_cid":3}', "duplicate"),
    ("PUT", "/vsock", "[" * 5000, "JSON"),
    ("PUT", "/actions", {"action_type": "InstanceStop"}, "action_type: must be one of"),
    ("PUT", "/actions", {}, "action_type: is required"),
    ("PUT", "/actions", {"action_type": "InstanceStart"}, "boot-source: no kernel has been named to boot"),
    ("PATCH", "/vm", {"state": "Paused"}, NOT_YET),
    ("GET", "/hotplug/memory", None, NOT_YET),
    ("PATCH", "/hotplug/memory", {"requested_size_mib": 128}, NOT_YET),
    ("PATCH", "/pmem/data", {"id": "data"}, NOT_YET),
    ("PATCH", "/drives/data", {"drive_id": "data"}, NOT_YET),
    ("PATCH", "/network-interfaces/eth0", {"iface_id": "eth0"}, NOT_YET),
    ("DELETE", "/hotplug/memory", None, "Invalid request method and/or path"),
    ("GET", "/pmem/data", None, "Invalid request method and/or path"),
])
def test_what_is_refused_before_the_start(api, method, path, body, reason):
    api.refused(method, path, body, reason)
    assert api.must("GET", "/")["state"] == "Not started"


def test_bodies_have_a_limit(vmm):
    api = vmm(None, "--http-api-max-payload-size", "1000")
    path = {"guest_cid": 3, "uds_path": "/v"}
    fits = json.dumps(path) + " " * (1000 - len(json.dumps(path)))
    api.must("PUT", "/vsock", fits)
    api.refused("PUT", "/vsock", fits + " ", "1000 are taken at most", status=413)
    api.refused("PUT", "/vsock", "x" * (1 << 20), "1000 are taken at most", status=413)
    api.must("GET", "/")


def converse(path, sent, end=True):
    """What comes back for these bytes, until the server closes."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(path))
        if sent:
            client.sendall(sent)
        if end:
            client.shutdown(socket.SHUT_WR)
        got = b""
        while more := client.recv(65536):
            got += more
        return got


def test_the_sockets_manners(api):
    api.must("GET", "/")  # it is there
    path = api.socket_path
    assert os.stat(path).st_mode & 0o777 == 0o600
    # Requests sent ahead are answered in order; one byte at a time makes no difference.
    two = b"GET /version HTTP/1.1\r\n\r\nPUT /entropy HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}GET /no HTTP/1.0\r\n\r\n"
    answer = converse(path, two, end=False)
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"200", b"204", b"400"]
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(path))
        for byte in b"PUT /entropy HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n":
            client.send(bytes([byte]))
        assert client.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"{}")
        assert client.recv(4096).startswith(b"HTTP/1.1 204 ")
    # What is no HTTP is answered, and ends its own connection only.
    assert converse(path, b"hello\r\n\r\n", end=False).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert converse(path, b"PUT /vsock HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", end=False).startswith(b"HTTP/1.1 501 ")
    assert converse(path, b"x" * 9000, end=False).startswith(b"HTTP/1.1 413 ")
    assert converse(path, b"PUT /vsock HTTP/1.1\r\nContent-Length: 10\r\n\r\n{}") == b""  # left in the middle
    api.must("GET", "/")


def test_too_many_clients_are_told(api):
    api.must("GET", "/")
    clients = []
    try:
        for _ in range(15):  # and the one above
            clients.append(UnixConnection(api.socket_path))
            clients[-1].connect()
            clients[-1].request("GET", "/version")
            assert clients[-1].getresponse().read()
        # It is told at once: what it would send could meet a closed socket.
        assert converse(api.socket_path, b"", end=False).startswith(b"HTTP/1.1 503 ")
        clients.pop().close()
        api.must("GET", "/")
    finally:
        for client in clients:
            client.close()


def test_a_socket_in_use_is_not_taken_over(api, vmm, tmp_path_factory):
    api.must("GET", "/")
    folder = tmp_path_factory.mktemp("second")
    second = type(api)(None, folder, ["--api-sock", api.socket_path])
    assert second.process.wait(DEADLINE) == 1
    assert "--api-sock" in second.log and "another process listens there" in second.log
    second.close()
    api.must("GET", "/")


def test_a_thousand_reconfigurations_leave_nothing_behind(api, fill):
    drive, net = fill(PIECES["/drives/data"][0]), PIECES["/network-interfaces/eth0"][0]

    def held():
        status = open(f"/proc/{api.process.pid}/status").read()
        rss = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        return len(os.listdir(f"/proc/{api.process.pid}/fd")), len(os.listdir(f"/proc/{api.process.pid}/task")), rss

    def reconfigure(times):
        for i in range(times):
            api.must("PUT", "/drives/data", {**drive, "is_read_only": bool(i % 2)})
            api.must("PUT", "/network-interfaces/eth0", {**net, "mtu": 1000 + i % 100})
            if i % 3 == 0:
                api.must("DELETE", "/drives/data")
                api.must("DELETE", "/network-interfaces/eth0")

    reconfigure(100)
    before = held()
    reconfigure(1000)
    after = held()
    assert after[:2] == before[:2] and after[2] - before[2] <= 64, (before, after)


# With a guest.

@pytest.fixture
def guest(vmm, vmlinux, initramfs):
    """guest(script, pieces, *arguments): put together by requests and started; the monitor."""

    def start(script, pieces=None, arguments=(), modules=(), files=None):
        api = vmm(None, *arguments)
        api.must("PUT", "/boot-source", {"kernel_image_path": str(vmlinux), "initrd_path": str(initramfs(script, modules, files)),
                                         "boot_args": BOOT_ARGS})
        for path, body in (pieces or {}).items():
            api.must("PUT", path, body)
        api.must("PUT", "/actions", {"action_type": "InstanceStart"})
        return api

    return start


@pytest.mark.kvm
def test_a_machine_from_its_first_request_to_its_end(guest, tmp_path_factory):
    disk = tmp_path_factory.mktemp("disk") / "disk"
    disk.write_bytes(b"written before" + b"\0" * ((1 << 20) - 14))
    drive = {"drive_id": "disk", "path_on_host": str(disk), "is_root_device": False}
    api = guest("echo guest: $(head -c 14 /dev/vda); while read -r line; do echo heard $line; [ $line = off ] && poweroff -f; done",
                {"/machine-config": {"vcpu_count": 1, "mem_size_mib": 192}, "/drives/disk": drive, "/entropy": {}},
                ("--id", "vm-1"), ["virtio_mmio", "virtio_blk"])
    assert api.must("GET", "/") == {"app_name": "Hull", "id": "vm-1", "state": "Running", "vmm_version": "0.1.0"}
    api.wait_for("guest: written before")
    # After the start, nothing of what it was made of is changed.
    for path, (body, _) in PIECES.items():
        api.refused("PUT", path, body, NOT_ANY_MORE)
    api.refused("PATCH", "/machine-config", {"vcpu_count": 2}, NOT_ANY_MORE)
    api.refused("PUT", "/actions", {"action_type": "InstanceStart"}, NOT_ANY_MORE)
    api.refused("PATCH", "/vm", {"state": "paused"}, "state: must be one of")
    assert api.must("GET", "/vm/config")["drives"][0]["path_on_host"] == str(disk)
    # Paused, it hears nothing and says nothing; resumed, it has heard all.
    api.must("PATCH", "/vm", {"state": "Paused"})
    api.must("PATCH", "/vm", {"state": "Paused"})
    assert api.must("GET", "/")["state"] == "Paused"
    said = len(api.output)
    api.send("one\n")
    api.refused("PUT", "/actions", {"action_type": "InstanceStart"}, NOT_ANY_MORE)
    assert len(api.output) == said
    api.must("PATCH", "/vm", {"state": "Resumed"})
    api.must("PATCH", "/vm", {"state": "Resumed"})
    api.wait_for("heard one")
    api.send("off\n")
    assert api.wait() == 0 and api.status["cause"] == "poweroff"


@pytest.mark.kvm
def test_a_start_that_fails_can_be_tried_again(vmm, vmlinux, initramfs, tmp_path_factory):
    api = vmm(None)
    no_kernel = tmp_path_factory.mktemp("kernel") / "none"
    no_kernel.write_bytes(b"no kernel" * 1000)
    good = {"kernel_image_path": str(vmlinux), "initrd_path": str(initramfs("poweroff -f")), "boot_args": "quiet panic=-1"}
    descriptors = None
    for _ in range(3):
        api.must("PUT", "/boot-source", {**good, "kernel_image_path": str(no_kernel)})
        api.refused("PUT", "/actions", {"action_type": "InstanceStart"}, "boot-source.kernel_image_path")
        assert api.must("GET", "/")["state"] == "Not started"
        now = len(os.listdir(f"/proc/{api.process.pid}/fd"))
        assert descriptors in (None, now)
        descriptors = now
    api.must("PUT", "/boot-source", good)
    api.must("PUT", "/actions", {"action_type": "InstanceStart"})
    assert api.wait() == 0 and api.status["cause"] == "poweroff"


@pytest.mark.kvm
def test_a_paused_machine_ends_in_good_order(guest):
    api = guest("echo guest: up; while :; do :; done")
    api.wait_for("guest: up")
    api.must("PATCH", "/vm", {"state": "Paused"})
    api.terminate(signal.SIGINT)
    assert api.wait() == 0 and api.status["cause"] == "signal"
