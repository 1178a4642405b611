#!/bin/sh
# SPDX-License-Identifier: MIT
#
# sh tests/mutants.sh [--check] [NAME...]
#
# Shows that the tests can fail: builds copies of the header with one defence removed each, as
# tests/mutants.txt says, and runs on each the tests that are to notice. Without names, all of them,
# which takes some minutes; with --check, only that each still fits the header. The last line is
# `N passed, N failed`; a mutant that survives is a failure, as is one that does not compile.
#
# Those that tests/windows.cpp is to notice are built by mingw-w64 and run by wine.
#
# Installs what is missing, as tests/run.sh does. CXX names the compiler, JOBS how many mutants are
# tried at once.

unset CDPATH
cd "$(dirname "$0")/.." || exit 1
. tests/setup.sh

if [ "${1:-}" = --check ]; then
  have python3 || give_up 'python3 is needed.'
else
  install_missing || give_up 'The mutants cannot be built without these packages.'
fi
forget_environment

exec python3 - "$@" <<'PYTHON'
import concurrent.futures, html, os, re, shlex, shutil, signal, subprocess, sys, tempfile

compiler = shlex.split(os.environ.get('CXX') or 'c++')
flags = ['-std=c++20', '-O0', '-w', '-pthread', '-DHUB_SESSION_ASSERT=assert',
         f'-DHUB_SESSION_TEST_DATA="{os.getcwd()}/tests/data"']
jobs = int(os.environ.get('JOBS') or os.cpu_count() or 1)
seconds_max = 300  # for one test program; the tests take seconds
with open('meson.build') as build_file:  # which says what needs httplib
    over_sockets = set(re.findall(r"'tests/(\w+)\.cpp'", ''.join(
        re.findall(r'online_programs \+= \{(.*?)\n *\}', build_file.read(), re.S))))


class mutant:
    def __init__(self, text):
        head, self.old, self.new = re.fullmatch(
            r'(.*?\n)--- is\n(.*?)\n--- becomes\n(.*?)\n?---', text, re.S).groups()
        said = dict(re.findall(r'^(\w+): (.*(?:\n .*)*)', head, re.M))
        self.name, self.why, tests = said['mutant'], said['why'], said['tests']
        self.catchers = [(test, said.get('only', '')) for test in tests.split()]

    def fits(self, header):
        count = header.count(self.old)
        if count != 1:
            print(f'{self.name}: its text occurs {count} times in the header, not once; mend '
                  f'tests/mutants.txt:\n{self.old}', file=sys.stderr)
        return count == 1

    def apply(self, header):
        return header.replace(self.old, self.new)


def read_mutants():
    with open('tests/mutants.txt', encoding='utf-8') as file:
        text = file.read()
    found = [mutant(each) for each in re.findall(r'^mutant: .*?^---$', text, re.M | re.S)]
    if len(found) != len(re.findall('^mutant:', text, re.M)):
        raise ValueError('tests/mutants.txt: a mutant does not end with a line "---"')
    if len({each.name for each in found}) != len(found):
        raise ValueError('tests/mutants.txt: two mutants have one name')
    return found


def pkg_config(what, *packages):
    got = subprocess.run(['pkg-config', what, *packages], capture_output=True, text=True)
    return shlex.split(got.stdout)


def compile(folder, *arguments):
    done = subprocess.run([*compiler, *flags, *arguments], cwd=folder, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stdout)


# What no mutant changes is compiled once: the standard library, nlohmann/json and Catch2.
def precompile(work, header):
    standard = re.findall(r'^#include <[a-z_]+>$', header, re.M)
    with open(f'{work}/common.hpp', 'w') as file:
        file.write('\n'.join([*standard, '#include <nlohmann/json.hpp>',
                              f'#include "{os.getcwd()}/tests/support/catch.hpp"\n']))
    is_clang = 'clang' in subprocess.run([*compiler, '--version'], capture_output=True,
                                         text=True).stdout
    compile(work, '-x', 'c++-header', 'common.hpp', '-o',
            'common.hpp.' + ('pch' if is_clang else 'gch'))
    compile(work, '-c', f'{os.getcwd()}/tests/support/catch_main.cpp', '-o', 'catch_main.o')


# What tests/windows.sh has for it, in the folder of a mutant and with an object of that one's own.
def for_windows(work, folder, commands):
    name = os.path.relpath(folder, work).replace('/', '-')
    script = (f'. tests/setup.sh && . tests/windows.sh && windows_folder {work}/windows && name={name} '
              f'&& {commands}')
    done = subprocess.run(['sh', '-c', script], cwd=folder, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors='replace')
    return done.returncode, done.stdout


def compile_for_windows(work, folder, commands):
    code, said = for_windows(work, folder, commands)
    if code != 0:
        raise RuntimeError(said)


def build(work, folder, test):
    if test == 'windows':
        return compile_for_windows(work, folder, 'windows_compile -w -c tests/windows.cpp -o '
                                   '"$folder/$name.o" && windows_program "$name" "$name"')
    libraries = []
    if test != 'simulate':
        libraries += [f'{work}/catch_main.o', *pkg_config('--libs', 'catch2-with-main')]
    with_network = ['-DHUB_SESSION_NO_HTTPLIB']
    if test in over_sockets:
        with_network = pkg_config('--cflags', 'cpp-httplib', 'openssl')
        libraries += pkg_config('--libs', 'cpp-httplib', 'openssl')
    compile(folder, *with_network, '-include', f'{work}/common.hpp', f'tests/{test}.cpp', '-o',
            test, *libraries)


