"""Where hull finds its API: contexts, what comes before what, projects, and how long it waits."""
import json
import socket
import subprocess

import pytest

from free_ports import free_port
from hulld_fixtures import BUILD, Hulld, make_erofs
from test_cli import Cli

TOKEN = "0123456789abcdef-of-the-host"


@pytest.fixture
def alone(tmp_path):
    return Cli(tmp_path)


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    """One that listens at a port, too."""
    folder = tmp_path_factory.mktemp("hulld")
    address = f"127.0.0.1:{free_port()}"
    (folder / "token").write_text(TOKEN + "\n")
    (folder / "token").chmod(0o600)
    daemon = Hulld(folder, "--listen", address, "--token-file", folder / "token").with_stand_in().start()
    daemon.url = f"http://{address}"
    assert daemon.post("/v1/projects", {"name": "shop"}).status == 201
    daemon.image("busybox", make_erofs(folder, {}))
    yield daemon
    daemon.stop()


def mode(path):
    return oct(path.stat().st_mode & 0o777)


def test_contexts_are_made_listed_used_and_forgotten(alone):
    assert json.loads(alone("context", "list", "-o", "json").stdout) == \
        [{"name": "default", "current": True, "url": "unix:///run/hull/hulld.sock", "project": None, "token": False}]
    assert alone("context", "create", "lab", "--url", "http://10.0.0.1:7070", "--token-file", "-", "--project", "shop", text=f"{TOKEN}\n").stdout == "lab\n"
    alone("context", "create", "b.c_d-1", "--url", "unix:///x")
    assert alone("context", "list", "-q").stdout == "default\nb.c_d-1\nlab\n"
    assert alone("context", "use", "lab").stdout == "lab\n"
    rows = [line.split() for line in alone("context", "list").stdout.splitlines()]
    assert rows[0][0] == "NAME" and rows[3] == ["lab", "yes", "http://10.0.0.1:7070", "shop", "yes"] and len(rows) == 4
    shown = json.loads(alone("context", "inspect").stdout)
    assert shown == {"name": "lab", "current": True, "url": "http://10.0.0.1:7070", "project": "shop", "token": True}
    assert json.loads(alone("context", "inspect", "b.c_d-1").stdout)["current"] is False
    folder = alone.home / ".config" / "hull"
    assert json.loads((folder / "contexts" / "lab.json").read_text())["token"] == TOKEN
    assert mode(folder / "contexts" / "lab.json") == mode(folder / "current-context") == "0o600" and mode(folder / "contexts") == "0o700"
    assert alone.refused("context", "rm", "lab") == ("CONTEXT: lab is in use", "`hull context use default` first, or `hull context rm -f lab`")
    assert alone("context", "rm", "-f", "lab", "b.c_d-1").stdout == "lab\nb.c_d-1\n"
    assert alone("context", "list", "-q").stdout == "default\n" and json.loads(alone("context", "inspect").stdout)["name"] == "default"


def test_what_says_where_comes_in_an_order(alone):
    def found(*words, **env):
        alone.env.update(env)
        shown = json.loads(alone("context", "show", "-o", "json", *words).stdout)
        for name in env:
            del alone.env[name]
        return shown["url"], shown["project"], shown["token"]

    alone("context", "create", "a", "--url", "http://a:1", "--token", "aaa", "--project", "pa")
    alone("context", "create", "b", "--url", "http://b:1")
    assert found() == ("unix:///run/hull/hulld.sock", None, False)
    alone("context", "set", "http://d:1", "--token", "ddd")  # as kvmhost does
    assert found() == ("http://d:1", None, True)
    alone("context", "use", "a")
    assert found() == ("http://a:1", "pa", True) and found("--project", "x") == ("http://a:1", "x", True) and found(HULL_PROJECT="y") == ("http://a:1", "y", True)
    assert found(HULL_CONTEXT="b") == ("http://b:1", None, False) and found("--context", "default") == ("http://d:1", None, True)
    assert found(HULL_CONTEXT="b", HULL_HOST="http://e:1", HULL_TOKEN="eee") == ("http://e:1", None, True)
    assert found("--context", "b", HULL_HOST="http://e:1") == ("http://b:1", None, False)
    assert found("--host", "http://f:1", HULL_CONTEXT="b") == ("http://f:1", None, False)
    # What opens one host is not shown to another.
    assert found("--context", "b", HULL_TOKEN="eee") == ("http://b:1", None, False) and found("--context", "b", "--token", "x")[2]
    assert alone("context", "set", "http://g:1").stderr.splitlines()[0] == "hull: context a is in use"
    alone.env["HULL_HOST"] = "http://e:1"
    assert alone("context", "use", "b").stderr == "hull: HULL_HOST is set, and comes first\n"


