"""Machines as a file says they are: what would change, that it is what changes, and that it is nothing else."""
import json
import os
import pty
import random
import socket
import subprocess

import pytest
import yaml

from hulld_fixtures import Hulld, make_erofs, wait_until
from test_cli import HULL, Cli
from test_output import PLACES, api_that_says

PATCH = {"Content-Type": "application/merge-patch+json"}


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hulld")
    daemon = Hulld(folder).with_stand_in().start()
    daemon.content = make_erofs(folder, {})
    daemon.image("hello", daemon.content, command=["true"])
    daemon.image("other", daemon.content, command=["true"])
    yield daemon
    daemon.stop()


@pytest.fixture
def hull(hulld, tmp_path):
    """hull where its files are."""
    cli = Cli(tmp_path, hulld.socket)
    cli.here = lambda *words, **options: cli(*words, cwd=tmp_path, **options)
    return cli


@pytest.fixture(autouse=True)
def nothing_left(hulld):
    yield
    for machine in hulld.get("/v1/machines").json["items"]:
        hulld.delete(f"/v1/machines/{machine['id']}?force=1")
    for volume in hulld.get("/v1/volumes").json["items"]:
        hulld.delete(f"/v1/volumes/{volume['id']}")


def patch(hulld, name, document, query="", **headers):
    return hulld.request("PATCH", f"/v1/machines/{name}{query}", json.dumps(document).encode(), headers={**PATCH, **headers})


# hulld's dry run.

def test_a_machine_is_planned_and_not_made(hulld):
    before = hulld.get("/v1/events").json["cursor"]
    spec = {"name": "web", "image": "hello", "ports": [{"host": 18080, "guest": 80}], "health": {"tcp": {"port": 80}}}
    answer = hulld.post("/v1/machines?dry_run=1", spec)
    assert answer.status == 201 and hulld.get("/v1/machines").json["items"] == [] and hulld.get("/v1/events").json["cursor"] == before
    made = hulld.post("/v1/machines?dry_run=0", spec)
    assert made.status == 201
    assert answer.json["id"] != made.json["id"]
    assert {**answer.json, "id": 0, "created_at": 0} == {**made.json, "id": 0, "created_at": 0}
    assert list((hulld.state / "machines").iterdir()) in ([], [hulld.state / "machines" / made.json["id"]])
    assert hulld.post("/v1/machines?dry_run=1", {"image": "hello"}).json["name"].startswith("machine-")


@pytest.mark.parametrize("spec, status, code, field", [
    ({"image": "hello", "cpsu": 1}, 400, "unknown_field", "cpsu"), ({"image": "nothing"}, 404, "not_found", "image"),
    ({"image": "hello", "name": "made"}, 409, "name_taken", "name"), ({"image": "hello", "secrets": ["NONE"]}, 404, "not_found", "secrets[0]"),
    ({"image": "hello", "ports": [{"host": 18081, "guest": 1}]}, 409, "port_taken", "ports[0].host"), ({"name": "x"}, 400, "missing_field", "image")])
def test_a_plan_is_refused_as_the_thing_is(hulld, spec, status, code, field):
    assert hulld.post("/v1/machines", {"name": "made", "image": "hello", "ports": [{"host": 18081, "guest": 1}]}).status == 201
    planned, refused = hulld.post("/v1/machines?dry_run=1", spec), hulld.post("/v1/machines", spec)
    assert planned.status == refused.status == status and planned.json == refused.json
    assert (planned.json["code"], planned.json["field"]) == (code, field)
    assert hulld.post("/v1/machines?dry_run=2", spec).json["field"] == "dry_run"


def test_a_change_is_planned_and_not_made(hulld):
    machine = hulld.post("/v1/machines", {"name": "web", "image": "hello", "env": {"A": "1"}})
    assert hulld.post("/v1/machines/web/start").status == 200
    wait_until(lambda: hulld.machine("web")["pid"], "the monitor's stand-in runs")
    before = hulld.get("/v1/machines/web")
    change = {"env": {"B": "2"}, "cpus": 2, "labels": {"a": "b"}}
    planned = patch(hulld, "web", change, "?dry_run=1", **{"If-Match": before.headers["ETag"]})
    assert planned.status == 200 and hulld.get("/v1/machines/web").json == before.json
    assert planned.json["env"] == {"A": "1", "B": "2"} and planned.json["pending"] == ["cpus", "env"] and planned.json["id"] == machine.json["id"]
    assert patch(hulld, "web", change).json == planned.json
    # Of one that has something pending already.
    again = patch(hulld, "web", {"cpus": 1}, "?dry_run=1")
    assert again.json["pending"] == ["env"] and patch(hulld, "web", {}, "?dry_run=1").json == planned.json
    hulld.restart()
    assert hulld.get("/v1/machines/web").json["pending"] == ["cpus", "env"]


@pytest.mark.parametrize("change, status, code", [
    ({"cpsu": 1}, 400, "unknown_field"), ({"image": "nothing"}, 404, "not_found"), ({"disk_mib": 77}, 400, "invalid_field"), ({"name": None}, 400, "missing_field"),
    ({"name": "other"}, 409, "name_taken")])
