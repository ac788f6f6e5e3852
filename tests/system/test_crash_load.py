"""hulld under a mixed load, killed at random instants: every change that it has acknowledged is there, nothing is doubled, nothing is
stuck, what is asked again is answered as it was, and a webhook's receiver misses no event. Also with the host that it runs on.

HULL_CRASH_KILLS and HULL_CRASH_HOSTS are how often; HULL_CRASH_SEED makes another run of it."""
import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import signal
import socket
import time
from urllib.parse import urlsplit

import pytest

from crash_load import IMAGE, Load
from hulld_fixtures import DEADLINE, Answer, Hulld, make_erofs, wait_until
from test_hulld import processes_of
from test_kvmhost import Host
from test_ports import ingress_of
from test_webhooks import FAST, HERE, Receiver

KILLS = int(os.environ.get("HULL_CRASH_KILLS", "20"))
HOSTS = int(os.environ.get("HULL_CRASH_HOSTS", "1"))
SEED = os.environ.get("HULL_CRASH_SEED", "hull")
CLIENTS = 6
PORTS = 24  # of all of them
ALIVE_MAX_S = 0.2  # from when hulld answers until it is killed
HOST_ALIVE_MAX_S = 6
MONITOR = "#!/bin/sh\nMONITOR_OF=$2 exec sleep 3600\n"  # a machine of it starts for ever


def monitors(hulld):
    """{a machine's id: the numbers of its monitors}"""
    found = {}
    for pid, words in processes_of(hulld).items():
        match = re.search(rb"MONITOR_OF=.*?/machines/(m\w+)/", words)
        if match:
            found.setdefault(match[1].decode(), []).append(pid)
    return found


def free_ports():
    """Of those that the host gives to no connection of its own."""
    first = random.randrange(20000, 30000)
    with contextlib.ExitStack() as probes:
        ports = []
        for port in range(first, first + 2000):
            probe = probes.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
            if len(ports) == PORTS:
                return ports
    raise AssertionError(f"no {PORTS} ports are free from {first} on")


def held_ports(hulld):
    return sorted(port["host"] for port in ingress_of(hulld)[1])


def settled(hulld, load):
    """Nothing moves any more; who is to run does, by one monitor, and who is not has none; no operation of those is under way; the
    machines' ports are held, and no other."""
    wanted = load.runs()

    def look():
        machines, running = hulld.get("/v1/machines").json["items"], monitors(hulld)
        if set(running) - {machine["id"] for machine in machines} or held_ports(hulld) != load.held():
            return False
        for machine in machines:
            has, runs = running.get(machine["id"], []), wanted[machine["name"]]
            if runs != (machine["state"] == "starting") or has != ([machine["pid"]] if machine["pid"] else []):
                return False
            if not runs and (has or machine["state"] not in ("created", "stopped")):
                return False
        under_way = hulld.get("/v1/operations?state=running").json["items"]
        return all(wanted.get(operation["subject"]["name"]) for operation in under_way)

    try:
        wait_until(look, "all is settled")
    except AssertionError:
        pytest.fail(f"wanted {wanted}; there are {hulld.get('/v1/machines').json['items']} and monitors {monitors(hulld)}")


def check_told(receiver, load):
    """The receiver gets each event, and the first of each in their order."""
    wait_until(lambda: receiver.got and json.loads(receiver.got[-1][2])["id"] >= load.cursor, "the receiver has the last", DEADLINE + KILLS)
    firsts = list(dict.fromkeys(event["id"] for event in receiver.events()))
    assert firsts == list(range(firsts[0], firsts[-1] + 1))


def test_hulld_is_killed_at_random_instants(tmp_path):
    instants, receiver = random.Random(SEED), Receiver()
    hulld = Hulld(tmp_path, "--webhook-allow", HERE, "--webhook-timing", FAST, env={"HULL_START_TIMEOUT_S": "3600"})
    hulld.with_stand_in(MONITOR).start()
    try:
        digest = hulld.image(IMAGE, make_erofs(tmp_path), command=["/bin/true"])
        load = Load(hulld.request, CLIENTS, SEED, digest, free_ports())
        assert hulld.post("/v1/webhooks", {"url": receiver.url}).status == 201

        def kill():
            time.sleep(instants.uniform(0, ALIVE_MAX_S))  # the instant is what this is about
            hulld.kill()

        for _ in range(KILLS):
            load.run(kill)
            hulld.start()
            load.verify()
            settled(hulld, load)
        assert load.answered() > KILLS, "the clients have got on"
        check_told(receiver, load)
        print(f"{KILLS} kills, {load.answered()} changes, {load.cursor} events, of which {len(receiver.got)} were sent")
        for name in load.runs():
            assert hulld.delete(f"/v1/machines/{name}?force=1").status == 204
        assert len(os.listdir(hulld.state / "volumes")) == len(load.volumes())
        for name in load.volumes():
            assert hulld.delete(f"/v1/volumes/{name}").status == 204
        wait_until(lambda: os.listdir(hulld.state / "volumes") == [], "no volume's file is left")
        wait_until(lambda: not processes_of(hulld) and held_ports(hulld) == [], "no process and no port is left")
        assert os.listdir(hulld.state / "machines") == os.listdir(hulld.run / "machines") == []
    finally:
        hulld.stop()
        receiver.close()


class HullHost(Host):
    """With hulld in it."""

    def up(self):
        result = self("up")
        assert result.returncode == 0, result.stderr

    def ask(self, method, path, body=None, headers=None):
        api = json.loads((self.state / "api.json").read_text())
        url = urlsplit(api["url"])
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=DEADLINE)
        try:
            connection.request(method, path, body, {**(headers or {}), "Authorization": f"Bearer {api['token']}"})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()


def test_its_host_is_killed_over_its_state_disk(tmp_path):
    instants, host = random.Random(SEED), HullHost(tmp_path)
    try:
        host.up()
        erofs = make_erofs(tmp_path, {})
        digest = "sha256:" + hashlib.sha256(erofs).hexdigest()
        assert host.ask("PUT", f"/v1/blobs/{digest}", erofs).status == 201
        image = {"name": IMAGE, "rootfs": digest, "config": {"command": ["/bin/true"]}}
        assert host.ask("POST", "/v1/images", json.dumps(image), {"Content-Type": "application/json"}).status == 201
        load = Load(host.ask, CLIENTS, SEED, digest, list(range(20000, 20000 + PORTS)))

        def kill():
            time.sleep(instants.uniform(0.1, HOST_ALIVE_MAX_S))  # the instant is what this is about
            os.kill(host.qemu()[0], signal.SIGKILL)
            wait_until(lambda: host("status").returncode == 3, "kvmhost knows")

        for _ in range(HOSTS):
            load.run(kill)
            host.up()
            load.verify()
            wait_until(lambda: all(machine["state"] in ("created", "running", "stopped", "failed")
                                   for machine in load.get("/v1/machines")["items"]), "all is settled", 120)
        assert load.answered() > HOSTS, "the clients have got on"
        print(f"{HOSTS} kills, {load.answered()} changes, {load.cursor} events")
    finally:
        host("down")
    assert not host.qemu()
