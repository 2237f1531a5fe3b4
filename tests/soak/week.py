"""A simulated week of one device: sensor, broker, battery, and a loop that is killed at times.

Everything is real but the time, which is `scale` times as fast: Mosquitto, the sensor's messages,
the device's process, its /sys as files. The broker goes down, the loop's process is killed, the
battery runs low, and what the device senses drifts.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tests.link.parts import Process, environment, free_port
from tests.soak.clock import Clock
from tests.soak.sysfs import Tree

from edgeloop.data.features import from_spec
from edgeloop.data.sources.packed import Message, pack
from edgeloop.runtime import Session
from edgeloop.store import STATE, Store

TOPIC = "edgeloop/v1/{site}/{device}/{stream}"


@dataclass(frozen=True)
class Plan:
    """What happens in the week, in parts (0 to 1) of it.

    Attributes
    ----------
    kills
        When the loop's process is killed; it is started again after `dark`.
    outages
        When the broker is killed, and for how long.
    """

    kills: tuple[float, ...] = (0.22, 0.48, 0.71)
    dark: float = 0.002
    outages: tuple[tuple[float, float], ...] = ((0.35, 0.01), (0.6, 0.02), (0.85, 0.004))


@dataclass
class Record:
    """What the sensor did: samples and labels published, by message number."""

    messages: int = 0
    samples: int = 0
    labels: int = 0
    lost: int = 0  # messages that the sensor's own queue had no room for
    errors: list[str] = field(default_factory=list)


class Week:
    """Runs one world against one device."""

    def __init__(self, folder, world, broker, *, real_seconds, plan=None):
        self.folder, self.world, self.broker = folder, world, broker
        self.scale = world.duration / real_seconds
        self.plan = plan or Plan()
        self.record = Record()
        self.port = free_port()
        self.child = None
        self.tree = Tree(folder / "sys", day=world.duration / 7.0)

    def configure(self, text):
        """Write loop.toml for this broker, state folder and /sys."""
        text = text.replace("mqtt://127.0.0.1:1883", f"mqtt://127.0.0.1:{self.port}")
        (self.folder / "loop.toml").write_text(text, encoding="utf-8")

    def server(self):
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {self.folder}/\nautosave_interval 1\n"
            "max_queued_messages 2000\n", encoding="ascii")
        return Process([self.broker, "-c", config], self.port)

    def start(self, clock):
        log = (self.folder / "device.log").open("a")
        self.child = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.device", str(self.folder), repr(clock.began),
             repr(clock.scale)],
            stdout=log, stderr=log, cwd=Path(__file__).parents[2],
            env={**environment(), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
                 "PYTHONPATH": f"{Path(__file__).parents[2] / 'src'}:{Path(__file__).parents[2]}"})
        log.close()

    def run(self):
        """The whole week, start to end; returns what the device's state file says afterwards."""
        began = time.time() + 1.0
        clock = Clock(began, self.scale)
        halt = threading.Event()
        with self.server() as broker:
            self.start(clock)
            try:
                sensor = threading.Thread(target=self.sense, args=(clock, halt), daemon=True)
                sensor.start()
                for second, what in self.events():
                    self.until(clock, second)
                    what(broker, clock)
                sensor.join()
                self.drain(clock)
            finally:
                halt.set()
                self.stop()
        return self

    def payload(self, seq, message):
        """A message as the sensor sends it: samples packed as 16-bit numbers, labels as JSON."""
        if message.x is None:
            return json.dumps({"seq": seq, "y": message.y, "ts_ns": round(message.about * 1e9)})
        start = message.time - len(message.x) / self.world.rate
        return pack(Message(seq, message.x, round(start * 1e9)), scale=1 / 4096)

    def events(self):
        """(second, what to do) in order."""
        whole = self.world.duration
        todo = []
        for at in self.plan.kills:
            todo.append((at * whole, lambda broker, clock: self.child.kill()))
            todo.append(((at + self.plan.dark) * whole, lambda broker, clock: self.revive(clock)))
        for at, span in self.plan.outages:
            todo.append((at * whole, lambda broker, clock: broker.kill()))
            todo.append(((at + span) * whole, lambda broker, clock: broker.start()))
        return sorted(todo, key=lambda pair: pair[0])

    def until(self, clock, second):
        while (left := second - clock()) > 0:
            assert self.child.poll() is None or self.child.returncode == -9, self.said()
            time.sleep(min(0.2, left / self.scale))

    def revive(self, clock):
        self.child.wait()
        self.start(clock)

    def said(self):
        return (self.folder / "device.log").read_text()[-4000:]

    def sense(self, clock, halt):
        """Publish what the world says when its time has come; a full queue loses and counts."""
        import paho.mqtt.client as mqtt

        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="sensor",
                             clean_session=False)
        client.max_queued_messages_set(500)
        client.reconnect_delay_set(1, 2)
        client.connect_async("127.0.0.1", self.port)
        client.loop_start()
        topic = TOPIC.format(site="plant", device="pump-7", stream=self.world.stream)
        last = None
        for seq, message in enumerate(self.world.messages()):
            while clock() < message.time and not halt.is_set():
                self.tree.write(clock())
                time.sleep(min(0.05, max(0.0, message.time - clock()) / self.scale))
            if halt.is_set():
                break
            last = client.publish(topic, self.payload(seq, message), qos=1)
            self.record.messages += 1
            self.record.lost += last.rc == mqtt.MQTT_ERR_QUEUE_SIZE
            if message.x is None:
                self.record.labels += 1
            else:
                self.record.samples += len(message.x)
        with contextlib.suppress(ValueError, RuntimeError):
            last.wait_for_publish(60)
        client.disconnect()
        client.loop_stop()

    def state(self):
        """What the device's state file says: its counts, its mark, its diary, its live adapter."""
        with Store.open(self.folder / "device.db", readonly=True) as store:
            found = json.loads(store.kv(STATE))
            live = store.live()
            return SimpleNamespace(
                counts=found["counts"], mark=found["mark"], events=store.events(10_000),
                live=store.adapter(live.id), versions=store.versions())

    def lives(self):
        """For each life of the process: KiB planned, and rows [second, windows, KiB, peak KiB]."""
        found = []
        for line in (self.folder / "memory.log").read_text().splitlines():
            word, *rest = line.split()
            if word == "life":
                found.append((int(rest[0]), []))
            else:
                found[-1][1].append((int(word), *map(int, rest)))
        return [(planned, np.array(rows).reshape(-1, 4)) for planned, rows in found]

    def right(self, program, adapter, part):
        """Share of held-out answers that are right as the world is at `part` of the week."""
        session = Session(program)
        if adapter is not None:
            session.load_adapter(adapter)
        x, y = self.world.held_out(part)
        features = from_spec(program.metadata["features"])
        return float(np.mean(session.predict(features.batch(x)).argmax(1) == y))

    def drain(self, clock):
        """Give the device time to take what the broker holds: until it works no more."""
        used, quiet = None, time.monotonic()
        while time.monotonic() - quiet < 3.0:
            assert self.child.poll() is None, self.said()
            fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
            now = int(fields[11]) + int(fields[12])
            if used is None or now > used + 2:  # ticks
                used, quiet = now, time.monotonic()
            time.sleep(0.2)

    def stop(self):
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(60)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