@pytest.mark.parametrize("words, status, line, hint", [
    (["ps", "--context", "lba"], 1, '--context: there is no context "lba"', "did you mean lab? `hull context list` lists them"),
    (["context", "use", "nothing"], 1, 'CONTEXT: there is no context "nothing"', "`hull context list` lists what there is, `hull context create` makes one"),
    (["context", "rm", "nothing"], 1, 'CONTEXT: there is no context "nothing"', "`hull context list` lists what there is, `hull context create` makes one"),
    (["ps", "--context", "lab", "--host", "unix:///x"], 2, "--context: not together with --host: either says where the API is", ""),
    (["context", "create", "x"], 2, "--url: is missing", "for example --url http://127.0.0.1:7070, or --url unix:///run/hull/hulld.sock"),
    (["context", "create", "x", "--url", "10.0.0.1"], 2, "10.0.0.1: is no URL of an API", "did you mean http://10.0.0.1?"),
    (["context", "create", "../x", "--url", "unix:///x"], 2, 'CONTEXT: "../x" is no name of a context: 1 to 63 letters, digits, ., _ and -', ""),
    (["context", "create", "default", "--url", "unix:///x"], 2, "CONTEXT: default is where the host is that was started last", "`hull context set URL` sets it"),
    (["context", "create", "lab", "--url", "unix:///x"], 1, 'CONTEXT: there is a context "lab" already', "`hull context rm lab` takes it away"),
    (["context", "create", "x", "--url", "unix:///x", "--token-file", "/nonexistent"], 2, "--token-file: cannot read /nonexistent: No such file or directory", ""),
    (["context", "create", "x", "--url", "unix:///x", "--token-file", "-"], 2, "--token-file: the input has no token", ""),
    (["context", "create", "x", "--url", "unix:///x", "--token", "a b"], 2, "token: has a character that is none of a token", ""),
    (["ps", "--project", "a\r\nX: y"], 2, "project: has a character that is none of a project", ""),
    (["ps", "--timeout", "0"], 2, '--timeout: "0" is not a number from 1 to 2592000', ""),
])
def test_a_wrong_context_is_refused(alone, words, status, line, hint):
    alone("context", "create", "lab", "--url", "unix:///x")
    assert alone.refused(*words, status=status) == (line, hint)
    assert alone("context", "list", "-q").stdout == "default\nlab\n"


def test_a_broken_file_is_named(alone):
    alone("context", "create", "lab", "--url", "unix:///x")
    path = alone.home / ".config" / "hull" / "contexts" / "lab.json"
    path.write_text('{"url": "unix:///x", "tokne": "x"}')
    line, hint = alone.refused("--context", "lab", "ps")
    assert str(path) in line and "tokne" in line and hint == "`hull context rm lab`, and create it anew"
    current = path.parent.parent / "current-context"
    for text in ("../lab\n", "", "\0"):
        current.write_text(text)
        line, hint = alone.refused("ps", status=2)
        assert line.startswith(f"{current}: ") and hint == "`hull context use NAME` writes it anew"
    current.write_text("gone\n")
    assert alone.refused("ps") == ('current-context: there is no context "gone"', "`hull context use default`, or one of `hull context list`")
    alone("context", "rm", "lab")
    alone("context", "use", "default")
    assert not current.exists()


