"""A mixed load on hulld of clients that know what must be there, whenever it is killed.

Each client asks for one thing after the other, of machines and their ports, volumes, images, secrets and tokens of its own, and keeps a model of what has been
acknowledged. What was under way when hulld died it asks again, a POST with its Idempotency-Key; from then on the model is exact."""
import hashlib
import http.client
import json
import random
import threading
from collections import Counter
from dataclasses import dataclass, field

IMAGE = "hello"
KEPT_ANSWERS = 8
MACHINES_MAX = 3
PORTS_MAX = 2  # of a machine
MOVES = {  # of what a machine is to be
    "stopped": ["start"] * 6 + ["restart", "kill", "resume"],
    "running": ["suspend"] * 5 + ["start", "restart", "stop", "kill"],
    "suspended": ["resume"] * 4 + ["start", "restart", "stop", "kill", "suspend"]}
ENDS = ("succeeded", "failed", "cancelled")  # of an operation
COMES_TO = {"start": "running", "restart": "running", "resume": "running", "stop": "stopped", "kill": "stopped", "suspend": "suspended"}


@dataclass
class Call:
    method: str
    path: str
    body: object
    took: object  # called with the answer, once it is acknowledged
    also: tuple = ()  # statuses that are no success, and no mistake either
    key: str = None


@dataclass
class Model:
    """What is there, by what was acknowledged."""
    machines: dict = field(default_factory=dict)  # {name: {"label", "ports", "state" that it comes to, "operation" that was asked for last}}
    made: set = field(default_factory=set)  # names of all machines that there ever were
    secrets: set = field(default_factory=set)
    images: set = field(default_factory=set)
    volumes: dict = field(default_factory=dict)  # {name: MiB}
    tokens: set = field(default_factory=set)  # ids
    operations: set = field(default_factory=set)  # ids of all that there ever were


def published(ports):
    return [{"host": port, "guest": 80} for port in ports]


