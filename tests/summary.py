# SPDX-License-Identifier: MIT
#
# summary.py BUILD MESON_STATUS BEGAN: what tests/run.sh says at its end of the tests that Meson ran
# in the folder BUILD and of what was compiled there since BEGAN, in seconds since 1970: what took
# longest, what failed and how to run that again, and how many test cases passed and failed.
#
# Catch2 ends with `All tests passed (6 assertions in 3 test cases)` or `test cases: 3 | 2 passed |
# 1 failed`. A program that crashed may have said neither, or may have said so before it crashed:
# that counts as one failure. Scripts end with `2 passed, 1 failed`. Whatever says nothing of the
# kind counts as one test case.

import json
import re
import sys

lines_of_a_failure = 3


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


# Catch2 puts a test case's name between two rules, and then says of each assertion where it failed.
# Scripts begin a line with FAILED.
def what_failed(said):
    found = []
    name = ''
    lines = said.splitlines()
    for before, line, after in zip([''] + lines, lines, lines[1:] + ['']):
        if before.startswith('-----') and line and not line.startswith('.'):
            name = line
        elif line.startswith('FAILED'):
            found.append(line.removeprefix('FAILED: '))
        elif re.match(r'\S+:\d+: FAILED', line):
            found.append(f'{line.split(": ")[0]}: "{name}"{after.replace("  ", ": ", 1)}')
    return found


def compiled_since(build, began):
    with open(f'{build}/.ninja_log', encoding='utf-8') as log:
        for line in list(log)[1:]:
            start, end, changed, output = line.split('\t')[:4]
            if int(changed) >= began * 1e9:
                yield (int(end) - int(start)) / 1000, output


def tell_slowest(parts):
    print('What took longest:')
    for seconds, what in sorted(parts, reverse=True)[:20]:
        print(f'{seconds:7.1f} s  {what}')


def tell_failure(build, record):
    found = what_failed(record.get('stdout', '') + record.get('stderr', ''))
    for each in (found or [record['result'].lower()])[:lines_of_a_failure]:
        print(f'FAILED: {record["name"]}: {each[:200]}')
    if len(found) > lines_of_a_failure:
        print(f'  and {len(found) - lines_of_a_failure} more in it')
    print(f'  again: meson test -C {build} --print-errorlogs {record["name"]}')


def main(build, meson_status, began):
    passed = failed = 0
    try:
        with open(f'{build}/meson-logs/testlog.json', encoding='utf-8', errors='replace') as log:
            records = [each for each in map(json.loads, log) if each['result'] != 'SKIP']
        tell_slowest([*compiled_since(build, int(began)),
                      *((each['duration'], 'test ' + each['name']) for each in records)])
        for record in records:
            counts = cases(record)
            passed, failed = passed + counts[0], failed + counts[1]
            if counts[1] > 0:
                tell_failure(build, record)
    except (OSError, ValueError) as problem:
        print('The log of the tests cannot be read:', problem, file=sys.stderr)
        failed += 1
    if failed == 0 and (passed == 0 or meson_status != '0'):
        failed = 1
    print(f'{passed} passed, {failed} failed')
    return failed != 0


sys.exit(main(*sys.argv[1:]))