def test_a_planned_change_is_refused_as_the_change_is(hulld, change, status, code):
    for name in ("web", "other"):
        assert hulld.post("/v1/machines", {"name": name, "image": "hello"}).status == 201
    assert hulld.post("/v1/machines/web/start").status == 200
    planned, refused = patch(hulld, "web", change, "?dry_run=1"), patch(hulld, "web", change)
    assert planned.status == refused.status == status and planned.json == refused.json and planned.json["code"] == code
    assert patch(hulld, "web", {}, "?dry_run=1", **{"If-Match": '"other"'}).status == 412
    assert patch(hulld, "web", {}, "?dry_run=yes").json["field"] == "dry_run"


def test_the_audit_log_tells_a_plan_from_a_deed(hulld):
    hulld.post("/v1/machines?dry_run=1", {"name": "planned", "image": "hello"})
    hulld.post("/v1/machines", {"name": "planned", "image": "hello"})
    entries = [entry for entry in hulld.get("/v1/audit?limit=5").json["items"] if entry.get("operation") == "createMachine"]
    assert [entry.get("dry_run", False) for entry in entries[:2]] == [False, True]


# hull apply.

def write(hull, text, name="machines.yaml"):
    (hull.home / name).write_text(text if isinstance(text, str) else json.dumps(text))
    return name


def names(hulld):
    return sorted(machine["name"] for machine in hulld.get("/v1/machines").json["items"])


FILE = """
machines:
- name: web
  image: hello
  cpus: 2
  env: {PORT: "80", "GREETING": 'good day'}
  ports:
  - host: 18082
    guest: 80
- name: db
  image: hello
  restart:
    policy: always
"""


def test_machines_become_as_a_file_says_and_stay(hull, hulld):
    file = write(hull, FILE)
    shown = hull.here("apply", "-f", file, "--yes", "--no-start").stdout
    assert shown.splitlines() == [
        "+ machine web", '    + image: "hello"', "    + cpus: 2", '    + env.PORT: "80"', '    + env.GREETING: "good day"',
        '    + ports: {"host":18082,"guest":80,"address":"127.0.0.1","protocol":"tcp"}',
        "+ machine db", '    + image: "hello"', '    + restart.policy: "always"', "    + restart.max_retries: 0", "web: created", "db: created"]
    assert hulld.machine("web")["env"] == {"PORT": "80", "GREETING": "good day"} and hulld.machine("db")["restart"]["policy"] == "always"
    before = [hulld.get(f"/v1/machines/{name}").headers["ETag"] for name in ("web", "db")]
    assert hull.here("apply", "-f", file, "--no-start").stdout == "nothing to change: 2 as they are\n"
    assert hull.here("diff", "-f", file).stdout == ""
    assert [hulld.get(f"/v1/machines/{name}").headers["ETag"] for name in ("web", "db")] == before
    # One that never was started is.
    assert hull.here("apply", "-f", file).stdout == "web: started\ndb: started\n"
    assert [hulld.machine(name)["state"] for name in ("web", "db")] == ["starting"] * 2


def test_what_differs_is_shown_and_changed(hull, hulld):
    file = write(hull, FILE)
    hull.here("apply", "-f", file, "-y")
    write(hull, FILE.replace("cpus: 2", "cpus: 1\n  labels: {a/b c: x}").replace('"80", "G', '"81", "G').replace("'good day'", "'good night', NEW: é")
          .replace("host: 18082", "host: 18083").replace("policy: always", "policy: on-failure\n    max_retries: 3"))
    expected = ['~ machine web', '    ~ cpus: 2 -> 1  (at its next start)', '    ~ env.PORT: "80" -> "81"  (at its next start)',
                '    ~ env.GREETING: "good day" -> "good night"  (at its next start)', '    + env.NEW: "é"  (at its next start)',
                '    - ports: {"host":18082,"guest":80,"address":"127.0.0.1","protocol":"tcp"}', '    + ports: {"host":18083,"guest":80,"address":"127.0.0.1","protocol":"tcp"}',
                '    + labels."a/b c": "x"', '~ machine db', '    ~ restart.policy: "always" -> "on-failure"', '    ~ restart.max_retries: 0 -> 3']
    assert sorted(hull.here("diff", "-f", file, status=1).stdout.splitlines()) == sorted(expected)
    assert hull.here("apply", "-f", file, "--dry-run").stdout.splitlines()[-1] == "0 to create, 2 to change, 0 to delete, 0 as they are"
    described = json.loads(hull.here("diff", "-f", file, "-o", "json", status=1).stdout)
    assert [(step["name"], step["action"]) for step in described] == [("web", "change"), ("db", "change")] and described[0]["pending"] == ["cpus", "env"]
    assert {"field": "cpus", "before": 2, "after": 1} in described[0]["changes"]
    assert yaml.safe_load(hull.here("diff", "-f", file, "-o", "yaml", status=1).stdout) == described
    assert hulld.machine("web")["cpus"] == 2  # nothing was done yet
    assert hull.here("apply", "-f", file, "-y").stdout.splitlines()[len(expected):] == \
        ["web: changed, at its next start, or with --restart: cpus, env", "db: changed"]
    assert hull.here("apply", "-f", file).stdout == "nothing to change: 2 as they are\nweb: at its next start, or with --restart: cpus, env\n"
    assert hulld.machine("web")["pending"] == ["cpus", "env"] and hulld.machine("web")["state"] == "starting"


