#!/bin/bash
# Checks that no linter makes: file length, C format, and words that do not belong in the tree.
set -u
fail=0
while read -r f; do
  n=$(wc -l <"$f")
  [ "$n" -le 600 ] || { echo "$f: $n lines; at most 600, ask what it is really two of"; fail=1; }
done < <(git ls-files '*.py' '*.c' '*.h')
if git grep -nE '\b(TODO|FIXME|XXX|HACK)\b' -- '*.py' '*.c' '*.h' ':!tools/lint.sh'; then
  echo "unfinished work: finish it or delete it"; fail=1
fi
if command -v clang-format >/dev/null; then
  git ls-files 'core/*.c' 'core/*.h' 'firmware/*.c' 'firmware/*.h' | xargs -r clang-format --dry-run -Werror || fail=1
elif [ "${CI:-}" = true ]; then
  echo "clang-format is missing: make setup-system"; fail=1
fi
exit $fail