class Client:
    def __init__(self, ask, number, seed, digest, ports):
        """`ask`(method, path, body, headers) gives an answer, or raises when hulld has gone. `ports` are the host's that it may publish."""
        self.ask, self.number, self.random, self.digest = ask, number, random.Random(f"{seed} {number}"), digest
        self.ports = ports
        self.model, self.answered, self.count = Model(), 0, 0
        self.under_way = None
        self.kept = []  # POSTs that were answered, with their answers

    def name(self):
        self.count += 1
        return f"c{self.number}-{self.count}"

    # What may be asked.

    def some_ports(self, own=()):
        """Ports that no other machine of the client has."""
        others = {port for machine in self.model.machines.values() for port in machine["ports"]} - set(own)
        free = [port for port in self.ports if port not in others]
        return self.random.sample(free, self.random.randint(0, min(PORTS_MAX, len(free))))

    def create(self):
        name, label, ports = self.name(), str(self.random.random()), self.some_ports()
        spec = {"name": name, "image": IMAGE, "network": "none", "disk_mib": 16, "memory_mib": 64, "labels": {"value": label},
                "ports": published(ports), "command": ["/bin/sleep", "1000"]}

        def took(_):
            self.model.machines[name] = {"label": label, "ports": ports, "state": "stopped", "operation": None}
            self.model.made.add(name)
        return Call("POST", "/v1/machines", spec, took)

    def change(self, name):
        machine, label = self.model.machines[name], str(self.random.random())
        ports = self.some_ports(machine["ports"]) if self.random.random() < 0.5 else machine["ports"]

        def took(_):
            machine.update(label=label, ports=ports)
        return Call("PATCH", f"/v1/machines/{name}", {"labels": {"value": label}, "ports": published(ports)}, took)

    def move(self, name):
        machine = self.model.machines[name]
        verb = self.random.choice(MOVES[machine["state"]])

        def took(answer):
            if answer.status == 200:
                machine["state"] = COMES_TO[verb]
            if answer.headers["Operation"]:
                machine["operation"] = answer.headers["Operation"]
                self.model.operations.add(machine["operation"])
        return Call("POST", f"/v1/machines/{name}/{verb}", {"timeout_s": 30} if verb in ("stop", "restart") else None, took, (409,))

    def remove(self, name):
        return Call("DELETE", f"/v1/machines/{name}?force=1", None, lambda _: self.model.machines.pop(name), (404,))

    def secret(self):
        name = f"C{self.number}_{self.random.randrange(3)}"
        if name in self.model.secrets and self.random.random() < 0.5:
            return Call("DELETE", f"/v1/secrets/{name}", None, lambda _: self.model.secrets.discard(name), (404,))
        return Call("PUT", f"/v1/secrets/{name}", {"value": str(self.random.random())}, lambda _: self.model.secrets.add(name))

    def image(self):
        if self.model.images and self.random.random() < 0.5:
            name = self.random.choice(sorted(self.model.images))
            return Call("DELETE", f"/v1/images/{name}", None, lambda _: self.model.images.discard(name), (404,))
        name = self.name()
        body = {"name": name, "rootfs": self.digest, "config": {"command": ["/bin/true"]}}
        return Call("POST", "/v1/images", body, lambda _: self.model.images.add(name))

    def volume(self):
        what = self.random.random()
        if not self.model.volumes or what < 0.4:
            name = self.name()
            return Call("POST", "/v1/volumes", {"name": name, "size_mib": 16}, lambda _: self.model.volumes.update({name: 16}))
        name = self.random.choice(sorted(self.model.volumes))
        if what < 0.7:
            return Call("DELETE", f"/v1/volumes/{name}", None, lambda _: self.model.volumes.pop(name), (404,))
        size_mib = self.model.volumes[name] + 1
        return Call("PATCH", f"/v1/volumes/{name}", {"size_mib": size_mib}, lambda _: self.model.volumes.update({name: size_mib}))

    def token(self):
        if len(self.model.tokens) > 3:
            token = self.random.choice(sorted(self.model.tokens))
            return Call("DELETE", f"/v1/tokens/{token}", None, lambda _: self.model.tokens.discard(token), (404,))
        body = {"label": self.name(), "scopes": ["read"]}
        return Call("POST", "/v1/tokens", body, lambda answer: self.model.tokens.add(answer.json["id"]))

    def choose(self):
        names = sorted(self.model.machines)
        what = self.random.random()
        if not names or (what < 0.2 and len(names) < MACHINES_MAX):
            return self.create()
        if what < 0.4:
            return self.change(self.random.choice(names))
        if what < 0.75:
            return self.move(self.random.choice(names))
        if what < 0.8:
            return self.remove(self.random.choice(names))
        return self.random.choice([self.secret, self.image, self.token, self.volume])()

    # Asking.

    def send(self, call):
        """The answer, or what there was in its place when hulld has gone."""
        headers = {"Content-Type": "application/merge-patch+json" if call.method == "PATCH" else "application/json"}
        if call.key:
            headers["Idempotency-Key"] = call.key
        try:
            return self.ask(call.method, call.path, None if call.body is None else json.dumps(call.body), headers)
        except (OSError, http.client.HTTPException) as failure:
            return failure

    def take(self, call, answer):
        assert not isinstance(answer, Exception) and answer.status in (200, 201, 204, *call.also), (call, answer)
        self.under_way = None
        self.answered += 1
        call.took(answer)
        if call.method == "POST" and answer.status != 409:  # what is true for a moment only is looked at anew
            self.kept = [*self.kept[-KEPT_ANSWERS + 1:], (call, answer)]

    def run(self, stop):
        while not stop.is_set():
            call = self.choose()
            if call.method == "POST":
                call.key = hashlib.sha256(f"{self.number} {self.count} {self.random.random()}".encode()).hexdigest()
            self.under_way = call
            answer = self.send(call)
            if isinstance(answer, Exception):
                return
            self.take(call, answer)

    def catch_up(self):
        """What was cut short is asked again; and what was answered before is answered in the same words."""
        if self.under_way:
            self.ask_again(self.under_way)
        for call, first in self.kept:
            again = self.send(call)
            assert not isinstance(again, Exception), (call, again)
            assert (again.status, again.body) == (first.status, first.body), (call, first, again)
            assert again.headers["Operation"] == first.headers["Operation"], (call, first, again)
            assert again.headers["Idempotent-Replayed"] == "true"

    def ask_again(self, call):
        self.take(call, self.send(call))
        self.under_way = None


