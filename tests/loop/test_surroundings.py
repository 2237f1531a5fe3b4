"""What a configuration says of the device: its sensors, its meter, errors that name its keys."""

from __future__ import annotations

import json

import pytest
from tests.device import trees

from edgeloop.device import Calibration
from edgeloop.device.meters import Ina3221Meter, ModelMeter, NoMeter, PowercapMeter
from edgeloop.errors import ConfigError, DataError
from edgeloop.loop import Config
from edgeloop.loop.surroundings import device_of, meter_of

CALIBRATION = Calibration.of(
    watts=5.0, idle_watts=3.0, flops=10**10, nbytes=10**9, seconds=10.0, program="p")


def configured(root, **sections):
    """A configuration in a folder, with the device's files in folders beside it."""
    trees.proc(root / "proc", routes=("wlan0",))
    (root / "sys").mkdir(exist_ok=True)
    data = {"model": {"program": "p"}} | sections
    data["device"] = {"sysfs": str(root / "sys"), "proc": str(root / "proc")} | data.get(
        "device", {})
    return Config.from_dict(data, root=root, name="loop.toml")


def metered(config, work=lambda: (0, 0)):
    return meter_of(config, work, lambda: 0.0)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The process stands in another folder than the configuration."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


def test_the_device_is_read_below_the_folders_that_were_given(tmp_path):
    trees.laptop(tmp_path / "sys")
    config = configured(tmp_path)
    state = device_of(config, lambda: 0.0).read()
    assert state.battery_percent.value == pytest.approx(57.5)
    assert state.temp_c.value == pytest.approx(63.0)
    assert state.network_type.value == "unmetered"
    trees.proc(tmp_path / "proc", routes=())
    assert device_of(config, lambda: 0.0).read().network_type.value == "not_connected"


def test_folders_of_the_kernel_start_at_the_configuration(tmp_path, elsewhere):
    trees.laptop(tmp_path / "sys")
    config = configured(tmp_path, device={"sysfs": "sys", "proc": "proc"})
    state = device_of(config, lambda: 0.0).read()
    assert state.battery_percent.value == pytest.approx(57.5)
    assert state.network_type.value == "unmetered"
    assert metered(config).read().value == 0.0


def test_what_the_device_is_told_is_handed_on(tmp_path):
    trees.laptop(tmp_path / "sys")
    now = [0.0]
    config = configured(
        tmp_path, device={"every": "5 s", "idle_below": 0.5, "metered": ["wlan*"]})
    device = device_of(config, lambda: now[0])
    first = device.read()
    assert first.network_type.value == "metered"
    trees.proc(tmp_path / "proc", total=2000, idle=1200, own=50)  # 0.4 of it are others'
    now[0] = 4.9
    assert device.read() is first
    now[0] = 5.0
    later = device.read()
    assert later.others_share.value == pytest.approx(0.4)
    assert later.idle.value is True


def test_storage_is_that_of_the_state_file_beside_the_configuration(tmp_path, elsewhere):
    (tmp_path / "kept").mkdir()  # there is none in the folder where the process stands
    config = configured(tmp_path, state={"path": "kept/a.db"})
    assert device_of(config, lambda: 0.0).read().storage_free_bytes.value > 0
    gone = device_of(configured(tmp_path, state={"path": "gone/a.db"}), lambda: 0.0).read()
    assert gone.storage_free_bytes.value is None


@pytest.mark.parametrize(("tree", "kind"), [
    (trees.laptop, PowercapMeter), (trees.jetson, Ina3221Meter), (trees.raspberry, NoMeter)])
def test_a_meter_is_found_below_the_folder_that_was_given(tree, kind, tmp_path):
    tree(tmp_path / "sys")
    assert isinstance(metered(configured(tmp_path)), kind)


def test_the_meter_counts_by_the_clock_that_was_given(tmp_path):
    trees.jetson(tmp_path / "sys")
    now = [0.0]
    meter = meter_of(configured(tmp_path), lambda: (0, 0), lambda: now[0])
    meter.read()
    now[0] = 3.0
    assert meter.joules() == pytest.approx(30.0)


