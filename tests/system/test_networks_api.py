"""The API of networks, on a host that can have them; nothing runs in their machines."""
import json
import os
import signal
from pathlib import Path

import pytest

from hulld_fixtures import Hulld, hulld, make_erofs, wait_until  # noqa: F401 (a fixture)
from test_cli import Cli

pytestmark = pytest.mark.kvm
MONITOR = "#!/bin/sh\nexec sleep 1000\n"
PATCH = {"Content-Type": "application/merge-patch+json"}


def refused(answer, status, code, field=None):
    assert answer.status == status and answer.json["code"] == code and answer.json.get("field") == field, answer
    return answer.json["detail"]


def make(hulld, name, **spec):
    answer = hulld.post("/v1/networks", {"name": name, **spec})
    assert answer.status == 201, answer
    return answer.json


def machine(hulld, name, network):
    answer = hulld.post("/v1/machines", {"name": name, "image": "hello", "network": network})
    assert answer.status == 201, answer
    return answer.json


def test_a_network_is_made_shown_labelled_and_deleted(hulld):
    assert hulld.get("/v1/host").json["networks"] == {"available": True, "reason": None}
    key = {"Idempotency-Key": "one"}
    made = hulld.post("/v1/networks", {"name": "one", "labels": {"a": "b"}}, headers=key)
    assert made.status == 201 and hulld.post("/v1/networks", {"name": "one", "labels": {"a": "b"}}, headers=key).json == made.json
    shown = hulld.get("/v1/networks/one")
    assert shown.json == made.json and shown.headers["ETag"]
    assert shown.json["subnet"] == "10.88.0.0/24" and shown.json["gateway"] == "10.88.0.1" and shown.json["egress"] is True
    stale = {**PATCH, "If-Match": '"stale"'}
    refused(hulld.request("PATCH", "/v1/networks/one", '{"labels": {"c": "d"}}', headers=stale), 412, "precondition_failed", "If-Match")
    fresh = {**PATCH, "If-Match": shown.headers["ETag"]}
    changed = hulld.request("PATCH", "/v1/networks/one", '{"labels": {"c": "d", "a": null}}', headers=fresh)
    assert changed.status == 200 and changed.json["labels"] == {"c": "d"}
    for field, value in ("name", '"two"'), ("subnet", '"10.88.9.0/24"'), ("egress", "false"):
        assert "cannot be changed" in refused(
            hulld.request("PATCH", "/v1/networks/one", f'{{"{field}": {value}}}', headers=PATCH), 400, "invalid_field", field)
    same = hulld.request("PATCH", "/v1/networks/one", '{"subnet": null}', headers=PATCH)
    assert same.status == 200 and same.json == changed.json, "any is the one that it has"
    assert hulld.get("/v1/networks?limit=1").json["items"] == [changed.json]
    assert hulld.get("/v1/networks?label=c=d&label=c").json["items"] == [changed.json] and hulld.get("/v1/networks?label=c=e").json["items"] == []
    assert hulld.delete("/v1/networks/one").status == 204
    refused(hulld.get("/v1/networks/one"), 404, "not_found")
    refused(hulld.delete("/v1/networks/one"), 404, "not_found")
    events = [(e["type"], e["name"]) for e in hulld.get("/v1/events?type=network").json["items"]]
    assert events == [("network.created", "one"), *[("network.updated", "one")] * 2, ("network.deleted", "one")]


def test_what_a_dry_run_of_a_network_says_is_what_comes(hulld):
    spec = {"name": "a", "labels": {"x": "y"}}
    before = hulld.get("/v1/events").json["cursor"]
    planned = hulld.post("/v1/networks?dry_run=1", spec)
    assert planned.status == 201 and hulld.get("/v1/networks").json["items"] == [] and hulld.get("/v1/events").json["cursor"] == before
    made = make(hulld, **spec)
    changing = {"id": 0, "created_at": 0}
    assert {**planned.json, **changing} == {**made, **changing}
    relabelled = hulld.request("PATCH", "/v1/networks/a?dry_run=1", '{"labels": {"x": "z"}}', headers=PATCH)
    assert relabelled.status == 200 and relabelled.json["labels"] == {"x": "z"} and hulld.get("/v1/networks/a").json == made
    for method, path, body in (("POST", "/v1/networks", spec), ("PATCH", "/v1/networks/a", {"egress": False})):
        refusals = [hulld.request(method, path + query, json.dumps(body), headers=PATCH if method == "PATCH" else {"Content-Type": "application/json"})
                    for query in ("?dry_run=1", "")]
        assert refusals[0].status == refusals[1].status >= 400 and refusals[0].json == refusals[1].json
    assert hulld.delete("/v1/networks/a").status == 204


