#!/bin/bash
# Cross-build the aarch64 wheel and take a training step with it under qemu-user; then int8 products
# with and without dot products against the portable ones.
# Needs gcc-aarch64-linux-gnu and qemu-user (make setup-system); the Arm Python comes from Debian's
# own packages, unpacked into build/aarch64/root.
set -euo pipefail
cd "$(dirname "$0")/.."
PY=${PY:-.venv/bin/python}
OUT=$PWD/build/aarch64
mkdir -p "$OUT/debs" "$OUT/root" "$OUT/site"

_PYTHON_HOST_PLATFORM=linux-aarch64 "$PY" -m pip --disable-pip-version-check -q wheel . --no-deps \
  --no-build-isolation -w "$OUT" -C build-dir="$OUT/cmake" \
  -C cmake.define.CMAKE_TOOLCHAIN_FILE="$PWD/tools/aarch64.cmake" \
  -C cmake.define.Python_INCLUDE_DIR="$("$PY" -c 'import sysconfig; print(sysconfig.get_path("include"))')"
wheel=$(ls -t "$OUT"/edgeloop-*aarch64.whl | head -1)

if [ ! -x "$OUT/root/usr/bin/python3.11" ]; then
  S=$([ "$(id -u)" = 0 ] || echo sudo)
  $S dpkg --add-architecture arm64 && $S apt-get update -q >/dev/null
  (cd "$OUT/debs" && apt-get download -q python3.11-minimal:arm64 libpython3.11-minimal:arm64 \
    libpython3.11-stdlib:arm64 libc6:arm64 libgcc-s1:arm64 zlib1g:arm64 libexpat1:arm64 \
    libssl3:arm64 libsqlite3-0:arm64 libffi8:arm64 libstdc++6:arm64 libbz2-1.0:arm64 \
    liblzma5:arm64 >/dev/null 2>&1)
  for d in "$OUT"/debs/*.deb; do dpkg -x "$d" "$OUT/root"; done
fi
"$PY" -m pip --disable-pip-version-check -q install --upgrade --target "$OUT/site" \
  --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
  --platform manylinux2014_aarch64 --platform linux_aarch64 --python-version 3.11 \
  --only-binary=:all: "$wheel"

PYTHONPATH=src "$PY" tools/aarch64_step.py compile "$OUT"
EDGELOOP_ISA=ref PYTHONPATH=src "$PY" tools/aarch64_step.py run "$OUT" | tee "$OUT/host.txt"
arm() { PYTHONPATH="$OUT/site" qemu-aarch64 -L "$OUT/root" -E EDGELOOP_ISA="$1" \
  "$OUT/root/usr/bin/python3.11" tools/aarch64_step.py run "$OUT"; }
arm ref | tee "$OUT/arm.txt"
cmp "$OUT/host.txt" "$OUT/arm.txt"
arm neon | tee "$OUT/neon.txt"
PYTHONPATH=src "$PY" tools/aarch64_step.py close "$OUT/host.txt" "$OUT/neon.txt"

bin=$(cd "$(dirname "$PY")" && pwd)
"$bin/cmake" -S . -B "$OUT/check" -G Ninja -DCMAKE_MAKE_PROGRAM="$bin/ninja" -DEL_TESTS=ON \
  -DEL_PYTHON=OFF -DCMAKE_TOOLCHAIN_FILE="$PWD/tools/aarch64.cmake" \
  -DCMAKE_EXE_LINKER_FLAGS=-static >"$OUT/check.log"
"$bin/cmake" --build "$OUT/check" --target i8_check >>"$OUT/check.log"
for cpu in max cortex-a76 cortex-a53; do # i8mm, dotprod, neither
  qemu-aarch64 -cpu $cpu "$OUT/check/i8_check"
done
echo "aarch64: portable kernels give the host's bits, NEON kernels agree; $(basename "$wheel")"
