"""Trees of /sys and /proc shaped like those of real devices, as folders."""

from __future__ import annotations


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def laptop(root):
    """Two batteries, a mouse, mains, RAPL with parts of a package and psys."""
    supply, rapl = "class/power_supply", "class/powercap"
    return write(root, {
        f"{supply}/AC/type": "Mains", f"{supply}/AC/online": 0,
        f"{supply}/BAT0/type": "Battery", f"{supply}/BAT0/status": "Discharging",
        f"{supply}/BAT0/capacity": 50, f"{supply}/BAT0/energy_full": 30_000_000,
        f"{supply}/BAT0/power_now": 6_000_000,
        f"{supply}/BAT1/type": "Battery", f"{supply}/BAT1/status": "Not charging",
        f"{supply}/BAT1/capacity": 80, f"{supply}/BAT1/energy_full": 10_000_000,
        f"{supply}/hid-mouse/type": "Battery", f"{supply}/hid-mouse/scope": "Device",
        f"{supply}/hid-mouse/capacity": 3, f"{supply}/hid-mouse/status": "Discharging",
        f"{rapl}/intel-rapl:0/name": "package-0", f"{rapl}/intel-rapl:0/energy_uj": 1_000_000,
        f"{rapl}/intel-rapl:0/max_energy_range_uj": 262_143_000_000,
        f"{rapl}/intel-rapl:0:0/name": "core", f"{rapl}/intel-rapl:0:0/energy_uj": 500_000,
        f"{rapl}/intel-rapl:1/name": "psys", f"{rapl}/intel-rapl:1/energy_uj": 9_000_000,
        f"{rapl}/intel-rapl-mmio:0/name": "package-0",
        f"{rapl}/intel-rapl-mmio:0/energy_uj": 1_000_000,
        "class/thermal/thermal_zone0/type": "x86_pkg_temp",
        "class/thermal/thermal_zone0/temp": 61_000,
        "class/hwmon/hwmon0/name": "nvme", "class/hwmon/hwmon0/temp1_input": 88_000,
        "class/hwmon/hwmon1/name": "coretemp", "class/hwmon/hwmon1/temp1_label": "Package id 0",
        "class/hwmon/hwmon1/temp1_input": 63_000,
        "class/net/wlan0/operstate": "up", "class/net/wlan0/carrier": 1,
    })


def raspberry(root):
    """No power supply class, one thermal zone."""
    return write(root, {
        "class/thermal/thermal_zone0/type": "cpu-thermal",
        "class/thermal/thermal_zone0/temp": 48_312,
        "class/net/eth0/operstate": "up", "class/net/eth0/carrier": 1,
    })


def jetson(root, total=True):
    """An INA3221 with three rails, a PMIC that always says 100 degrees."""
    chip = "class/hwmon/hwmon3"
    labels = ("VDD_IN" if total else "VDD_GPU_SOC", "VDD_CPU_GPU_CV", "VDD_SOC")
    files = {f"{chip}/name": "ina3221"}
    for i, (label, volts, amperes) in enumerate(zip(
            labels, (5000, 5000, 4000), (2000, 800, 500), strict=True), 1):
        files |= {f"{chip}/in{i}_label": label, f"{chip}/in{i}_input": volts,
                  f"{chip}/curr{i}_input": amperes, f"{chip}/in{i}_enable": 1}
    return write(root, files | {
        "class/thermal/thermal_zone0/type": "CPU-therm", "class/thermal/thermal_zone0/temp": 38_500,
        "class/thermal/thermal_zone1/type": "PMIC-Die", "class/thermal/thermal_zone1/temp": 100_000,
        "class/power_supply/nothing": "",
    })


def phone(root):
    """A battery with current and voltage, charged by USB."""
    supply = "class/power_supply"
    return write(root, {
        f"{supply}/battery/type": "Battery", f"{supply}/battery/status": "Charging",
        f"{supply}/battery/capacity": 41, f"{supply}/battery/current_now": -500_000,
        f"{supply}/battery/voltage_now": 4_000_000,
        f"{supply}/usb/type": "USB_PD", f"{supply}/usb/online": 1,
    })


def proc(root, *, total=1000, idle=600, own=50, routes=("eth0",)):
    """/proc with ticks of the machine and of this process, and default routes."""
    busy = total - idle
    table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n" + "".join(
        f"{name}\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n" for name in routes)
    return write(root, {
        "stat": f"cpu {busy} 0 0 {idle} 0 0 0 0 0 0",
        "self/stat": f"7 (a (b) c) S {' '.join(['0'] * 10)} {own} 0 0 0",
        "net/route": table,
    })
