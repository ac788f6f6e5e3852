"""Networks with real machines: who reaches whom, by which name, and what a hostile one achieves."""
import os
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from hulld_fixtures import BUILD, Hulld, make_erofs, wait_until

pytestmark = pytest.mark.kvm
BOOT = 180
SERVE = "#!/bin/sh\nhostname > /srv/name\nexec httpd -f -p 80 -h /srv\n"


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.fail("/dev/kvm is not usable")
    folder = tmp_path_factory.mktemp("networks")
    token = folder / "token"
    token.write_text("networks-networks-networks\n")
    daemon = Hulld(folder, "--listen", "0.0.0.0:7099", "--token-file", str(token), env={"HULL_START_TIMEOUT_S": str(BOOT)}).start()
    daemon.erofs = make_erofs(folder, {"srv/serve": SERVE})
    daemon.image("busybox", daemon.erofs)
    yield daemon
    daemon.stop()


def start(hulld, name, network, headers=None):
    answer = hulld.post("/v1/machines", {"name": name, "image": "busybox", "command": ["/srv/serve"], "network": network, "disk_mib": 64,
                                         "memory_mib": 128}, headers=headers)
    assert answer.status == 201, answer
    begun = hulld.post(f"/v1/machines/{name}/start", headers=headers)
    assert begun.status == 200, begun
    return answer.json


def is_up(hulld, name, headers=None):
    answer = hulld.get(f"/v1/machines/{name}/wait?state=running,failed,stopped&timeout_s={BOOT}", headers=headers, timeout=BOOT + 10)
    assert answer.status == 200 and answer.json["state"] == "running", (
        answer, subprocess.run(f"tail -n 30 {hulld.state}/machines/*/*.log {hulld.run}/networks/*/*", shell=True, capture_output=True, text=True,
                               check=False).stdout)
    return answer.json


def run(hulld, machine, command, headers=None):
    """Its exit status and what it wrote."""
    answer = hulld.post(f"/v1/machines/{machine}/exec", {"command": ["/bin/sh", "-c", command]}, headers=headers, timeout=BOOT)
    assert answer.status == 200, answer
    return answer.json["exit_status"], answer.json["stdout"] + answer.json["stderr"]


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"the host\n")

    def log_message(self, *args):
        pass