def test_a_named_field_is_wholly_as_the_file_says_and_others_are_left_alone(hull, hulld):
    spec = {"name": "web", "image": "hello", "env": {"A": "1", "B": "2"}, "labels": {"mine": "1"}, "cpus": 3, "workdir": "/srv",
            "health": {"http": {"port": 80, "path": "/up"}, "interval_s": 77, "grace_s": 20}, "restart": {"policy": "on-failure", "max_retries": 9}}
    assert hulld.post("/v1/machines", spec).status == 201
    file = write(hull, {"name": "web", "image": "hello", "env": {"A": "1"}, "health": {"http": {"port": 81}, "grace_s": 30}, "restart": {"policy": "on-failure"}, "workdir": None}, "web.json")
    hull.here("apply", "-f", file, "-y", "--no-start")
    now = hulld.machine("web")
    assert now["env"] == {"A": "1"} and now["health"]["http"] == {"port": 81, "path": "/"} and now["health"]["interval_s"] == 10 and now["health"]["grace_s"] == 30
    assert now["restart"] == {"policy": "on-failure", "max_retries": 0} and "workdir" not in now
    assert now["labels"] == {"mine": "1"} and now["cpus"] == 3
    assert hull.here("diff", "-f", file).stdout == ""


def test_an_inspected_machine_can_be_applied(hull, hulld):
    """So what it shows, and nobody sets, is known here."""
    spec = {"name": "web", "image": "hello", "env": {"A": "no", "B": "1e3"}, "health": {"tcp": {"port": 80}}, "user": "root:0"}
    assert hulld.post("/v1/machines", spec).status == 201
    hull("start", "web", "--timeout", "1", status=1)
    for output in ("json", "yaml"):
        file = write(hull, hull("inspect", "web", "-o", output).stdout, f"web.{output}")
        assert hull.here("diff", "-f", file).stdout == ""
    schemas = hulld.get("/v1/openapi.json").json["components"]["schemas"]
    shown = {name for name, field in schemas["Machine"]["properties"].items() if field.get("readOnly")}
    assert shown - {"health"} <= set(yaml.safe_load((hull.home / "web.yaml").read_text()))
    hull("rm", "-f", "web")
    hull.here("apply", "-f", file, "-y", "--no-start")
    assert hulld.machine("web")["env"] == spec["env"]


def test_an_image_that_has_moved_is_a_difference(hull, hulld):
    file = write(hull, "name: web\nimage: moved\n")
    hulld.image("moved", hulld.content, command=["true"])
    hull.here("apply", "-f", file, "-y", "--no-start")
    other = make_erofs(hull.home, {"srv/other": "x"})
    digest = hulld.image("moved", other, command=["true"])
    assert hull.here("diff", "-f", file, status=1).stdout.splitlines()[1].endswith(f'-> "{digest}"')
    hull.here("apply", "-f", file, "-y", "--no-start")
    assert hull.here("diff", "-f", file).stdout == "" and hulld.machine("web")["rootfs"] == digest


def test_documents_and_files_are_put_together(hull, hulld):
    write(hull, "--- # first\nname: a\nimage: hello\n---\n---\n- {name: b, image: hello}\n- name: c\n  image: hello\n...\n", "one.yaml")
    write(hull, [{"name": "d", "image": "hello"}], "two.json")
    text = json.dumps({"machines": [{"name": "e", "image": "hello", "labels": {"\U0001f600": "\ud83d\ude00"}}]})
    assert hull.here("apply", "-f", "one.yaml", "--file", "two.json", "-f", "-", "-yq", "--no-start", text=text).stdout.split() == list("abcde")
    assert names(hulld) == list("abcde") and hulld.machine("e")["labels"] == {"😀": "😀"}


@pytest.mark.parametrize("seed", range(2))
def test_texts_come_through_a_file_as_they_are(hull, hulld, seed):
    """By PyYAML's hand, by hull's and as JSON."""
    rng = random.Random(seed)
    letters = "\n  \t:#-?,[]{}'\"|>&*!%@`~=0123456789.eabcnoyes\\\x01\x7f\x85\u2028é日😀"
    texts = [place for place in PLACES if "\0" not in place] + ["".join(rng.choice(letters) for _ in range(rng.randrange(20))) for _ in range(300)]
    labels = {f"k{i}": text for i, text in enumerate(texts)}
    machine = {"name": "web", "image": "hello", "labels": labels}
    by_pyyaml = yaml.safe_dump(machine, allow_unicode=bool(seed), width=40 + seed)
    for text in (json.dumps(machine), json.dumps(machine, ensure_ascii=False, indent=1), by_pyyaml):
        hull.here("apply", "-f", write(hull, text), "-y", "--no-start")
        # PyYAML writes a NEL as it is, which then is the end of a line.
        assert hulld.machine("web")["labels"] == (yaml.safe_load(text)["labels"] if text is by_pyyaml else labels)
        file = write(hull, hull("inspect", "web", "-o", "yaml").stdout, "again.yaml")
        assert hull.here("diff", "-f", file).stdout == ""
        hulld.delete("/v1/machines/web")


