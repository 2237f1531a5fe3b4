"""What a device says of itself, on trees shaped like real ones, damaged ones and this machine's."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.device import trees

from edgeloop.device import Calibration, Device, choose_meter
from edgeloop.device.battery import supplies
from edgeloop.device.load import Others, network, storage
from edgeloop.device.meters import BatteryMeter, Ina3221Meter, ModelMeter, PowercapMeter
from edgeloop.device.thermal import temperature
from edgeloop.errors import ConfigError, DataError


def test_a_laptop_weighs_its_batteries_and_leaves_the_mouse_out(tmp_path):
    fed = supplies(trees.laptop(tmp_path))
    assert fed.percent.value == pytest.approx((3 * 50 + 1 * 80) / 4)
    assert (fed.present.value, fed.plugged.value, fed.charging.value) == (True, False, False)
    assert fed.watts.value == pytest.approx(6.0)
    (tmp_path / "class/power_supply/BAT1/energy_full").unlink()
    assert supplies(tmp_path).percent.value == pytest.approx(65.0)  # of one unit, or all alike


def test_no_battery_means_mains(tmp_path):
    fed = supplies(trees.raspberry(tmp_path))
    assert (fed.present.value, fed.plugged.value) == (False, True)
    assert fed.percent.value is None
    assert supplies(tmp_path / "nowhere").present.value is None


def test_a_battery_that_does_not_say_what_it_is_does_not_count_as_mains(tmp_path):
    trees.phone(tmp_path)
    (tmp_path / "class/power_supply/battery/type").unlink()
    fed = supplies(tmp_path)
    assert (fed.present.value, fed.plugged.value) == (None, None)
    assert "battery: no type" in fed.plugged.source


def test_a_tunnel_that_is_named_metered_is(tmp_path):
    trees.write(tmp_path, {"class/net/wg0/operstate": "unknown"})
    proc = trees.proc(tmp_path / "proc", routes=("wg0",))
    assert network(tmp_path, proc, ("wg*",)).value == "metered"
    assert network(tmp_path, proc, ()).value == "connected"


def test_a_phone_charges_by_usb(tmp_path):
    fed = supplies(trees.phone(tmp_path))
    assert (fed.percent.value, fed.charging.value, fed.plugged.value) == (41.0, True, True)
    trees.write(tmp_path, {"class/power_supply/battery/status": "Discharging",
                           "class/power_supply/usb/online": 0})
    assert supplies(tmp_path).watts.value == pytest.approx(2.0)  # whatever the sign of the current


@pytest.mark.parametrize(("tree", "degrees"), [
    (trees.laptop, 63.0), (trees.raspberry, 48.312), (trees.jetson, 38.5)])
def test_the_hottest_that_matters(tree, degrees, tmp_path):
    assert temperature(tree(tmp_path)).value == pytest.approx(degrees)


def test_nothing_warm_is_unknown_and_says_why(tmp_path):
    found = temperature(tmp_path)
    assert found.value is None
    assert str(tmp_path) in str(found)


def test_others_share_leaves_this_process_out(tmp_path):
    others = Others(trees.proc(tmp_path, total=1000, idle=600, own=50))
    assert others.read().value is None
    trees.proc(tmp_path, total=2000, idle=1300, own=150)  # 300 busy, 100 of them ours
    assert others.read().value == pytest.approx(0.2)
    trees.proc(tmp_path, total=2000, idle=1300, own=150)
    assert others.read().value is None


@pytest.mark.parametrize(("routes", "kind"), [
    (("eth0",), "unmetered"), (("wwan0",), "metered"), (("tun0",), "connected"),
    ((), "not_connected"), (("wlan9",), "not_connected")])
def test_network(routes, kind, tmp_path):
    for name in ("eth0", "wwan0", "tun0"):
        trees.write(tmp_path, {f"class/net/{name}/operstate": "up", f"class/net/{name}/carrier": 1})
    trees.write(tmp_path, {"class/net/wlan9/operstate": "down"})
    proc = trees.proc(tmp_path / "proc", routes=routes)
    assert network(tmp_path, proc, ("wwan*",)).value == kind


def test_storage_is_low_by_share_or_bytes(tmp_path):
    def of(free, whole):
        return lambda _: os.statvfs_result((4096, 4096, whole, free, free, 0, 0, 0, 0, 255))

    assert storage(tmp_path, of(200_000, 1_000_000))[1].value is False
    assert storage(tmp_path, of(90_000, 1_000_000))[1].value is True
    assert storage(tmp_path, of(10_000, 20_000))[1].value is True  # 40 MiB of 80
    assert storage(tmp_path / "gone")[0].value is None


def test_powercap_counts_packages_once_and_across_a_wrap(tmp_path):
    meter = PowercapMeter(trees.laptop(tmp_path))
    assert meter.read().value == 0.0
    count = "class/powercap/intel-rapl:0/energy_uj"
    trees.write(tmp_path, {count: 3_500_000})
    assert meter.joules() == pytest.approx(2.5)
    trees.write(tmp_path, {count: 500_000})
    assert meter.joules() == pytest.approx(2.5 + 262_143 - 3.0)
    (tmp_path / "class/powercap/intel-rapl:0/max_energy_range_uj").unlink()
    trees.write(tmp_path, {count: 100})
    assert "went back" in meter.read().source
    assert meter.joules() == pytest.approx(2.5 + 262_143 - 3.0)  # and counts on from there


POWERCAP = "class/powercap/intel-rapl:0"


def powercap(root, now):
    """Two packages of which one falls silent, comes back and counts on; both use 2 J a second."""
    trees.laptop(root)
    trees.write(root, {
        "class/powercap/intel-rapl:2/name": "package-1",
        "class/powercap/intel-rapl:2/energy_uj": 0,
        "class/powercap/intel-rapl:2/max_energy_range_uj": 10_000_000})
    meter = PowercapMeter(root)

    def at(seconds, silent):
        trees.write(root, {
            f"{POWERCAP}/energy_uj": "" if silent else 2_000_000 * seconds,
            "class/powercap/intel-rapl:2/energy_uj": 2_000_000 * seconds % 10_000_000})
        return meter.mark()

    return meter, at, 4.0


def board(root, now):
    """A board of 10 W with one rail that falls silent."""
    meter = Ina3221Meter(trees.jetson(root), lambda: now[0])

    def at(seconds, silent):
        now[0] = seconds
        trees.write(root, {"class/hwmon/hwmon3/curr1_input": "" if silent else 2000})
        return meter.mark()

    return meter, at, 10.0


def discharging(root, now):
    """A laptop that the mains feed for a while, else its battery with 6 W."""
    meter = BatteryMeter(trees.laptop(root), lambda: now[0])

    def at(seconds, silent):
        now[0] = seconds
        trees.write(root, {"class/power_supply/AC/online": int(silent)})
        return meter.mark()

    return meter, at, 6.0


@pytest.mark.parametrize("made", [powercap, board, discharging])
def test_a_span_with_a_gap_is_unknown_and_the_next_is_measured_again(made, tmp_path):
    meter, at, watts = made(tmp_path, [0.0])
    marks = [at(seconds, silent=5 <= seconds <= 7) for seconds in range(12)]
    assert [m.joules is None for m in marks] == [5 <= i <= 7 for i in range(12)]
    for first in range(12):
        for last in range(first, 12):
            joules = marks[last].since(marks[first])
            if last < 5 or first > 7:
                assert joules == pytest.approx(watts * (last - first))
            else:
                assert joules is None, (first, last)
    assert (meter.gaps, meter.lost != "") == (3, True)


@pytest.mark.parametrize("made", [powercap, board, discharging])
def test_joules_alone_would_look_smaller_across_a_gap(made, tmp_path):
    """The control of the one above: the count goes on, so only the gaps tell."""
    _, at, watts = made(tmp_path, [0.0])
    marks = [at(seconds, silent=5 <= seconds <= 7) for seconds in range(12)]
    assert 0.0 < marks[9].joules - marks[3].joules < watts * 6.0
    assert marks[9].since(marks[3]) is None


def test_a_gap_between_two_marks_that_only_another_reader_saw_counts(tmp_path):
    """Such as a condition that asks for the energy of the day."""
    meter, at, _ = discharging(tmp_path, [0.0])
    first = at(0, silent=False)
    at(1, silent=True)
    last = at(2, silent=False)
    assert last.since(first) is None
    assert meter.mark().since(last) == 0.0


def test_a_counter_that_went_back_is_one_gap(tmp_path):
    meter = PowercapMeter(trees.laptop(tmp_path))
    (tmp_path / POWERCAP / "max_energy_range_uj").unlink()
    first = meter.mark()
    trees.write(tmp_path, {f"{POWERCAP}/energy_uj": 100})
    lost = meter.mark()
    trees.write(tmp_path, {f"{POWERCAP}/energy_uj": 3_000_100})
    back = meter.mark()
    trees.write(tmp_path, {f"{POWERCAP}/energy_uj": 5_000_100})
    assert (lost.since(first), back.since(first), back.since(lost)) == (None, None, None)
    assert meter.mark().since(back) == pytest.approx(2.0)


def test_an_unreadable_counter_is_unknown_with_the_reason(tmp_path):
    trees.laptop(tmp_path)
    (tmp_path / "class/powercap/intel-rapl:0/energy_uj").unlink()
    assert "energy_uj" in PowercapMeter(tmp_path).read().source


def test_ina3221_takes_the_total_rail_or_all_of_them(tmp_path):
    now = [0.0]
    whole = Ina3221Meter(trees.jetson(tmp_path / "a"), lambda: now[0])
    parts = Ina3221Meter(trees.jetson(tmp_path / "b", total=False), lambda: now[0])
    assert whole.watts().value == pytest.approx(10.0)
    assert parts.watts().value == pytest.approx(10.0 + 4.0 + 2.0)
    whole.read()
    now[0] = 2.0
    trees.write(tmp_path / "a", {"class/hwmon/hwmon3/curr1_input": 4000})
    assert whole.joules() == pytest.approx(2.0 * (10.0 + 20.0) / 2)  # a trapezoid


def test_ina3221_says_which_rails_it_sums(tmp_path):
    whole = Ina3221Meter(trees.jetson(tmp_path / "a"))
    assert whole.source == "hwmon ina3221: VDD_IN, the whole board"
    assert whole.watts().source == whole.read().source == whole.source
    parts = Ina3221Meter(trees.jetson(tmp_path / "b", total=False))
    assert parts.source == (
        "hwmon ina3221: sum of VDD_GPU_SOC, VDD_CPU_GPU_CV, VDD_SOC, not the whole board")
    assert parts.read().source == parts.source
    chip = tmp_path / "b/class/hwmon/hwmon3"
    (chip / "in2_label").unlink()
    trees.write(chip, {"in3_enable": 0})  # switched off: no part of the sum
    assert Ina3221Meter(tmp_path / "b").source == (
        "hwmon ina3221: sum of VDD_GPU_SOC, hwmon3 rail 2, not the whole board")


def test_the_total_rail_of_one_of_two_chips_counts_alone(tmp_path):
    trees.jetson(tmp_path)
    chip = "class/hwmon/hwmon2"
    trees.write(tmp_path, {f"{chip}/name": "ina3221", f"{chip}/in1_label": "CPU",
                           f"{chip}/in1_input": 5000, f"{chip}/curr1_input": 100})
    meter = Ina3221Meter(tmp_path)
    assert meter.source == "hwmon ina3221: VDD_IN, the whole board"
    assert meter.watts().value == pytest.approx(10.0)
    trees.write(tmp_path, {"class/hwmon/hwmon3/in1_label": "GPU"})
    meter = Ina3221Meter(tmp_path)
    assert meter.source.startswith("hwmon ina3221: sum of CPU, GPU, VDD_CPU_GPU_CV, ")
    assert meter.watts().value == pytest.approx(0.5 + 10.0 + 4.0 + 2.0)
    (tmp_path / "class/hwmon/hwmon3/curr1_input").unlink()
    assert "GPU of hwmon3 cannot be read" in meter.watts().source


@pytest.mark.parametrize("gone", ["curr2_input", "in2_input"])
def test_one_rail_that_cannot_be_read_makes_the_total_unknown_not_smaller(gone, tmp_path):
    trees.jetson(tmp_path, total=False)
    (tmp_path / "class/hwmon/hwmon3" / gone).unlink()
    assert Ina3221Meter(tmp_path).watts().value is None
    trees.write(tmp_path, {"class/hwmon/hwmon3/in2_enable": 0})  # a rail that is switched off
    assert Ina3221Meter(tmp_path).watts().value == pytest.approx(12.0)


def test_the_battery_tells_energy_only_off_the_mains(tmp_path):
    now = [0.0]
    meter = BatteryMeter(trees.laptop(tmp_path), lambda: now[0])
    meter.read()
    now[0] = 10.0
    assert meter.joules() == pytest.approx(60.0)
    trees.write(tmp_path, {"class/power_supply/AC/online": 1})
    assert meter.joules() is None
    assert "mains" in meter.read().source


def calibration(**other):
    return Calibration.of(**{"watts": 5.0, "idle_watts": 3.0, "flops": 10**10, "nbytes": 10**9,
                             "seconds": 10.0, "program": "p"} | other)


def test_the_model_counts_what_was_measured():
    made = calibration()
    assert made.joules_per_flop * 10**10 + made.joules_per_byte * 10**9 == pytest.approx(20.0)
    work = [5, 7]
    meter = ModelMeter(made, lambda: tuple(work))
    work[:] = [5 + 10**9, 7 + 10**8]
    assert meter.joules() == pytest.approx(2.0)
    assert not meter.whole_machine
    assert meter.read().uncertainty > 0.25


@pytest.mark.parametrize("wrong", [
    {"watts": 3.0}, {"watts": -1.0}, {"idle_watts": float("nan")}, {"flops": 0}, {"nbytes": -1}])
def test_readings_that_no_machine_gives_are_refused(wrong):
    with pytest.raises(ConfigError):
        calibration(**wrong)


@pytest.mark.parametrize("content", [
    "", "[]", "{}", "nonsense", '{"joules_per_flop": 1}', "[" * 5000,
    json.dumps(dict.fromkeys(Calibration.__slots__, 0.0) | {"program": "p"}),
    json.dumps(dict.fromkeys(Calibration.__slots__, -1.0) | {"program": "p"}),
])
def test_a_damaged_calibration_is_one_error(content, tmp_path):
    path = tmp_path / "c.json"
    calibration().save(path)
    assert Calibration.load(path) == calibration()
    path.write_text(content)
    with pytest.raises(DataError, match="calibrate"):
        Calibration.load(path)


def test_choosing_a_meter(tmp_path):
    assert isinstance(choose_meter("auto", sysfs=trees.laptop(tmp_path / "a")), PowercapMeter)
    assert isinstance(choose_meter("auto", sysfs=trees.jetson(tmp_path / "b")), Ina3221Meter)
    made = choose_meter("auto", sysfs=tmp_path / "a", calibration=calibration())
    assert isinstance(made, ModelMeter)
    nothing = choose_meter("auto", sysfs=trees.raspberry(tmp_path / "c")).read()
    assert nothing.value is None
    assert "calibrate" in nothing.source
    with pytest.raises(ConfigError, match="calibration"):
        choose_meter("model")
    with pytest.raises(ConfigError, match=r"energy\.meter"):
        choose_meter("watt-meter")


def test_a_battery_is_the_meter_also_of_a_machine_that_starts_on_the_mains(tmp_path):
    now = [0.0]
    meter = choose_meter("auto", sysfs=trees.phone(tmp_path), clock=lambda: now[0])
    assert "mains" in meter.read().source
    trees.write(tmp_path, {"class/power_supply/battery/status": "Discharging",
                           "class/power_supply/usb/online": 0})
    first = meter.mark()
    now[0] = 10.0
    assert meter.mark().since(first) == pytest.approx(20.0)


def test_readings_are_taken_once_in_so_many_seconds(tmp_path):
    now = [0.0]
    device = Device(sysfs=trees.laptop(tmp_path), proc=trees.proc(tmp_path / "proc"),
                    path=tmp_path, every=5.0, clock=lambda: now[0])
    first = device.read()
    trees.write(tmp_path, {"class/power_supply/AC/online": 1})
    now[0] = 4.9
    assert device.read() is first
    now[0] = 5.0
    assert device.read().plugged.value is True
    facts = device.read().facts()
    assert facts["battery_percent"] == pytest.approx(57.5)
    assert "power_w" not in facts


@settings(max_examples=60, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_file_makes_reading_fail(data, tmp_path):
    """Garbage, nothing, or a folder in the place of any file."""
    root = tmp_path / "tree"
    shutil.rmtree(root, ignore_errors=True)
    tree = data.draw(st.sampled_from([trees.laptop, trees.jetson, trees.phone, trees.raspberry]))
    tree(root)
    proc = trees.proc(root / "proc")
    files = sorted(p for p in root.rglob("*") if p.is_file())
    for path in data.draw(st.lists(st.sampled_from(files), min_size=1, max_size=6, unique=True)):
        path.unlink()
        content = data.draw(st.one_of(
            st.binary(max_size=40), st.none(), st.just(b"dir"),
            st.sampled_from([b"-1", b"nan", b"1e999", b"eth0\t00000000\0" * 9])))
        if content == b"dir":
            path.mkdir()
        elif content is not None:
            path.write_bytes(content)
    for reading in Device(sysfs=root, proc=proc, path=root).read().readings().values():
        assert reading.source
    for name in ("powercap", "ina3221", "battery"):
        choose_meter(name, sysfs=root).read()


def test_this_machine():
    state = Device().read()
    assert all(reading.source for reading in state.readings().values())
    assert state.storage_free_bytes.value > 0
    json.dumps({name: reading.to_json() for name, reading in state.readings().items()})