def own_address():
    """The host's, by which it reaches others."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("10.0.2.2", 9))
        return probe.getsockname()[0]


def holders(hulld):
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(str(hulld.run).encode() + b"/networks/") or b"=" + str(hulld.run).encode() + b"/networks/" in word
               for word in words):
            found.append((int(entry), words[0].decode()))
    return found


def test_machines_of_a_network_reach_each_other_by_name_and_nobody_else(hulld):
    other = {"Hull-Project": "other"}
    assert hulld.post("/v1/projects", {"name": "other"}).status == 201
    hulld.request("PUT", "/v1/blobs/" + hulld.get("/v1/images/busybox").json["rootfs"], hulld.erofs, headers=other)
    assert hulld.post("/v1/images", {"name": "busybox", "rootfs": hulld.get("/v1/images/busybox").json["rootfs"]}, headers=other).status == 201
    made = hulld.post("/v1/networks", {"name": "back"})
    assert made.status == 201 and made.json["state"] == "idle" and made.json["machines"] == [], made
    subnet = made.json["subnet"].rsplit(".", 1)[0]
    assert made.json["gateway"] == subnet + ".1"
    # The other project's is the same to look at, and another.
    assert hulld.post("/v1/networks", {"name": "back", "subnet": made.json["subnet"], "egress": False}, headers=other).status == 201
    web, db = start(hulld, "web", "back"), start(hulld, "db", "back")
    assert [web["address"], db["address"]] == [subnet + ".2", subnet + ".3"]
    assert start(hulld, "web", "back", other)["address"] == subnet + ".2"
    is_up(hulld, "web"), is_up(hulld, "db"), is_up(hulld, "web", other)

    network = hulld.get("/v1/networks/back").json
    assert network["state"] == "active" and [(m["name"], m["address"]) for m in network["machines"]] == \
        [("web", subnet + ".2"), ("db", subnet + ".3")]
    assert run(hulld, "db", "wget -q -O - http://web/name") == (0, "web\n")
    assert run(hulld, "web", "wget -q -O - http://db/name") == (0, "db\n")
    assert run(hulld, "web", "ping -c 1 -W 5 db")[0] == 0
    # Who is alone on the other network has the same address as web, and finds no db.
    assert run(hulld, "web", "timeout 5 wget -q -O - http://db/name", other)[0] != 0
    assert run(hulld, "web", f"ping -c 1 -W 2 {subnet}.3", other)[0] != 0
    assert run(hulld, "web", f"nslookup db {subnet}.1", other)[0] != 0
    # A name that is changed, and one that is new, are known at once.
    renamed = hulld.request("PATCH", "/v1/machines/db", '{"name": "store"}', headers={"Content-Type": "application/merge-patch+json"})
    assert renamed.status == 200, renamed
    end = time.monotonic() + 60
    while (said := run(hulld, "web", "timeout 60 wget -O - http://store/name"))[0] != 0:
        assert time.monotonic() < end, (said, run(hulld, "web", f"nslookup store {subnet}.1; nslookup web {subnet}.1"), subprocess.run(
            f"head -50 {hulld.run}/networks/*/* {hulld.log}; ps axo pid,stat,args", shell=True, capture_output=True, text=True).stdout)
    assert run(hulld, "web", f"nslookup db {subnet}.1")[0] != 0


def test_the_host_is_a_name_server_and_a_way_out_and_no_more(hulld):
    gateway = hulld.get("/v1/networks/back").json["gateway"]
    address = own_address()
    server = HTTPServer((address, 0), Hello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://{address}:{server.server_port}/"
    try:
        assert run(hulld, "web", f"timeout 60 wget -q -O - {url}") == (0, "the host\n")
        # Not without egress.
        assert run(hulld, "web", f"timeout 5 wget -q -O - {url}", {"Hull-Project": "other"})[0] != 0
    finally:
        server.shutdown()
        server.server_close()
    # hulld listens at every address of the host: not at the gateway's, which is in no namespace of the host's processes.
    assert hulld.get("/v1/version").status == 200
    status, said = run(hulld, "web", f"timeout 30 wget -q -O - http://{gateway}:7099/v1/version")
    assert status != 0 and "refused" in said, said
    assert run(hulld, "web", "timeout 5 wget -q -O - http://169.254.169.254/")[0] != 0


def test_what_runs_for_a_network_is_nobody_s_and_outlives_hulld(hulld):
    names = sorted(Path(name).name for _, name in holders(hulld))
    assert names == ["dnsmasq", "dnsmasq", "hull-network", "hull-network", "hull-network", "hull-network"], names
    for pid, _ in holders(hulld):
        status = Path(f"/proc/{pid}/status").read_text()
        assert "Uid:\t65534\t65534\t65534\t65534" in status, status
    before = sorted(holders(hulld))
    hulld.restart()
    assert sorted(holders(hulld)) == before
    is_up(hulld, "web")
    assert run(hulld, "web", "timeout 60 wget -q -O - http://store/name") == (0, "db\n")


def test_a_machine_that_starts_again_has_its_address_and_is_reached(hulld):
    before = hulld.machine("web")["address"]
    hulld.post("/v1/machines/web/kill")
    hulld.wait("web", "stopped,failed")
    assert hulld.post("/v1/machines/web/start").status == 200
    assert is_up(hulld, "web")["address"] == before
    wait_until(lambda: run(hulld, "store", "timeout 60 wget -q -O - http://web/name") == (0, "web\n"), "it is reached again")


def test_a_machine_that_is_suspended_goes_on_at_its_port_of_the_network(hulld):
    address = hulld.machine("store")["address"]
    assert run(hulld, "store", "echo kept > /tmp/kept")[0] == 0
    assert hulld.post("/v1/machines/store/suspend").status == 200
    assert hulld.wait("store", "suspended,failed,running", BOOT)["state"] == "suspended", hulld.machine("store")
    assert run(hulld, "web", "timeout 5 wget -q -O - http://store/name")[0] != 0
    assert hulld.delete("/v1/networks/back").json["code"] == "network_in_use"
    assert hulld.post("/v1/machines/store/resume").status == 200
    machine = is_up(hulld, "store")
    assert (machine["address"], machine["cause"]) == (address, None) and run(hulld, "store", "cat /tmp/kept") == (0, "kept\n")
    assert run(hulld, "web", "timeout 60 wget -q -O - http://store/name") == (0, "db\n")
    assert run(hulld, "store", "timeout 60 wget -q -O - http://web/name") == (0, "web\n")


def test_another_network_takes_effect_at_the_next_start_and_the_names_with_it(hulld):
    assert hulld.post("/v1/networks", {"name": "front"}).status == 201
    changed = hulld.request("PATCH", "/v1/machines/web", '{"network": "front"}', headers={"Content-Type": "application/merge-patch+json"})
    assert changed.status == 200 and changed.json["pending"] == ["network"], changed
    back = hulld.get("/v1/networks/back").json
    assert [m["name"] for m in back["machines"]] == ["web", "store"] and hulld.machine("web")["address"] == back["machines"][0]["address"]
    assert run(hulld, "store", "timeout 60 wget -q -O - http://web/name") == (0, "web\n")
    assert hulld.delete("/v1/networks/front").json["code"] == "network_in_use"
    hulld.post("/v1/machines/web/kill")
    hulld.wait("web", "stopped,failed")
    front = hulld.get("/v1/networks/front").json
    assert [m["name"] for m in front["machines"]] == ["web"] and hulld.machine("web")["address"] == front["machines"][0]["address"]
    wait_until(lambda: run(hulld, "store", f"nslookup web {back['gateway']}")[0] != 0, "the name has gone")


def test_nothing_is_left_once_nobody_is_on_it(hulld):
    refused = hulld.delete("/v1/networks/back")
    assert refused.status == 409 and refused.json["code"] == "network_in_use" and "machine store is on it" in refused.json["detail"]
    for headers, machines in ({}, ["web", "store"]), ({"Hull-Project": "other"}, ["web"]):
        for machine in machines:
            assert hulld.request("DELETE", f"/v1/machines/{machine}?force=1", headers=headers).status == 204
    assert hulld.delete("/v1/networks/back").status == 204
    assert hulld.delete("/v1/networks/front").status == 204
    assert hulld.delete("/v1/projects/other").status == 204
    wait_until(lambda: not holders(hulld), "all that ran for networks has ended")
    assert list((hulld.run / "networks").iterdir()) == []


# A hostile machine, without a guest: this process has its tap.

GUEST = """
import os, select, sys
print('ready', flush=True)
os.set_blocking(5, False)
for line in sys.stdin:
    word, _, rest = line.strip().partition(' ')
    if word == 'send':
        os.write(5, bytes(10) + bytes.fromhex(rest))
        print('sent', flush=True)
    while word == 'read':
        if not select.select([5], [], [], 10)[0]:
            print('none', flush=True)
            break
        frame = os.read(5, 70000)[10:]
        if frame[12:14] in (b'\\x08\\x00', b'\\x08\\x06') and frame[6:12] != b'\\x02h\\x0aX\\x07\\x01':
            print(frame.hex(), flush=True)
            break
