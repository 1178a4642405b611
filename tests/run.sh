#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh tests/run.sh [ARGUMENT...]
#
# Installs what is missing (Debian, Ubuntu), builds, and runs every test. The last line is
# `N passed, N failed`, counted in test cases; the exit code is zero only if none failed. The
# arguments go to `meson setup`, for example -Dhttplib_dir=DIR or -Db_sanitize=address,undefined.
# BUILD_DIR names another build folder than build/.

unset CDPATH
cd "$(dirname "$0")/.." || exit 1
. tests/setup.sh

# Whatever keeps the tests from running is one failure, so that the last line is always there.
give_up() {
  say "$*"
  echo '0 passed, 1 failed'
  exit 1
}

trap remove_temporary_build EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

also_needed=curl
install_missing "$@" || give_up 'The tests cannot be built without these packages.'
choose_build_folder || give_up 'There is no folder to build in.'
configure "$@" || give_up 'meson setup failed; see above.'
meson compile -C "$build" || give_up 'The build failed; see above.'

# An old log must not be counted if meson dies before it writes a new one.
rm -f "$build/meson-logs/testlog.json"
forget_environment
meson test -C "$build" --no-rebuild --print-errorlogs
meson_status=$?

# Catch2 ends with `All tests passed (6 assertions in 3 test cases)` or `test cases: 3 | 2 passed |
# 1 failed`. A program that crashed may have said neither, or may have said so before it crashed:
# that counts as one failure. Scripts end with `2 passed, 1 failed`. Whatever says nothing of the
# kind counts as one test case.
python3 - "$build/meson-logs/testlog.json" $meson_status <<'PYTHON'
import json, re, sys

def cases(record):
    ok = record['result'] in ('OK', 'EXPECTEDFAIL')
    passed, failed = (1, 0) if ok else (0, 1)
    for line in record.get('stdout', '').splitlines():
        if match := re.match(r'All tests passed \(.* in (\d+) test cases?\)', line):
            passed, failed = int(match[1]), 0
        elif re.match(r'test cases: ', line):
            counts = {what: int(n) for n, what in re.findall(r'(\d+) ([a-z ]*[a-z])', line)}
            passed = counts.get('passed', 0) + counts.get('failed as expected', 0)
            failed = counts.get('failed', 0)
        elif match := re.match(r'(\d+) passed, (\d+) failed$', line):
            passed, failed = int(match[1]), int(match[2])
        elif line.startswith('No tests ran'):
            passed, failed = 0, 1
    return passed, failed if ok else max(failed, 1)

passed = failed = 0
try:
    with open(sys.argv[1], encoding='utf-8', errors='replace') as log:
        for line in log:
            record = json.loads(line)
            counts = (0, 0) if record['result'] == 'SKIP' else cases(record)
            passed, failed = passed + counts[0], failed + counts[1]
except (OSError, ValueError) as problem:
    print('The log of the tests cannot be read:', problem, file=sys.stderr)
    failed += 1
if failed == 0 and (passed == 0 or sys.argv[2] != '0'):
    failed = 1
print(f'{passed} passed, {failed} failed')
sys.exit(failed != 0)
PYTHON