FILE = """networks:
- {name: back, labels: {team: a}}
- {name: quiet, egress: false, subnet: 10.99.0.0/24}
machines:
- {name: db, image: hello, network: back}
- {name: web, image: hello, network: back, depends_on: [{machine: db}]}
"""


def test_a_file_makes_networks_before_the_machines_on_them_and_prunes_them_after(hulld, tmp_path):
    hull = Cli(tmp_path, hulld.socket)

    def call(text, *words, status=0):
        (tmp_path / "m.yaml").write_text(text)
        return hull(*words[:1], "-f", "m.yaml", "-l", "app=shop", *words[1:], status=status, cwd=tmp_path)

    def said(*words, **options):
        return call(*words, **options).stdout.splitlines()

    shown = said(FILE, "diff", status=1)
    assert [line for line in shown if not line.startswith(" ")] == ["+ network quiet", "+ network back", "+ machine db", "+ machine web"]
    assert "    + egress: false" in shown and shown.count('    + network: "back"') == 2 and hulld.get("/v1/networks").json["items"] == []
    assert said(FILE, "apply", "-y", "--no-start")[-4:] == ["quiet: created", "back: created", "db: created", "web: created"]
    assert [hulld.machine(name)["address"] for name in ("db", "web")] == ["10.88.0.2", "10.88.0.3"]
    assert said(FILE, "diff", "--prune") == [] and said(FILE.replace("back, labels", "back, subnet: null, labels"), "diff") == []
    # What is shown of one can be applied; only labels change.
    assert said(json.dumps({"networks": [hulld.get("/v1/networks/back").json]}), "diff") == []
    assert said(FILE.replace("team: a", "team: b"), "apply", "-y", "--no-start")[-1] == "back: changed" and hulld.get("/v1/networks/back").json["labels"]["team"] == "b"
    assert call(FILE.replace("10.99", "10.98"), "apply", "-y", status=1).stderr.splitlines() == [
        "hull: m.yaml:3: quiet: subnet: cannot be changed, only labels can", "      create another network, and give it to the machines"]
    # A machine that runs goes to a network of the same file: nobody can leave the old one before it is started again.
    assert hulld.post("/v1/machines/db/start").status == 200
    moved = FILE.replace("back", "front")
    shown = said(moved, "diff", "--prune", status=1)
    assert '    ~ network: "back" -> "front"  (at its next start)' in shown and '    ~ network: "back" -> "front"' in shown
    assert shown[-1] == "- network back (active)"
    assert call(moved, "apply", "--prune", "-y", "--no-start", status=1).stderr.splitlines() == [
        "hull: not done: back", "hull: back: machine db is on it", "      restart the machine: it has another network then"]
    # Nor does one go that a machine names, wherever it was made.
    machines = "machines:\n- {name: db, image: hello, network: front}\n"
    assert [line.split(" (")[0] for line in said(machines, "diff", "--prune", status=1) if line.startswith("-")] == [
        "- machine web", "- network back", "- network quiet"]
    assert said("machines: []\n", "apply", "-yq", "--prune") == ["db", "web", "back", "front", "quiet"]
    assert hulld.get("/v1/networks").json["items"] == [] and hulld.get("/v1/machines").json["items"] == []


def test_a_network_that_takes_any_subnet_leaves_the_one_that_another_of_its_file_wants(hulld, tmp_path):
    wanted = hulld.post("/v1/networks?dry_run=1", {"name": "any"}).json["subnet"]
    (tmp_path / "m.yaml").write_text(f"networks:\n- {{name: any}}\n- {{name: wants, subnet: {wanted}}}\n")
    assert Cli(tmp_path, hulld.socket)("apply", "-y", "-f", "m.yaml", cwd=tmp_path).stdout.splitlines()[-2:] == ["wants: created", "any: created"]
    assert hulld.get("/v1/networks/wants").json["subnet"] == wanted != hulld.get("/v1/networks/any").json["subnet"]
    for name in ("any", "wants"):
        assert hulld.delete(f"/v1/networks/{name}").status == 204


@pytest.mark.parametrize("spec, field, reason", [
    ({"name": "default"}, "name", "which every project has"), ({"name": "none"}, "name", "which every project has"),
    ({"name": "A"}, "name", "must be 1 to 63"), ({"name": "x", "subnet": "8.8.8.0/24"}, "subnet", "must be private"),
    ({"name": "x", "subnet": "10.0.0.0/8"}, "subnet", "prefix of 22 to 29"), ({"name": "x", "subnet": "10.0.0.1/24"}, "subnet", "bits behind"),
    ({"name": "x", "subnet": "10.0.2.0/24"}, "subnet", "the host is on"), ({"name": "x", "subnet": "10.0.0.0/22"}, "subnet", "the host is on")])