@pytest.mark.parametrize("text, line, hint", [
    ("machines:\n- name: web\n  image: hello\n  cpsu: 1\n", "m.yaml:4: web: cpsu: unknown field", 'did you mean "cpus"?'),
    ("name: a\nimage: hello\n---\nname: web\nimage: hello\nports:\n- host: 1\n  guest: 80\n- host: 0\n  guest: 1\n", "m.yaml:9 (document 2): web: ports[1].host: ", ""),
    ("name: web\nimage: nothing\n", "m.yaml:2: web: image: ", "`hull images` lists what there is, `hull image build` makes one"),
    ("name: web\nimage: hello\nhealth:\n  http:\n    prot: 1\n", "m.yaml:5: web: health.http.prot: unknown field", 'did you mean "port"?'),
    ("name: web\nimage: hello\nmounts:\n- path: /srv\n  host_path: ./missing\n", "m.yaml:5: web: mounts[0].host_path: ./missing: No such file or directory", ""),
    ("name: web\nimage: hello\nmounts:\n- host_path: ..\n  path: /srv\n", "m.yaml:4: web: mounts[0].host_path: machines of project default may not see /",
     "the host's administrator allows folders: hulld --mount-allow [PROJECT=]DIR"),
    ("image: hello\n", "m.yaml:1: name: is missing: by it a machine is known", ""),
    ("name: 5\nimage: hello\n", "m.yaml:1: name: must be a text", ""),
    ("name: Web\nimage: hello\n", "m.yaml:1: Web: name: ", ""),
    ("name: web\nimage: hello\nenv:\n  DEBUG: true\n", "m.yaml:4: web: env.DEBUG: must be a text", 'write it in quotes'),
    ("name: web\nimage: hello\nlabels: {n: 1}\n", "m.yaml:3: web: labels.n: must be a text", 'write it in quotes, as "1"'),
    ("name: web\nimage: hello\nenv: [A=1]\n", "m.yaml:3: web: env: ", ""),
    ("name: web\nname: x\n", "m.yaml: line 2: name is there twice", ""),
    ("machines:\n- name: web\n  image: hello\n- {name: web, image: other}\n", "m.yaml:4: web: name: a machine of that name is at m.yaml:2 already", ""),
    ("machines: []\nsecrets: [A]\n", "m.yaml:2: secrets: is no field of a file; it has `machines`, `volumes` and `networks`, or is a machine, with `name` and `image`",
     "files have machines, which name secrets; `hull secret set NAME <FILE` makes one"),
    ("machnes: []\n", "m.yaml:1: machnes: is no field of a file; it has `machines`, `volumes` and `networks`, or is a machine, with `name` and `image`", "did you mean machines?"),
    ("machines: {}\n", "m.yaml:1: machines: must be a list of machines", ""), ("{}\n", "m.yaml:1: must be a machine, or have machines", ""),
    ("networks: {}\n", "m.yaml:1: networks: must be a list of networks", ""), ("networks: [7]\n", "m.yaml:1: a network must be an object", ""),
    ("networks:\n- {subnet: 10.0.0.0/24}\n", "m.yaml:2: name: is missing: by it a network is known", ""),
    ("networks:\n- {name: a}\n- {name: a}\n", "m.yaml:3: a: name: a network of that name is at m.yaml:2 already", ""),
    ("networks:\n- {name: a, egres: false}\n", "m.yaml:2: a: egres: unknown field", 'did you mean "egress"?'),
    ("networks:\n- {name: a,\n   subnet: 8.8.8.0/24}\n", "m.yaml:3: a: subnet: must be private", ""),
    ("networks:\n- {name: a, subnet: 10.1.0.0/23}\n- {name: c}\n---\nnetworks:\n- {name: b,\n   subnet: 10.1.1.128/25}\n",
     "m.yaml:7 (document 2): b: subnet: 10.1.1.128/25 overlaps with 10.1.0.0/23, of network a at m.yaml:2", ""),
    ("networks:\n- {name: a, labels: {n: 1}}\n", "m.yaml:2: a: labels.n: must be a text", 'write it in quotes, as "1"'),
    ("networks:\n- {name: default}\n", "m.yaml:2: default: name: must not be default or none, which every project has", ""),
    ("netwroks: []\n", "m.yaml:1: netwroks: is no field of a file; it has `machines`, `volumes` and `networks`, or is a machine, with `name` and `image`", "did you mean networks?"), ("- 5\n", "m.yaml:1: a machine must be an object", ""),
    ("hello\n", "m.yaml:1: must be a machine, or have machines", ""),
    ("a: &x 1\nb: *x\n", "m.yaml: line 2: aliases are not taken: write out what is meant", ""), ("<<: {a: 1}\n", "m.yaml: line 1: `<<` is not taken: write out what is meant", ""),
    ("a: !!python/object:os.system x\n", "m.yaml: line 1: this tag is not known here", ""), ("a: [1,\nb: 2\n", "m.yaml: line ", ""),
    ("a:\n\t- b\n", "m.yaml: line 2: is indented by a tab, where YAML takes spaces", ""), ("[" * 100 + "]" * 100, "m.yaml: line 1: is too deep", ""), ('a: "\\0"\n', "m.yaml: line 1: a text has a NUL", ""),
    ("? [a]\n: b\n", "m.yaml: line 1: a key must be a word", ""), ("a: \udcff\n", "m.yaml: line ", ""), ("@a: 1\n", "m.yaml: line 1: ", "")])