def test_contexts_reach_hosts_and_projects(alone, hulld):
    alone("context", "create", "tcp", "--url", hulld.url, "--token-file", hulld.folder / "token")
    alone("context", "create", "socket", "--url", f"unix://{hulld.socket}", "--project", "shop")
    alone("context", "create", "stranger", "--url", hulld.url)
    assert alone("--context", "tcp", "images", "-q").stdout == "busybox\n" and alone("--context", "socket", "images", "-q").stdout == ""
    assert alone("--context", "socket", "--project", "default", "images", "-q").stdout == "busybox\n"
    assert alone("--context", "tcp", "images", "-q", "--project", "shop").stdout == ""
    alone("--context", "socket", "secret", "set", "KEY", text="x")
    assert [item["name"] for item in hulld.get("/v1/secrets", headers={"Hull-Project": "shop"}).json["items"]] == ["KEY"]
    line, hint = alone.refused("--context", "stranger", "ps")
    assert "token" in line and "hull context" in hint
    token = alone("--context", "socket", "token", "create", "--scope", "read").stdout
    alone("context", "create", "reader", "--url", hulld.url, "--token-file", "-", text=token)
    alone("context", "use", "reader")
    assert alone("secret", "list", "-q").stdout == "KEY\n" and alone.refused("secret", "set", "OTHER", text="x")[0] != ""


def test_where_nobody_answers_it_does_not_wait_for_ever(alone):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = "http://127.0.0.1:%d" % silent.getsockname()[1]
        asked = {words: alone.popen("--host", url, "--timeout", "1", *words.split()) for words in ("ps", "logs -f x", "wait x", "exec x true", "run x", "events -f")}
        for words, process in asked.items():
            line, hint = process.communicate(timeout=60)[1].splitlines()
            assert line == f"hull: the API at {url} (--host) was not done within 1 s" and hint.startswith("      what was asked for may happen still"), words
            assert process.returncode == (125 if words[0] in "er" and words != "events -f" else 1)


def test_a_timeout_ends_a_wait_and_not_what_is_its_own(alone, hulld):
    alone.env["HULL_HOST"] = f"unix://{hulld.socket}"
    assert hulld.post("/v1/machines", {"name": "made", "image": "busybox", "command": ["true"]}).status == 201
    assert "was not done within 3 s" in alone.refused("--timeout", "3", "start", "made")[0]
    assert hulld.machine("made")["state"] == "starting"
    alone("--timeout", "60", "stop", "--timeout", "0", "made")  # its own is how long the workload gets
    assert hulld.machine("made")["state"] == "stopped"
    assert "was not done within 1 s" in alone.refused("run", "-d", "--timeout", "1", "--name", "other", "busybox", "true", status=125)[0]
    assert [machine["name"] for machine in hulld.get("/v1/machines").json["items"]] == ["made"]
    hulld.delete("/v1/machines/made")


def test_kvmhost_keeps_to_the_file_of_before(tmp_path):
    """Its script writes context.json where there is none, or its own; hull reads it as the context `default`."""
    script = (BUILD.parent / "tools" / "kvmhost-up.sh")
    if not script.exists():
        pytest.skip("built elsewhere")
    alone = Cli(tmp_path)
    alone("context", "create", "lab", "--url", "unix:///x")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "api.json.new").write_text('{"url":"http://127.0.0.1:9","token":"t"}\n')
    functions = 'json_value() { sed -n "s/.*\\"$2\\":\\"\\([^\\"]*\\).*/\\1/p" "$1"; }; eval "$(sed -n "/^keep_api()/,/^}/p;/^drop_context()/,/^}/p" "$1")"; state=$2; $3'
    for function, url in (("keep_api", "http://127.0.0.1:9"), ("drop_context", "unix:///run/hull/hulld.sock")):
        subprocess.run(["bash", "-c", functions, "bash", script, tmp_path / "state", function], env=alone.env, check=True)
        assert json.loads(alone("context", "inspect", "default").stdout)["url"] == url
        assert alone("context", "list", "-q").stdout == "default\nlab\n"