def test_a_calibration_starts_at_the_configuration_and_counts_the_work(tmp_path, elsewhere):
    CALIBRATION.save(tmp_path / "c.json")
    trees.laptop(tmp_path / "sys")
    work = [7, 7]
    meter = metered(configured(tmp_path, energy={"calibration": "c.json"}), lambda: tuple(work))
    assert isinstance(meter, ModelMeter)
    work[:] = [7 + 10**9, 7 + 10**8]
    assert meter.joules() == pytest.approx(2.0)
    other = configured(tmp_path, energy={"calibration": "c.json", "meter": "powercap"})
    assert isinstance(metered(other), PowercapMeter)


@pytest.mark.parametrize("content", [
    "", "nonsense", b"\xff\xfe", "{}", '{"joules_per_flop": 1}', None,
    json.dumps(dict.fromkeys(Calibration.__slots__, 10 ** 400) | {"program": "p"}),
    json.dumps(dict.fromkeys(Calibration.__slots__, "1")),
])
@pytest.mark.parametrize("meter", ["auto", "model", "none"])
def test_a_calibration_that_is_missing_or_damaged_is_one_error(content, meter, tmp_path):
    path = tmp_path / "c.json"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    config = configured(tmp_path, energy={"calibration": "c.json", "meter": meter})
    with pytest.raises(DataError) as caught:
        metered(config)
    assert str(caught.value).startswith(f"loop.toml: energy.calibration: {path}: ")
    assert "`edgeloop calibrate`" in str(caught.value)
    if content is None:
        assert "cannot be read (No such file or directory)" in str(caught.value)


def test_a_folder_in_the_place_of_a_calibration_is_one_error(tmp_path):
    (tmp_path / "c.json").mkdir()
    with pytest.raises(DataError, match=r"loop\.toml: energy\.calibration: .*Is a directory"):
        metered(configured(tmp_path, energy={"calibration": "c.json"}))


def test_a_meter_that_there_is_none_of_is_refused_by_name(tmp_path, kit):
    with pytest.raises(ConfigError, match=r'loop\.toml: energy\.meter: .*"powercap" or'):
        configured(tmp_path, energy={"meter": "watt-meter"})
    config = configured(tmp_path)
    made = kit.replace(config, energy=kit.replace(config.energy, meter="watt-meter"))
    with pytest.raises(ConfigError, match=r'loop\.toml: energy\.meter: is "watt-meter"; use one'):
        metered(made)
    with pytest.raises(ConfigError, match=r'loop\.toml: energy\.meter: "model" needs energy\.cal'):
        metered(configured(tmp_path, energy={"meter": "model"}))


@pytest.mark.parametrize(("tree", "meter", "why"), [
    (trees.raspberry, "auto", "no sensor of power"),
    (trees.raspberry, "powercap", "no powercap package"),
    (trees.raspberry, "battery", "mains"),
    (trees.phone, "battery", "the mains feed the machine"),
    (trees.laptop, "ina3221", "no ina3221"),
    (trees.laptop, "none", "switched off"),
])
def test_a_budget_of_energy_needs_something_that_counts(tree, meter, why, tmp_path):
    tree(tmp_path / "sys")
    budget = {"train": {"max_energy": "50 J"}, "energy": {"meter": meter}}
    with pytest.raises(ConfigError) as caught:
        metered(configured(tmp_path, **budget))
    assert str(caught.value).startswith("loop.toml: train.max_energy: ")
    assert why in str(caught.value)
    assert "`edgeloop calibrate`" in str(caught.value)
    unlimited = metered(configured(tmp_path, energy={"meter": meter}))  # without, it is accepted
    assert unlimited.joules() is None


def test_a_budget_of_energy_is_accepted_where_something_counts(tmp_path):
    budget = {"train": {"max_energy": "50 J"}}
    CALIBRATION.save(tmp_path / "c.json")
    made = metered(configured(tmp_path, **budget, energy={"calibration": "c.json"}))
    assert isinstance(made, ModelMeter)
    trees.laptop(tmp_path / "sys")
    assert isinstance(metered(configured(tmp_path, **budget)), PowercapMeter)