def test_a_wrong_file_is_refused_with_its_line_and_nothing_is_done(hull, hulld, text, line, hint):
    (hull.home / "m.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    told = hull.refused("apply", "-f", "m.yaml", "-y", cwd=hull.home)
    assert told[0].startswith(line) and told[1] == hint and names(hulld) == []
    assert hull.refused("diff", "-f", "m.yaml", cwd=hull.home, status=2) == told


@pytest.mark.parametrize("words, status, line, hint", [
    (["apply"], 2, "--file: is missing", "for example `hull apply -f machines.yaml`"),
    (["apply", "-f", "none.yaml"], 2, "--file: cannot read none.yaml: No such file or directory", ""),
    (["apply", "-f", "a.json"], 1, "a.json: not valid JSON: line 1, column 10: ", ""),
    (["apply", "-f", "m.yaml"], 2, "--yes: is needed where nobody can be asked", "`hull diff` shows what would change"),
    (["apply", "-f", "m.yaml", "--prune", "-y"], 2, "--prune: needs --label KEY=VALUE, which says whose machines are meant", "for example --prune -l app=shop"),
    (["apply", "-f", "m.yaml", "-l", "app", "-y"], 2, '--label: "app" is not KEY=VALUE', ""),
    (["apply", "-f", "m.yaml", "-l", "app=x", "-y"], 1, 'm.yaml:3: web: labels: app is "shop" there, and x by --label', ""),
    (["diff", "-f", "m.yaml", "-o", "xml"], 2, '--output: "xml" is none of table, json, yaml', "")])
def test_a_wrong_apply_is_refused(hull, hulld, words, status, line, hint):
    write(hull, "name: web\nimage: hello\nlabels: {app: shop}\n", "m.yaml")
    write(hull, '{"name": }', "a.json")
    told = hull.refused(*words, status=status, cwd=hull.home)
    assert told[0].startswith(line) and told[1] == hint and names(hulld) == []


def test_an_empty_file_changes_nothing(hull):
    assert hull.here("apply", "-f", write(hull, "# nothing\n")).stdout == "nothing to change: 0 as they are\n"


def test_an_empty_file_does_not_say_that_all_have_to_go(hull, hulld):
    assert hulld.post("/v1/machines", {"name": "mine", "image": "hello", "labels": {"app": "shop"}}).status == 201
    for text in ("", "# nothing\n", "---\n---\n"):
        told = hull.refused("apply", "-f", write(hull, text), "-l", "app=shop", "--prune", "-y", cwd=hull.home)
        assert "says nothing, and --prune would delete all machines with the label" in told[0] and told[1] == "`machines: []` says that there are to be none"
    assert names(hulld) == ["mine"]
    hull.here("apply", "-f", write(hull, "machines: []\n"), "-l", "app=shop", "--prune", "-y")
    assert names(hulld) == []


def test_prune_takes_what_has_the_label_and_is_in_no_file(hull, hulld):
    for name, labels in (("mine", {"app": "shop"}), ("stranger", {"app": "other"}), ("bare", {})):
        assert hulld.post("/v1/machines", {"name": name, "image": "hello", "labels": labels}).status == 201
    assert hulld.post("/v1/machines/mine/start").status == 200
    file = write(hull, "name: web\nimage: hello\n")
    shown = hull.here("diff", "-f", file, "-l", "app=shop", "--prune", status=1).stdout
    assert '    + labels.app: "shop"' in shown.splitlines() and "- machine mine (starting), and what it has written" in shown and "stranger" not in shown
    assert hull.here("apply", "-f", file, "-l", "app=shop", "--prune", "-yq", "--no-start").stdout == "web\nmine\n"
    assert names(hulld) == ["bare", "stranger", "web"] and hulld.machine("web")["labels"] == {"app": "shop"}
    assert hull.here("apply", "-f", file, "-l", "app=shop", "--prune", "--no-start").stdout == "nothing to change: 1 as they are\n"
    # Labels that the file does not name are left alone but for that one.
    patch(hulld, "web", {"labels": {"b": "c", "app": None}})
    hull.here("apply", "-f", file, "-l", "app=shop", "-y", "--no-start")
    assert hulld.machine("web")["labels"] == {"b": "c", "app": "shop"}


def test_a_failure_in_the_middle_says_what_was_done(hull, hulld):
    """What other programs have is found out only when it is done."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = f"- {{name: a, image: hello}}\n- name: b\n  image: hello\n  ports:\n  - {{host: {port}, guest: 80}}\n- {{name: c, image: hello}}\n- {{name: d, image: hello}}\n"
        process = hull.here("apply", "-f", write(hull, text), "-y", "--no-start", status=1)
        described = json.loads(hull.here("apply", "-f", "machines.yaml", "-y", "--no-start", "-o", "json", status=1).stdout)
    assert [(step["name"], step["action"], step["done"]) for step in described] == \
        [("a", "nothing", True), ("b", "create", False), ("c", "create", False), ("d", "create", False)]
    assert process.stdout.endswith("a: created\n") and names(hulld) == ["a"]
    assert process.stderr.splitlines()[0] == "hull: not done: b, c, d"
    assert process.stderr.splitlines()[1].startswith(f"hull: machines.yaml:5: b: ports[0].host: 127.0.0.1:{port} cannot be published")
    assert hull.here("apply", "-f", "machines.yaml", "-yq", "--no-start").stdout.split() == ["b", "c", "d"]


def test_what_was_made_and_does_not_start_is_told_apart(hull):
    machine = {"id": "m1", "name": "a", "image": "hello", "state": "created", "pending": []}
    missing = (404, {"code": "not_found", "detail": "there is none"})
    answers = {("GET", "/v1/machines/a"): missing, ("GET", "/v1/machines/b"): missing, ("POST", "/v1/machines"): machine,
               ("POST", "/v1/machines/m1/start"): (409, {"code": "quota_exceeded", "detail": "too many run"})}
    file = write(hull, "- {name: a, image: hello}\n- {name: b, image: hello}\n")
    with api_that_says(answers) as url:
        process = hull.here("--host", url, "apply", "-f", file, "-y", status=1)
        assert process.stderr.splitlines() == ["hull: not done: b", "hull: a was created, and cannot be started: too many run"]
        described = json.loads(hull.here("--host", url, "apply", "-f", file, "-y", "-o", "json", status=1).stdout)
    assert [step["done"] for step in described] == [True, False]


def test_what_others_depend_on_comes_before_them(hull, hulld):
    text = "".join(f"- {{name: {name}, image: hello, depends_on: [{needs}]}}\n" for name, needs in (
        ("web", "{machine: db}, {machine: migrate, condition: completed}"), ("migrate", "{machine: db, condition: started}"), ("db", ""), ("alone", "")))
    shown = hull.here("apply", "-f", write(hull, text), "-y", "--no-start").stdout
    assert '    + depends_on: {"machine":"migrate","condition":"completed"}' in shown.splitlines()
    assert shown.splitlines()[-4:] == ["db: created", "alone: created", "migrate: created", "web: created"]
    assert [one["machine"] for one in hulld.machine("web")["depends_on"]] == ["db", "migrate"] and hull.here("diff", "-f", "machines.yaml").stdout == ""
    hulld.delete("/v1/machines/web")
    circle = "- {name: a, image: hello, depends_on: [{machine: b}]}\n- {name: b, image: hello, depends_on: [{machine: a}]}\n"
    assert hull.refused("apply", "-f", write(hull, circle), "-y", cwd=hull.home)[0].startswith("machines.yaml:1: a: depends_on[0].machine: ")


def changed_meanwhile(hull, hulld, change, file="name: web\nimage: hello\ncpus: 2\n"):
    """apply at a terminal, which asks; `change` is done before the answer. What it said, and its exit status."""
    name = write(hull, file)
    ours, theirs = pty.openpty()
    process = subprocess.Popen([HULL, "apply", "-f", name, "--no-start"], stdin=theirs, stdout=theirs, stderr=theirs, env=hull.env | {"TERM": "vt100"}, cwd=hull.home)
    os.close(theirs)
    shown = b""
    while b"Do it? [y/N] " not in shown:
        shown += os.read(ours, 4096)
    change()
    os.write(ours, b"y\n")
    try:
        while more := os.read(ours, 4096):
            shown += more
    except OSError:  # nobody has its other end any more
        pass
    os.close(ours)
    return shown.decode().replace("\r\n", "\n"), process.wait(60)


def test_at_a_terminal_it_asks_in_colour(hull, hulld):
    assert hulld.post("/v1/machines", {"name": "web", "image": "hello"}).status == 201
    shown, status = changed_meanwhile(hull, hulld, lambda: None)
    assert status == 0 and "\x1b[33m~ machine web\x1b[0m\n    \x1b[33m~ cpus: 1 -> 2\x1b[0m\n0 to create, 1 to change, 0 to delete, 0 as they are\n" in shown
    assert hulld.machine("web")["cpus"] == 2
    ours, theirs = pty.openpty()
    os.write(ours, b"n\n")
    write(hull, "name: web\nimage: hello\ncpus: 4\n")
    with subprocess.Popen([HULL, "apply", "-f", "machines.yaml"], stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, env=hull.env, cwd=hull.home) as process:
        assert b"\x1b" not in process.stdout.read() and process.wait(60) == 1
    os.close(ours)
    os.close(theirs)
    assert hulld.machine("web")["cpus"] == 2


def test_what_somebody_else_changes_meanwhile_is_not_overwritten(hull, hulld):
    assert hulld.post("/v1/machines", {"name": "web", "image": "hello"}).status == 201
    shown, status = changed_meanwhile(hull, hulld, lambda: patch(hulld, "web", {"cpus": 3}))
    assert status == 1 and "hull: machines.yaml:1: web: somebody else has changed it at the same time; it is left as it is\n" in shown
    assert hulld.machine("web")["cpus"] == 3
    # What the file does not name, and what changes by itself, is no contradiction.
    shown, status = changed_meanwhile(hull, hulld, lambda: (patch(hulld, "web", {"labels": {"a": "b"}}), hulld.post("/v1/machines/web/start")))
    assert status == 0 and hulld.machine("web")["cpus"] == 2 and hulld.machine("web")["labels"] == {"a": "b"}
    # Nor is one that was made meanwhile taken for the one that was to be made.
    hulld.delete("/v1/machines/web?force=1")
    shown, status = changed_meanwhile(hull, hulld, lambda: hulld.post("/v1/machines", {"name": "web", "image": "other"}))
    assert status == 1 and "exists already" in shown and hulld.machine("web")["image"] == "other"


def test_two_that_apply_at_one_time_are_in_no_way(hull, hulld):
    """Each sees what the other has done, or is refused; in the end it is as the file says."""
    file = write(hull, [{"name": f"m{i}", "image": "hello", "cpus": 2} for i in range(8)], "m.json")
    processes = [hull.popen("apply", "-f", file, "-y", "--no-start", cwd=hull.home) for _ in range(4)]
    outcomes = [(process.communicate(timeout=60), process.returncode) for process in processes]
    assert {status for _, status in outcomes} <= {0, 1} and 0 in {status for _, status in outcomes}, outcomes
    assert all("exists already" in err for (_, err), status in outcomes if status), outcomes
    assert hull.here("diff", "-f", file).stdout == "" and len(names(hulld)) == 8


def test_it_restarts_when_told_and_waits_until_all_are_healthy(hull):
    """With an API that has guests: this hulld has none."""
    machine = {"id": "m1", "name": "web", "image": "hello", "cpus": 1, "state": "running", "pending": [], "health": {"state": "healthy"}}
    changed = {**machine, "cpus": 2, "pending": ["cpus"]}
    answers = {("GET", "/v1/machines/web"): machine, ("PATCH", "/v1/machines/m1"): changed, ("POST", "/v1/machines/m1/restart"): machine,
               ("GET", "/v1/machines/m1/wait"): {**changed, "pending": []}}
    file = write(hull, "name: web\nimage: hello\ncpus: 2\n")
    with api_that_says(answers) as url:
        assert hull.here("--host", url, "apply", "-f", file, "-y", "--restart", "--wait").stdout.splitlines()[2:] == ["web: changed, started again", "web: healthy"]
        assert hull.here("--host", url, "apply", "-f", file, "-y", "--wait").stdout.splitlines()[2:] == ["web: changed, at its next start, or with --restart: cpus", "web: healthy"]
        answers["GET", "/v1/machines/m1/wait"] = {**changed, "health": {"state": "unhealthy", "reason": "refused"}}
        line, hint = hull.refused("--host", url, "apply", "-f", file, "-y", "--wait", cwd=hull.home)
        assert line == "web: the machine is unhealthy: refused"
        assert hint == "`hull logs web` may say more; what takes longer to come up gets that by `hull update --health-grace S web`"
        answers["GET", "/v1/machines/web/wait"] = {**changed, "state": "stopped", "exit_status": 1}
        assert hull.refused("--host", url, "wait", "--healthy", "web") == ("web: the machine has stopped: its command ended with status 1", "`hull logs web` shows what it said")


@pytest.mark.parametrize("state, started", [("running", False), ("stopped", True), ("failed", True), ("created", False)])
def test_an_update_that_restarts_starts_what_has_ended(hull, state, started):
    """What is mended is to run, though nothing of it is pending then."""
    machine = {"id": "m1", "name": "web", "state": state, "pending": [], "cause": {"code": "panic"}}
    answers = {("GET", "/v1/machines/web"): machine, ("PATCH", "/v1/machines/web"): machine}
    restart = {("POST", "/v1/machines/m1/restart"): machine, ("GET", "/v1/machines/m1/wait"): {**machine, "state": "running"}}
    with api_that_says({**answers, **(restart if started else {})}) as url:
        shown = json.loads(hull("--host", url, "update", "web", "-e", "A=b", "--restart-now", "-o", "json").stdout)
        assert shown["state"] == ("running" if started else state)
        assert hull("--host", url, "update", "web", "-e", "A=b").stdout == "web\n"


def test_ps_says_why_a_machine_has_failed(hull):
    machine = {"name": "web", "state": "failed", "cause": {"code": "start_timeout"}}
    with api_that_says({("GET", "/v1/machines"): {"items": [machine]}}) as url:
        assert "failed (start_timeout)" in hull("--host", url, "ps", "-a").stdout


def test_the_example_is_read(hull, hulld):
    for name in ("python-hello", "node-hello"):
        hulld.image(name, hulld.content, command=["true"])
    example = HULL.parent.parent / "examples" / "machines.yaml"
    if not example.exists():
        pytest.skip("built elsewhere")
    assert hull("apply", "-f", example, "-l", "app=examples", "-yq", "--no-start").stdout == "greeter\nweb\n"
    assert hull("diff", "-f", example, "-l", "app=examples", "--prune").stdout == ""


# Volumes.

VOLUMES = """volumes:
- {name: data, size_mib: 16, labels: {team: a}}
- {name: web, size_mib: 16}
machines:
- {name: web, image: hello, mounts: [{volume: data, path: /data}, {volume: web, path: /web, read_only: true}]}
"""


def test_volumes_are_made_before_the_machines_that_mount_them(hulld, hull):
    file = write(hull, VOLUMES)
    shown = hull.here("diff", "-f", file, status=1).stdout.splitlines()
    assert [line for line in shown if not line.startswith(" ")] == ["+ volume data", "+ volume web", "+ machine web"]
    assert "    + size_mib: 16" in shown and '    + mounts: {"volume":"data","path":"/data"}' in shown
    assert hulld.get("/v1/volumes").json["items"] == [] and os.listdir(hulld.state / "volumes") == [], "nothing was made"
    told = hull.here("apply", "-f", file, "-y", "--no-start").stdout.splitlines()
    assert told[-3:] == ["data: created", "web: created", "web: created"]
    assert [volume["size_mib"] for volume in hulld.get("/v1/volumes").json["items"]] == [16, 16]
    assert [mount["path"] for mount in hulld.machine("web")["mounts"]] == ["/data", "/web"]
    assert hull.here("diff", "-f", file).stdout == ""


def test_volumes_grow_and_are_never_pruned(hulld, hull):
    hull.here("apply", "-f", write(hull, VOLUMES), "-y", "--no-start", "-l", "app=shop")
    grown = write(hull, VOLUMES.replace("size_mib: 16, labels", "size_mib: 24, labels"))
    described = json.loads(hull.here("diff", "-f", grown, "-l", "app=shop", "-o", "json", status=1).stdout)
    assert [(step["kind"], step["name"], step["action"]) for step in described] == [
        ("volume", "data", "change"), ("volume", "web", "nothing"), ("machine", "web", "nothing")]
    assert described[0]["changes"] == [{"field": "size_mib", "before": 16, "after": 24}]
    hull.here("apply", "-f", grown, "-y", "--no-start", "-l", "app=shop")
    assert hulld.get("/v1/volumes/data").json["size_mib"] == 24
    lines = hull.refused("apply", "-f", write(hull, VOLUMES), "-y", "--no-start", cwd=hull.home)
    assert lines[0] == "machines.yaml:2: data: size_mib: cannot become less than the 24 MiB that it has"
    hull.here("apply", "-f", write(hull, "machines: []"), "-y", "--prune", "-l", "app=shop")
    assert hulld.get("/v1/machines").json["items"] == [] and len(hulld.get("/v1/volumes").json["items"]) == 2
    # What is shown of one can be applied.
    shown = hulld.get("/v1/volumes/data").json
    assert hull.here("diff", "-f", write(hull, json.dumps({"volumes": [shown]}))).stdout == ""


@pytest.mark.parametrize("text, line, hint", [
    ("volumes: {}", "machines.yaml:1: volumes: must be a list of volumes", ""),
    ("volumes: [7]", "machines.yaml:1: a volume must be an object", ""),
    ("volumes:\n- {size_mib: 16}", "machines.yaml:2: name: is missing: by it a volume is known", ""),
    ("volumes:\n- {name: a}\n- {name: a}", "machines.yaml:3: a: name: a volume of that name is at machines.yaml:2 already", ""),
    ("volumes:\n- {name: a, size: 16}", "machines.yaml:2: a: size: unknown field", "did you mean \"size_mib\"?"),
    ("volume: []\nmachines: []", "machines.yaml:1: volume: is no field of a file; it has `machines`, `volumes` and `networks`, or is a machine, with `name` and `image`",
     "did you mean volumes?")])
def test_a_file_that_says_nonsense_of_volumes_is_refused(hulld, hull, text, line, hint):
    said, hinted = hull.refused("apply", "-f", write(hull, text), "-y", cwd=hull.home)
    assert (said, hinted) == (line, hint) and hulld.get("/v1/volumes").json["items"] == []


def test_what_a_dry_run_of_a_volume_says_is_what_comes(hulld):
    before = hulld.get("/v1/events").json["cursor"]
    planned = hulld.post("/v1/volumes?dry_run=1", {"name": "a", "size_mib": 16})
    assert planned.status == 201 and hulld.get("/v1/volumes").json["items"] == [] and hulld.get("/v1/events").json["cursor"] == before
    made = hulld.post("/v1/volumes", {"name": "a", "size_mib": 16}).json
    changing = {"id": 0, "created_at": 0, "updated_at": 0, "used_bytes": 0}
    assert {**planned.json, **changing} == {**made, **changing}
    grown = hulld.request("PATCH", "/v1/volumes/a?dry_run=1", json.dumps({"size_mib": 32}), headers=PATCH)
    assert grown.status == 200 and grown.json["size_mib"] == 32 and hulld.get("/v1/volumes/a").json == made
    for method, path, body in (("POST", "/v1/volumes", {"name": "a"}), ("PATCH", "/v1/volumes/a", {"size_mib": 16, "name": "b"})):
        refusals = [hulld.request(method, path + query, json.dumps(body), headers={"Content-Type": PATCH["Content-Type"] if method == "PATCH" else "application/json"})
                    for query in ("?dry_run=1", "")]
        assert refusals[0].status == refusals[1].status >= 400 and refusals[0].json == refusals[1].json