"""


def network_folder(tmp_path_factory, name, hosts=""):
    """As hulld gives it to hull-network, which another user is that must come to it."""
    folder = tmp_path_factory.mktemp(name)
    for above in (folder, *folder.parents):
        above.chmod(above.stat().st_mode | 0o055)
    (folder / "hosts").write_text(hosts)
    return folder


class Port:
    """A machine of the network 10.88.7.0/24 whose frames the test makes."""

    def __init__(self, folder, last):
        self.ip = bytes([10, 88, 7, last])
        self.mac = bytes([2, 0x68]) + self.ip
        command = [BUILD / "hull-network", "join", "--folder", folder, "--subnet", "10.88.7.0/24", "--address", f"10.88.7.{last}",
                   "--tap-fd", "5", "--status-fd", "4", "--", "/usr/bin/python3", "-c", GUEST]
        self.process = subprocess.Popen(["/bin/sh", "-c", 'exec "$@" 4>/dev/null 5</dev/null', "sh", *map(str, command)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        assert self.process.stdout.readline() == "ready\n"

    def say(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def send(self, to, kind, body, source=None):
        assert self.say("send " + (to + (source or self.mac) + kind + body).hex()) == "sent"

    def udp(self, to, text, source_ip=None, **kwargs):
        udp = bytes([0, 7, 0, 7]) + (8 + len(text)).to_bytes(2, "big") + bytes(2) + text
        head = bytes([0x45, 0]) + (20 + len(udp)).to_bytes(2, "big") + bytes([0, 1, 0, 0, 64, 17, 0, 0]) + (source_ip or self.ip) + to.ip
        total = sum(int.from_bytes(head[i:i + 2], "big") for i in range(0, 20, 2))
        while total >> 16:
            total = (total & 0xffff) + (total >> 16)
        self.send(to.mac, b"\x08\x00", head[:10] + (total ^ 0xffff).to_bytes(2, "big") + head[12:] + udp, **kwargs)

    def arp(self, ip, mac, **kwargs):
        self.send(b"\xff" * 6, b"\x08\x06", bytes([0, 1, 8, 0, 6, 4, 0, 2]) + mac + ip + mac + ip, **kwargs)

    def end(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


def test_a_machine_sends_nothing_in_another_s_name(tmp_path_factory):
    folder = network_folder(tmp_path_factory, "hostile", "10.88.7.3 victim\n")
    hostile, victim, third = Port(folder, 2), Port(folder, 3), Port(folder, 4)
    try:
        hostile.udp(victim, b"another's address", source_ip=third.ip)
        hostile.udp(victim, b"another's MAC", source=third.mac)
        hostile.udp(victim, b"the gateway's address", source_ip=bytes([10, 88, 7, 1]))
        hostile.udp(victim, b"an address from outside", source_ip=bytes([8, 8, 8, 8]))
        hostile.arp(third.ip, hostile.mac)
        hostile.arp(bytes([10, 88, 7, 1]), hostile.mac)
        hostile.arp(hostile.ip, third.mac)
        hostile.arp(hostile.ip, hostile.mac, source=third.mac)
        hostile.send(victim.mac, b"\x86\xdd", bytes([0x60]) + bytes(60))
        hostile.send(victim.mac, b"\x81\x00", bytes([0, 5]) + b"\x08\x00" + bytes(46))
        hostile.send(victim.mac, b"\x08\x00", b"\x45")
        hostile.arp(hostile.ip, hostile.mac)
        hostile.udp(victim, b"its own")
        third.udp(victim, b"and the third's")
        # In order: nothing of the above came before.
        assert victim.say("read") == (b"\xff" * 6 + hostile.mac + b"\x08\x06" + bytes([0, 1, 8, 0, 6, 4, 0, 2])
                                      + hostile.mac + hostile.ip + hostile.mac + hostile.ip).hex()
        assert bytes.fromhex(victim.say("read")).endswith(b"its own")
        assert bytes.fromhex(victim.say("read")).endswith(b"and the third's")
    finally:
        for port in hostile, victim, third:
            port.end()


def test_a_machine_draws_nobody_s_frames_to_its_port(tmp_path_factory):
    folder = network_folder(tmp_path_factory, "drawing")
    hostile, victim, third = Port(folder, 2), Port(folder, 3), Port(folder, 4)
    try:
        victim.arp(victim.ip, victim.mac)  # the bridge knows where it is
        assert third.say("read").endswith((victim.mac + victim.ip).hex())
        for last in 0, 2, 3, 14:  # STP's, LACP's, EAPOL's, LLDP's: to the bridge itself, past its rules for others
            hostile.send(bytes([1, 0x80, 0xc2, 0, 0, last]), b"\x88\xcc", bytes(46), source=victim.mac)
        third.udp(victim, b"for the victim alone")
        assert bytes.fromhex(victim.say("read")).endswith(b"for the victim alone")
    finally:
        for port in hostile, victim, third:
            port.end()


def test_the_name_server_sees_of_the_host_its_programs_and_the_names_only(tmp_path_factory):
    folder = network_folder(tmp_path_factory, "confined", "10.88.7.2 asker\n")
    port = Port(folder, 2)

    def of_dnsmasq():
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"/dnsmasq") and f"--addn-hosts={folder}/hosts".encode() in words:
                return Path("/proc", entry)
        return None

    try:
        dnsmasq = wait_until(of_dnsmasq, "dnsmasq runs")
        root = dnsmasq / "root"
        assert sorted(os.listdir(root)) == sorted({"dev", folder.parts[1], *({"usr", "lib", "lib64", "sbin", "bin"} & set(os.listdir("/")))})
        assert sorted(os.listdir(root / "dev")) == ["null", "urandom"]
        assert os.listdir(f"{root}{folder.parent}") == [folder.name] and (Path(f"{root}{folder}") / "hosts").read_text() == "10.88.7.2 asker\n"
        assert all("ro" in line.split()[5].split(",") for line in (dnsmasq / "mountinfo").read_text().splitlines())
        assert [line.split()[1:] for line in (dnsmasq / "status").read_text().splitlines() if line.startswith("NSpid")][0][-1] == "1"
        assert [line.split()[1] for line in (dnsmasq / "status").read_text().splitlines() if line.startswith("CapEff")] == [f"{1 << 10:016x}"]
        assert "status" not in (folder / "log").read_text()
    finally:
        port.end()


def test_who_holds_a_network_leaves_nothing_when_it_is_killed_and_another_takes_its_place(tmp_path_factory):
    folder = network_folder(tmp_path_factory, "killed")

    def of_folder():
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                if str(folder).encode() in Path(f"/proc/{entry}/cmdline").read_bytes() and b"join" not in Path(f"/proc/{entry}/cmdline").read_bytes():
                    found.append(int(entry))
            except OSError:
                pass
        return sorted(found)

    port = Port(folder, 2)
    assert len(of_folder()) == 3  # both processes, and dnsmasq
    os.kill(of_folder()[0], 9)
    wait_until(lambda: not of_folder(), "the inner process and dnsmasq end with the outer")
    again = Port(folder, 3)
    assert len(of_folder()) == 3
    os.kill(of_folder()[1], 9)
    wait_until(lambda: not of_folder(), "the outer process and dnsmasq end with the inner")
    port.end()
    again.end()


@pytest.mark.parametrize("arguments, reason", [
    ([], "VERB: must be join or hold"), (["join"], "--folder: must be an absolute path"),
    (["join", "--folder", "/x"], "--subnet: is required"),
    (["join", "--folder", "/x", "--subnet", "8.8.8.0/24"], "--subnet: must be private"),
    (["join", "--folder", "/x", "--subnet", "10.0.0.0/24", "--egress"], "--egress: goes with --passt"),
    (["join", "--folder", "/x", "--subnet", "10.0.0.0/24", "--tap-fd", "1"], "tap-fd: must be a descriptor"),
    (["join", "--folder", "/x", "--subnet", "10.0.0.0/24", "--tap-fd", "5", "--status-fd", "4", "--address", "10.0.1.2", "/bin/true"],
     "--address: must be one of a machine"),
    (["hold", "--folder", "/x", "--subnet", "10.0.0.0/24"], "hold: needs --ready-fd")])
def test_a_wrong_command_line_is_one_line(arguments, reason):
    said = subprocess.run([BUILD / "hull-network", *arguments], capture_output=True, text=True, check=False)
    assert said.returncode == 2 and reason in said.stderr and said.stderr.count("\n") == 1, said