def test_what_is_no_network_is_refused(hulld, spec, field, reason):
    # 10.0.2.0/24 is the emulated host's own.
    assert reason in refused(hulld.post("/v1/networks", spec), 400, "invalid_field", field)


def test_subnets_of_a_project_are_apart_and_others_are_nobody_s_business(hulld):
    first = make(hulld, "first")
    assert make(hulld, "second")["subnet"] == "10.88.1.0/24"
    assert "network first" in refused(hulld.post("/v1/networks", {"name": "third", "subnet": "10.88.0.128/25"}), 400, "invalid_field", "subnet")
    refused(hulld.post("/v1/networks", {"name": "first"}), 409, "name_taken", "name")
    other = {"Hull-Project": "other"}
    assert hulld.post("/v1/projects", {"name": "other"}).status == 201
    refused(hulld.get("/v1/networks/first", headers=other), 404, "not_found")
    theirs = hulld.post("/v1/networks", {"name": "first"}, headers=other)
    assert theirs.status == 201 and theirs.json["subnet"] == first["subnet"] and theirs.json["id"] != first["id"]
    assert hulld.delete("/v1/projects/other").status == 204
    for name in "first", "second":
        assert hulld.delete(f"/v1/networks/{name}").status == 204


def test_a_vpn_in_place_of_the_default_route_is_in_no_subnet_s_way(hulld):
    routes = 'ip link set lo up; for net in 0.0.0.0/1 128.0.0.0/1 10.88.0.0/24; do ip route add $net dev lo; done; exec "$@"'
    hulld.wrapper = ["unshare", "-n", "sh", "-ec", routes, "sh"]
    hulld.restart()
    assert make(hulld, "free")["subnet"] == "10.88.1.0/24"
    refused(hulld.post("/v1/networks", {"name": "x", "subnet": "10.88.0.128/25"}), 400, "invalid_field", "subnet")
    assert hulld.delete("/v1/networks/free").status == 204
    hulld.wrapper = []
    hulld.restart()


def test_a_project_has_sixteen(hulld):
    for n in range(16):
        make(hulld, f"n{n}")
    assert "16 networks" in refused(hulld.post("/v1/networks", {"name": "n16"}), 409, "quota_exceeded")
    for n in range(16):
        assert hulld.delete(f"/v1/networks/n{n}").status == 204


def test_addresses_are_the_lowest_that_are_free_and_stay(hulld):
    make(hulld, "small", subnet="10.99.0.0/29")
    addresses = [machine(hulld, f"m{n}", "small")["address"] for n in range(5)]
    assert addresses == [f"10.99.0.{n}" for n in range(2, 7)]
    assert "no address left" in refused(
        hulld.post("/v1/machines", {"image": "hello", "network": "small"}), 409, "quota_exceeded", "network")
    make(hulld, "large")
    assert hulld.delete("/v1/machines/m1").status == 204
    hulld.restart()
    assert [hulld.machine(f"m{n}")["address"] for n in (0, 2, 3, 4)] == [addresses[n] for n in (0, 2, 3, 4)]
    assert machine(hulld, "again", "small")["address"] == addresses[1]
    moved = hulld.request("PATCH", "/v1/machines/m2", '{"network": "large"}', headers=PATCH).json
    assert moved["address"] == "10.88.0.2" and moved["pending"] == []
    kept = hulld.request("PATCH", "/v1/machines/m3", '{"labels": {"a": "b"}}', headers=PATCH).json
    assert kept["address"] == addresses[3]
    assert hulld.request("PATCH", "/v1/machines/m2", '{"network": "none"}', headers=PATCH).json["address"] is None
    assert "machine m0 is on it" in refused(hulld.delete("/v1/networks/small"), 409, "network_in_use")
    hulld.end_machines()
    for name in "small", "large":
        assert hulld.delete(f"/v1/networks/{name}").status == 204


def test_back_to_the_network_that_it_runs_on_is_back_to_its_address(hulld):
    make(hulld, "here"), make(hulld, "there")
    at = machine(hulld, "m", "here")["address"]
    machine(hulld, "n", "here")
    assert hulld.post("/v1/machines/m/start").status == 200
    there = hulld.request("PATCH", "/v1/machines/m", '{"network": "there"}', headers=PATCH).json
    assert there["pending"] == ["network"] and there["address"] == at
    assert machine(hulld, "o", "here")["address"] not in (at, hulld.machine("n")["address"])
    back = hulld.request("PATCH", "/v1/machines/m", '{"network": "here"}', headers=PATCH).json
    assert back["pending"] == [] and back["address"] == at
    hulld.restart()
    assert hulld.machine("m")["address"] == at
    hulld.end_machines()