# The test or seed that a program was at when it ended. Catch2 ends with the first that fails, and
# its XML is the same in all versions.
def last_case(test, said):
    if test == 'simulate':
        return ''.join(re.findall('^seed .*', said, re.M)[:1]) or 'simulate'
    cases = re.findall('<TestCase name="([^"]*)"', said)
    if not cases:
        raise RuntimeError(f'{test}: no test ran')
    return html.unescape(cases[-1])


# Runs it. Returns its exit code and what it said, as far as it came.
def run_here(folder, test, only):
    arguments = ['--seeds', '300'] if test == 'simulate' else ['--abort', '-r', 'xml']
    with open(f'{folder}/{test}.log', 'w+', errors='replace') as log:
        try:
            code = subprocess.run([f'{folder}/{test}', *arguments, *([only] if only else [])],
                                  cwd=folder, stdin=subprocess.DEVNULL, stdout=log,
                                  stderr=subprocess.DEVNULL, timeout=seconds_max).returncode
        except subprocess.TimeoutExpired:
            code = None
        os.remove(f'{folder}/{test}')
        log.seek(0)
        return code, log.read()


# Builds one file of tests on a header and runs it. Returns what failed, '' where nothing did.
def run_tests(work, folder, test, only):
    build(work, folder, test)
    if test == 'windows':
        code, said = for_windows(work, folder, 'windows_run_on_console "$name" '
                                 f'"{only or "~[.]"}" "--abort -r xml"')
        code = None if code == 124 else code
    else:
        code, said = run_here(folder, test, only)
    if code == 0:
        return ''
    return last_case(test, said) + (', which hung' if code is None else '')


# A copy of the tests beside a header of its own, which they include as "../hub_session.hpp".
def prepare(folder, header):
    shutil.copytree('tests', f'{folder}/tests', ignore=shutil.ignore_patterns('data'))
    shutil.copytree('examples', f'{folder}/examples')
    with open(f'{folder}/hub_session.hpp', 'w', encoding='utf-8') as file:
        file.write(header)


def try_mutant(work, which, header):
    folder = f'{work}/{which.name}'
    prepare(folder, which.apply(header))
    try:
        for test, only in which.catchers:
            killer = run_tests(work, folder, test, only)
            if killer:
                return True, f'{which.name}: killed by {killer}'
        return False, f'{which.name}: SURVIVED {", ".join(test for test, _ in which.catchers)}'
    except RuntimeError as problem:
        return False, f'{which.name}: cannot be tried: {problem}'
    finally:
        shutil.rmtree(folder)


# Where the header as it is does not pass a test, that test shows nothing of a mutant.
def try_original(work, test, only, header):
    folder = tempfile.mkdtemp(dir=work)
    prepare(f'{folder}/it', header)
    failed = run_tests(work, f'{folder}/it', test, only)
    if failed:
        raise RuntimeError(f'{test}: the header as it is does not pass: {failed}')


# Returns how many were killed.
def try_all(wanted, header, work, pool):
    precompile(work, header)
    if any('windows' in dict(each.catchers) for each in wanted):
        compile_for_windows(work, os.getcwd(), 'install_for_windows && windows_compile_main')
    catchers = sorted({catcher for each in wanted for catcher in each.catchers})
    for done in [pool.submit(try_original, work, *each, header) for each in catchers]:
        done.result()
    passed = 0
    for done in [pool.submit(try_mutant, work, each, header) for each in wanted]:
        killed, line = done.result()
        print(line, flush=True)
        passed += killed
    return passed


# The same in a folder that goes, whatever ends it; what has not begun by then does not begin.
def try_in_a_folder(wanted, header):
    with tempfile.TemporaryDirectory(prefix='hub_session-mutants-') as work:
        pool = concurrent.futures.ThreadPoolExecutor(jobs)
        try:
            return try_all(wanted, header, work, pool)
        finally:
            pool.shutdown(cancel_futures=True)


def main(arguments):
    mutants = read_mutants()
    names = [each for each in arguments if each != '--check']
    for name in names:
        if name not in (each.name for each in mutants):
            raise ValueError(f'no mutant is called {name}')
    wanted = [each for each in mutants if not names or each.name in names]
    with open('hub_session.hpp', encoding='utf-8') as file:
        header = file.read()
    rotted = [each for each in wanted if not each.fits(header)]
    if '--check' in arguments:
        passed = len(wanted) - len(rotted)
    else:
        passed = 0 if rotted else try_in_a_folder(wanted, header)
    print(f'{passed} passed, {len(wanted) - passed} failed')
    return passed != len(wanted)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
try:
    sys.exit(main(sys.argv[1:]))
except (RuntimeError, ValueError) as problem:
    print(problem, file=sys.stderr)
    print('0 passed, 1 failed')
    sys.exit(1)
PYTHON
