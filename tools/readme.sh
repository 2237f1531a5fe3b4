#!/bin/bash
# Run every command of the README's sh blocks, as written, in a copy of the committed tree; then the
# Python block with data of the right shape.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git archive HEAD | tar -x -C "$work"
awk '/^```sh$/ {on=1; next} /^```$/ {on=0} on' README.md >"$work/readme.commands"
grep -v '^pip uninstall' "$work/readme.commands" | grep -v '^edgeloop uninstall' >"$work/first"
(cd "$work" && bash -euo pipefail -x ./first) 2>&1 | sed 's/^/  /'
{
  echo 'import numpy as np'
  echo 'x, y = np.zeros((8, 12), np.float32), np.zeros(8, np.int64)'
  awk '/^```python$/ {on=1; next} /^```$/ {on=0} on' README.md
} >"$work/block.py"
(cd "$work" && env/bin/python block.py) | sed 's/^/  /'
grep -E '^(edgeloop|pip) uninstall' "$work/readme.commands" >"$work/last"
(cd "$work/try" && PATH="$work/env/bin:$PATH" bash -euo pipefail -x ../last) 2>&1 | sed 's/^/  /'
echo "every command of the README ran"
