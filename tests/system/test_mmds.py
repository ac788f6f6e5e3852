"""The metadata service: its API, and a real guest's clients (busybox's wget and nc, curl) that read it without a host's network."""
import json
import random
import socket
import struct
import subprocess
import threading
import zlib
from pathlib import Path

import pytest

from conftest import DEADLINE, Counts

from test_api import NOT_ANY_MORE
from test_devices import NET, config, download, ip, network, server  # noqa: F401 (fixtures among them)

ADDRESS = "169.254.169.254"
DATA = {"latest": {"meta-data": {"ami-id": "ami-12345678", "network": {"mac": "06:00:00:00:00:01"}}, "user-data": "hello"}, "n": 1}
ETH0 = {"iface_id": "eth0", "stream_socket_path": "/passt.sock"}


# Without a guest.

@pytest.fixture
def api(vmm):
    return vmm(None)


def test_the_document_is_put_patched_and_read(api):
    assert api.must("GET", "/mmds") == {}
    api.refused("PATCH", "/mmds", {"a": 1}, "The MMDS data store is not initialized.")
    api.must("PUT", "/mmds", DATA)
    assert api.must("GET", "/mmds") == DATA
    api.must("PATCH", "/mmds", {"latest": {"user-data": None, "more": [1, None]}})  # RFC 7396
    patched = json.loads(json.dumps(DATA))
    del patched["latest"]["user-data"]
    patched["latest"]["more"] = [1, None]
    assert api.must("GET", "/mmds") == patched
    api.must("PUT", "/mmds", {"another": "one"})
    assert api.must("GET", "/mmds") == {"another": "one"}


@pytest.mark.parametrize("method, path, body, reason", [
    ("PUT", "/mmds", None, "Empty PUT request."), ("PUT", "/mmds", "{", "not valid JSON"), ("PATCH", "/mmds", None, "Empty PATCH request."),
    ("GET", "/mmds", {}, "GET request cannot have a body."), ("DELETE", "/mmds", None, "Invalid request method and/or path"),
    ("PUT", "/mmds/other", {}, "Invalid request method and/or path"), ("GET", "/mmds/config", None, "Invalid request method and/or path"),
    ("PATCH", "/mmds/config", {}, "Invalid request method and/or path")])
def test_what_is_refused(api, method, path, body, reason):
    api.refused(method, path, body, reason)


@pytest.mark.parametrize("body, reason", [
    ({}, "network_interfaces: is required"), ({"network_interfaces": []}, "network_interfaces: must not be empty"),
    ({"network_interfaces": "eth0"}, "network_interfaces: must be an array"),
    ({"network_interfaces": ["eth1"]}, 'mmds-config.network_interfaces: names "eth1", and no network interface has that id'),
    ({"network_interfaces": ["eth0"], "version": "V3"}, "version: must be one of"),
    ({"network_interfaces": ["eth0"], "ipv4_address": "169.254.0.1"}, "ipv4_address: must be link-local"),
    ({"network_interfaces": ["eth0"], "ipv4_address": "169.254.255.1"}, "ipv4_address: must be link-local"),
    ({"network_interfaces": ["eth0"], "ipv4_address": "10.0.0.1"}, "ipv4_address: must be link-local"),
    ({"network_interfaces": ["eth0"], "ipv4_address": "169.254.1"}, "ipv4_address: must be an IPv4 address"),
    ({"network_interfaces": ["eth0"], "imds_compat": "yes"}, "imds_compat: must be true or false"),
    ({"network_interfaces": ["eth0"], "imds": True}, 'imds: unknown field')])
def test_a_wrong_configuration_is_refused(api, body, reason):
    api.must("PUT", "/network-interfaces/eth0", ETH0)
    api.refused("PUT", "/mmds/config", body, reason)
    assert api.must("GET", "/vm/config")["mmds-config"] is None


def test_a_configuration_is_taken_and_read_again(api):
    api.must("PUT", "/network-interfaces/eth0", ETH0)
    api.must("PUT", "/mmds/config", {"network_interfaces": ["eth0"]})
    assert api.must("GET", "/vm/config")["mmds-config"] == {"network_interfaces": ["eth0"], "version": "V1", "ipv4_address": ADDRESS,
                                                            "imds_compat": False}
    wanted = {"network_interfaces": ["eth0"], "version": "V2", "ipv4_address": "169.254.170.2", "imds_compat": True}
    api.must("PUT", "/mmds/config", wanted)
    assert api.must("GET", "/vm/config")["mmds-config"] == wanted
    # What it names stays.
    api.refused("DELETE", "/network-interfaces/eth0", None, 'mmds-config.network_interfaces: names "eth0"')
    assert len(api.must("GET", "/vm/config")["network-interfaces"]) == 1