class Load:
    def __init__(self, ask, n_clients, seed, digest, ports, others=()):
        """`others` are names of machines that it has nothing to do with."""
        self.ask, self.others = ask, others
        self.clients = [Client(ask, number, seed, digest, ports[number::n_clients]) for number in range(n_clients)]
        self.cursor = 0
        self.events = Counter()  # {(type, name): how often}
        self.saves = Counter()  # {a machine's name: how often it has begun to be saved in its run}
        self.failures = []

    def run(self, kill):
        """All clients ask at the same time until `kill`() has killed hulld."""
        stop = threading.Event()
        threads = [threading.Thread(target=self.guarded, args=(client, stop)) for client in self.clients]
        for thread in threads:
            thread.start()
        try:
            kill()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        if self.failures:
            raise self.failures[0]

    def guarded(self, client, stop):
        try:
            client.run(stop)
        except BaseException as failure:  # a thread's is lost otherwise
            self.failures.append(failure)

    def get(self, path):
        answer = self.ask("GET", path, None, {})
        assert answer.status == 200, answer
        return answer.json

    def verify(self):
        """There is what the clients have been told of, and nothing else."""
        for client in self.clients:
            client.catch_up()
        models = [client.model for client in self.clients]
        machines = [machine for machine in self.get("/v1/machines")["items"] if machine["name"] not in self.others]
        found = {machine["name"]: (machine["labels"]["value"], [port["host"] for port in machine["ports"]]) for machine in machines}
        assert len(found) == len(machines)
        assert found == {name: (machine["label"], machine["ports"]) for model in models for name, machine in model.machines.items()}
        secrets = [secret["name"] for secret in self.get("/v1/secrets")["items"]]
        assert sorted(secrets) == sorted(name for model in models for name in model.secrets)
        images = [image["name"] for image in self.get("/v1/images")["items"]]
        assert sorted(images) == sorted([IMAGE, *(name for model in models for name in model.images)])
        volumes = {volume["name"]: (volume["size_mib"], volume["state"]) for volume in self.get("/v1/volumes")["items"]}
        assert volumes == {name: (size_mib, "available") for model in models for name, size_mib in model.volumes.items()}
        tokens = [token["id"] for token in self.get("/v1/tokens")["items"]]
        assert sorted(tokens) == sorted(token for model in models for token in model.tokens)
        self.verify_events()

    def verify_events(self):
        """They are without gaps, each machine was created once, and deleted once, and no operation has begun but those that a client was told
        of, each once."""
        models = [client.model for client in self.clients]
        more = True
        while more:
            page = self.get(f"/v1/events?after={self.cursor}&limit=1000")
            for event in page["items"]:
                assert event["id"] == self.cursor + 1
                self.cursor = event["id"]
                self.count(event)
            more = page["more"]
        for model in models:
            for name in model.made:
                assert self.events["machine.created", name] == 1, name
                assert self.events["machine.deleted", name] == (name not in model.machines), name
        begun = {id: n for (type, id), n in self.events.items() if type == "operation.started"}
        told = {id: 1 for model in models for id in model.operations}
        assert begun == told, set(begun.items()) ^ set(told.items())
        assert all(sum(self.events[f"operation.{state}", id] for state in ENDS) <= 1 for id in begun)

    def count(self, event):
        if event["name"] in self.others:
            return
        if event["type"].startswith("operation."):
            data = event["data"]
            if data["kind"] != "delete" and data.get("requested_by") != "hulld":
                self.events[event["type"], data["operation"]] += 1
            return
        self.events[event["type"], event["name"]] += 1
        if event["type"] == "machine.starting":
            self.saves[event["name"]] = 0
        self.saves[event["name"]] += event["type"] == "machine.suspending"

    def happened(self, type):
        return sum(n for (found, _), n in self.events.items() if found == type)

    def comes_to(self):
        """{name: state that it is to come to} of all machines."""
        return {name: machine["state"] for client in self.clients for name, machine in client.model.machines.items()}

    def last_operations(self):
        """Ids of what was asked last of each machine."""
        return {machine["operation"] for client in self.clients for machine in client.model.machines.values()} - {None}

    def volumes(self):
        return [name for client in self.clients for name in client.model.volumes]

    def held(self):
        """The host's ports that machines have, in order."""
        return sorted(port for client in self.clients for machine in client.model.machines.values() for port in machine["ports"])

    def answered(self):
        return sum(client.answered for client in self.clients)