ANSWERING = """#!/usr/bin/python3
# As a monitor whose guest's agent answers, and does nothing.
import json, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(json.load(open(sys.argv[sys.argv.index("--config-file") + 1]))["vsock"]["uds_path"])
listener.listen()
while True:
    client = listener.accept()[0].makefile("rwb")
    client.readline()
    client.write(b"OK 1\\n")
    client.flush()
    client.read(12)
    client.write(b"HULL" + bytes(4))
    client.close()
"""


@pytest.fixture
def up(tmp_path):
    """Machines of this one are up."""
    daemon = Hulld(tmp_path).with_stand_in(ANSWERING).start()
    daemon.image("hello", make_erofs(tmp_path), command=["/bin/true"])
    make(daemon, "back", egress=False)
    yield daemon
    daemon.stop()


def run(hulld, name):
    if hulld.get(f"/v1/machines/{name}").status == 404:
        machine(hulld, name, "back")
    assert hulld.post(f"/v1/machines/{name}/start").status == 200
    assert hulld.wait(name, "running,failed")["state"] == "running"


def holders(hulld):
    """{"outer": pid, "inner": pid, "dnsmasq": pid} of its one network."""
    network, found = hulld.get("/v1/networks/back").json["id"], {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            parent = int(Path(f"/proc/{entry}/stat").read_text().rsplit(")")[1].split()[1])
        except OSError:
            continue
        if words[1:2] == [b"hold"] and str(hulld.run / "networks" / network).encode() in words:
            found[int(entry)] = parent
        elif f"--addn-hosts={hulld.run}/networks/{network}/hosts".encode() in words:
            found["dnsmasq"] = int(entry)
    inner = [pid for pid, parent in found.items() if parent in found]
    return {"inner": inner[0], "outer": found[inner[0]], **{k: v for k, v in found.items() if k == "dnsmasq"}} if inner else {}


def network(hulld):
    """Its state, why, and who has lost it."""
    shown = hulld.get("/v1/networks/back").json
    return shown["state"], shown["reason"], [one["name"] for one in shown["machines"] if one["lost"]]


def test_a_name_server_that_ends_is_the_network_s_fault_until_it_runs_again(up):
    assert network(up) == ("idle", None, [])
    run(up, "web")
    assert network(up) == ("active", None, [])
    before = wait_until(lambda: holders(up).get("dnsmasq"), "it runs")
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: network(up) == ("failing", "its name server, dnsmasq, was ended by signal 9", []), "it is said")
    wait_until(lambda: network(up) == ("active", None, []), "it runs again")
    assert holders(up)["dnsmasq"] != before


@pytest.mark.parametrize("who", ["outer", "inner"])
def test_who_has_lost_its_network_is_told_until_it_is_started_again(up, who):
    def told():
        return [event["name"] for event in up.get("/v1/events?type=machine.network_lost").json["items"]]

    for name in ("web", "db"):
        run(up, name)
    wait_until(lambda: holders(up), "somebody holds it")
    os.kill(holders(up)[who], signal.SIGKILL)
    wait_until(lambda: network(up) == ("failing", "what held it has ended: machines web and 1 more have lost it until they are started again", ["web", "db"]), "it is said")
    assert told() == ["web", "db"]
    # Who starts now is on another, held anew.
    run(up, "new")
    wait_until(lambda: network(up)[2] == ["web", "db"], "they have lost it as before")
    up.post("/v1/machines/db/kill")
    up.wait("db", "stopped")
    run(up, "db")
    one = ("failing", "what held it has ended: machine web has lost it until it is started again", ["web"])
    wait_until(lambda: network(up) == one, "that one is there again")
    assert told() == ["web", "db"]
    # It is not remembered, but asked for: also where nobody holds the network any more.
    up.restart()
    wait_until(lambda: network(up) == one, "hulld has heard of it")
    holder = holders(up)["outer"]
    up.kill()
    os.kill(holder, signal.SIGKILL)
    up.start()
    wait_until(lambda: network(up)[2] == ["web", "db", "new"], "they all have lost it")
    for name in ("web", "db", "new"):
        up.post(f"/v1/machines/{name}/kill")
        up.wait(name, "stopped")
    assert network(up) == ("idle", None, [])