@pytest.mark.parametrize("arguments, limit", [((), 51200), (("--http-api-max-payload-size", "4000"), 4000),
                                              (("--mmds-size-limit", "100"), 100),
                                              (("--http-api-max-payload-size", "8000000"), 8000000),
                                              (("--mmds-size-limit", "100", "--http-api-max-payload-size", "4000"), 100)])
def test_the_document_has_a_limit(vmm, arguments, limit):
    api = vmm(None, *arguments)
    fits = {"a": "x" * (limit - len('{"a":""}'))}
    api.must("PUT", "/mmds", json.dumps(fits, separators=(",", ":")))
    over = json.dumps({"a": fits["a"] + "y"}, separators=(",", ":"))
    api.refused("PUT", "/mmds", over, str(limit), status=413)
    api.refused("PATCH", "/mmds", {"b": 1}, f"the data store holds {limit}", status=413)
    assert api.must("GET", "/mmds") == fits


def test_the_document_may_come_from_a_file(vmm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("metadata")
    (folder / "data").write_text(json.dumps(DATA))
    api = vmm(None, "--metadata", folder / "data")
    assert api.must("GET", "/mmds") == DATA
    api.terminate()
    assert api.wait() == 0
    (folder / "broken").write_text("{")
    for name, arguments, reason in (("broken", (), "not valid JSON: line 1"), ("missing", (), "No such file"),
                                    ("data", ("--mmds-size-limit", "10"), "the data store holds 10")):
        api = vmm(None, "--metadata", folder / name, *arguments)
        assert api.wait() == 1 and api.status["field"] == "--metadata" and reason in api.status["message"]


# With a guest.

@pytest.fixture(scope="session")
def curl():
    """curl and the shared libraries that it needs here, for an initramfs."""
    lines = subprocess.check_output(["ldd", "/usr/bin/curl"], text=True).splitlines()
    files = {"bin/curl": Path("/usr/bin/curl").read_bytes(), "lib64/ld-linux-x86-64.so.2": Path("/lib64/ld-linux-x86-64.so.2").read_bytes()}
    files.update({f"lib64/{Path(path).name}": Path(path).read_bytes() for path in (line.split()[2] for line in lines if "=>" in line)})
    return files


@pytest.fixture
def boot(vmm, config, initramfs, curl, tmp_path_factory):  # noqa: F811
    """boot(script, arguments): a guest that runs `script` on the machine that `config` describes, with an API."""

    def start(script, *arguments):
        config["boot-source"]["initrd_path"] = str(initramfs("export LD_LIBRARY_PATH=/lib64\n" + script, NET, curl))
        path = tmp_path_factory.mktemp("config") / "config.json"
        path.write_text(json.dumps(config))
        return vmm(None, "--config-file", path, *arguments)

    return start


def says(machine, name):
    """What the guest has said under that name."""
    return machine.wait_for(rf"guest: {name} \[(.*)\]").group(1)


SO_RCVBUFFORCE, SOL_PACKET, PACKET_STATISTICS = 33, 263, 6


class Watcher:
    """All frames that a tap carries."""

    def __init__(self, tap):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 256 << 20)
        self.socket.bind((tap, 0))
        self.socket.setblocking(False)

    def seen(self):
        """Those that have to do with MMDS's address, and how many there were of all."""
        seen, dropped = struct.unpack("II", self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        found, address = [], socket.inet_aton(ADDRESS)
        assert not dropped
        for _ in range(seen):
            frame = self.socket.recv(65536)
            if frame[12:14] == b"\x08\x00" and frame[30:34] == address or frame[12:14] == b"\x08\x06" and address in frame[14:42]:
                found.append(frame)
        self.socket.close()
        return found, seen


VERSION_1 = f"""
ip link set lo up; ip link set eth0 up; ip addr add 10.77.0.2/24 dev eth0; ip route add {ADDRESS} dev eth0
at() {{ wget -q -O - "$@"; }}
echo "guest: id [$(at http://{ADDRESS}/latest/meta-data/ami-id)]"
echo "guest: list [$(at http://{ADDRESS}/latest/meta-data | tr '\\n' ' ')]"
echo "guest: json [$(at --header 'Accept: application/json' http://{ADDRESS}/latest/meta-data/network)]"
echo "guest: curl [$(curl -s -w ' %{{content_type}} %{{num_connects}}' http://{ADDRESS}/latest/user-data)]"
echo "guest: again [$(curl -s http://{ADDRESS}/latest/user-data http://{ADDRESS}/nothing http://{ADDRESS}/latest/user-data)]"
echo "guest: post [$(curl -s -o /dev/null -w '%{{http_code}}' -d x http://{ADDRESS}/latest)]"
echo "guest: number [$(curl -s -o /dev/null -w '%{{http_code}}' http://{ADDRESS}/n)]"
echo "guest: port [$(curl -s http://{ADDRESS}:81/; echo $?)]"
echo "guest: nc [$(printf 'GET /latest/user-data HTTP/1.0\\r\\n\\r\\n' | nc {ADDRESS} 80 | tail -n 1)]"
echo "guest: big [$(at http://{ADDRESS}/big | crc32)]"
# More at once than there is room for.
for i in $(seq 48); do (at http://{ADDRESS}/big | crc32 > /tmp/big.$i) & done; wait
echo "guest: many [$(sort -u /tmp/big.* | tr '\\n' ' ')]"
# Other traffic flows all the while.
(while at http://{ADDRESS}/big > /dev/null && [ ! -e /tmp/stop ]; do :; done) &
echo "guest: download [$(at http://10.77.0.1:8000/content | crc32)]"
: > /tmp/stop; wait
httpd -h /tmp; echo "guest: serves [yes]"
read line
echo "guest: changed [$(at http://{ADDRESS}/latest/user-data)]"
read line; poweroff -f
"""


@pytest.mark.kvm
def test_version_1_over_a_tap(boot, config, network, server):  # noqa: F811
    rng = random.Random(5)
    content, big = rng.randbytes(4 << 20), "".join(rng.choice("abcdefgh\n") for _ in range(40000))
    ip("tuntap", "add", "hull0", "mode", "tap", "vnet_hdr")
    ip("addr", "add", "10.77.0.1/24", "dev", "hull0")
    ip("link", "set", "hull0", "up")
    server("10.77.0.1", content)
    watcher = Watcher("hull0")
    config["network-interfaces"] = [{"iface_id": "eth0", "host_dev_name": "hull0", "guest_mac": "06:00:00:00:00:01"}]
    config["mmds-config"] = {"network_interfaces": ["eth0"]}
    machine = boot(VERSION_1)
    machine.must("PUT", "/mmds", {**DATA, "big": big})
    assert says(machine, "id") == "ami-12345678"
    assert says(machine, "list") == "ami-id network/"
    assert says(machine, "json") == '{"mac":"06:00:00:00:00:01"}'
    assert says(machine, "curl") == "hello text/plain 1"
    assert says(machine, "again") == "helloResource not found: /nothing.hello"
    assert says(machine, "post") == "405" and says(machine, "number") == "501"
    assert says(machine, "port") == "7"  # refused, at once
    assert says(machine, "nc") == "hello"
    crc = f"{zlib.crc32(big.encode()):08x}"
    assert says(machine, "big").strip() == crc
    assert says(machine, "many").split() == [crc]
    assert says(machine, "download").strip() == f"{zlib.crc32(content):08x}"
    says(machine, "serves")
    download("10.77.0.2", "/stop")
    found, seen = watcher.seen()
    assert not found and seen > 64  # of 4 MiB, 64 KiB each at most
    # Changed while it runs, and while it is paused; its configuration is not.
    machine.refused("PUT", "/mmds/config", {"network_interfaces": ["eth0"]}, NOT_ANY_MORE)
    machine.must("PATCH", "/mmds", {"latest": {"user-data": "once"}})
    machine.must("PATCH", "/vm", {"state": "Paused"})
    machine.refused("PUT", "/mmds/config", {"network_interfaces": ["eth0"]}, NOT_ANY_MORE)
    machine.must("PATCH", "/mmds", {"latest": {"user-data": "twice"}})
    assert machine.must("GET", "/mmds")["latest"]["user-data"] == "twice"
    machine.must("PATCH", "/vm", {"state": "Resumed"})
    machine.send("\n")
    assert says(machine, "changed") == "twice"
    machine.send("\n")
    assert machine.wait() == 0 and machine.status["cause"] == "poweroff"


VERSION_2 = """
ip link set lo up; ip link set eth0 up; ip link set eth1 up
ip addr add 10.78.0.2/24 dev eth0; ip addr add 10.79.0.2/24 dev eth1
for interface in eth0 eth1; do
    ip route add 169.254.170.2 dev $interface
    at() { curl -s -m 60 -w ' %{http_code}' "$@"; }
    base=http://169.254.170.2/latest
    echo "guest: none $interface [$(at $base/user-data)]"
    echo "guest: wrong $interface [$(at -H 'X-metadata-token: x' $base/user-data)]"
    token=$(curl -s -X PUT -H 'X-metadata-token-ttl-seconds: 300' $base/api/token)
    echo "guest: length $interface [${#token}]"
    echo "guest: right $interface [$(at -H "X-metadata-token: $token" -H 'Accept: application/json' $base/user-data)]"
    echo "guest: aws $interface [$(wget -q -O - --header "X-aws-ec2-metadata-token: $token" $base/meta-data/ami-id)]"
    echo "guest: forwarded $interface [$(at -o /dev/null -X PUT -H 'X-Forwarded-For: 1.2.3.4' -H 'X-metadata-token-ttl-seconds: 9' $base/api/token)]"
    echo "guest: long $interface [$(at -o /dev/null -X PUT -H 'X-metadata-token-ttl-seconds: 21601' $base/api/token)]"
    short=$(curl -s -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 1' $base/api/token)
    while at -o /dev/null -H "X-metadata-token: $short" $base/user-data | grep -q 200; do :; done
    echo "guest: expired $interface [yes]"
    ip route del 169.254.170.2 dev $interface
done
read line; poweroff -f
"""


@pytest.mark.kvm
def test_version_2_without_a_network(boot, config, network, tmp_path_factory):  # noqa: F811
    """On a PCI bus; one interface's tap is down, the other's peer neither reads nor says anything."""
    folder = tmp_path_factory.mktemp("peer")
    ip("tuntap", "add", "hull0", "mode", "tap", "vnet_hdr")
    silent = socket.socket(socket.AF_UNIX)
    silent.bind(str(folder / "silent"))
    silent.listen()
    accepted = []
    threading.Thread(target=lambda: accepted.append(silent.accept()), daemon=True).start()
    (folder / "metadata").write_text(json.dumps(DATA))
    config["network-interfaces"] = [{"iface_id": "eth0", "host_dev_name": "hull0"},
                                    {"iface_id": "eth1", "stream_socket_path": str(folder / "silent")}]
    config["mmds-config"] = {"network_interfaces": ["eth0", "eth1"], "version": "V2", "ipv4_address": "169.254.170.2", "imds_compat": True}
    config["metrics"] = {"metrics_path": str(folder / "metrics")}
    machine = boot(VERSION_2, "--metadata", folder / "metadata", "--enable-pci")
    for interface in ("eth0", "eth1"):
        assert says(machine, f"none {interface}").endswith(" 401")
        assert says(machine, f"wrong {interface}") == "MMDS token not valid. 401"
        assert says(machine, f"length {interface}") == "48"
        assert says(machine, f"right {interface}") == "hello 200"  # text, as EC2's, whatever is accepted
        assert says(machine, f"aws {interface}") == "ami-12345678"
        assert says(machine, f"forwarded {interface}") == says(machine, f"long {interface}") == " 400"
        says(machine, f"expired {interface}")
    counts = Counts(machine, folder / "metrics").next()["mmds"]
    assert counts["rx_no_token"] == 2 and counts["rx_invalid_token"] >= 4
    assert counts["connections_created"] >= 16 and counts["connections_destroyed"] <= counts["connections_created"]
    assert counts["rx_accepted"] >= counts["rx_count"] > 60 and counts["tx_frames"] == counts["tx_count"] > 40
    assert counts["tx_bytes"] > 54 * counts["tx_frames"]
    assert counts["rx_accepted_err"] == counts["rx_bad_eth"] == counts["tx_errors"] == 0
    # What the service names is not taken out of the guest either.
    machine.refused("DELETE", "/network-interfaces/eth1", None, 'mmds-config.network_interfaces: names "eth1"')
    machine.send("\n")
    assert machine.wait(DEADLINE) == 0 and machine.status["cause"] == "poweroff"
