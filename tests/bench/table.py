# SPDX-License-Identifier: MIT
#
# The rows of tests/bench.sh: runs each measurement against its peer in turn (A B A B ...), so that
# a machine that becomes slower or faster meanwhile cancels out, and prints the medians as a table.

import argparse
import hashlib
import http.client
import json
import os
import platform
import re
import shlex
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
HEADER = HERE.parent.parent / 'hub_session.hpp'
MODEL = 'abcdefghij0123456789'
MIB = 1 << 20
median = statistics.median


class Failed(Exception):
    pass


def run(command, **more):
    """Runs a program; returns its output and the seconds of processor time that it took."""
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, **more)
    output = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise Failed(f'{shlex.join(str(word) for word in command)} ended with '
                     f'{process.returncode}; run it by hand to see why')
    return output, usage.ru_utime + usage.ru_stime


class Sink:
    """A running bench_sink."""

    def __init__(self, program, tls, folder):
        # Its certificates go with the folder.
        self.process = subprocess.Popen([program] + (['--tls'] if tls else []),
                                        stdout=subprocess.PIPE,
                                        env={**os.environ, 'TMPDIR': str(folder)})
        self.port, self.authority = self.process.stdout.readline().decode().split()
        self.tls = tls
        self.url = f'{"https" if tls else "http"}://127.0.0.1:{self.port}'

    def ask(self, method, path):
        if self.tls:
            link = http.client.HTTPSConnection(
                '127.0.0.1', int(self.port),
                context=ssl.create_default_context(cafile=self.authority))
        else:
            link = http.client.HTTPConnection('127.0.0.1', int(self.port))
        link.request(method, path)
        answer = json.loads(link.getresponse().read())
        link.close()
        return answer

    def seen(self):
        return self.ask('GET', '/sink')

    def last_upload(self):
        return self.seen()['uploads'][-1]


class LocalHub:
    """A running local_hub with a folder of its own."""

    key = 'k' * 42

    def __init__(self, program, folder):
        self.process = subprocess.Popen([program, '--port', '0', '--data', folder, '--quiet'],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        env={**os.environ, 'LOCAL_HUB_API_KEY': self.key})
        self.url = self.process.stdout.readline().decode().split()[-1]

    def ask(self, method, path, body=None):
        """Returns the body of the answer, and how many seconds it took."""
        link = http.client.HTTPConnection(self.url.removeprefix('http://'))
        began = time.monotonic()
        link.request(method, path, body and json.dumps(body), {'x-api-key': self.key})
        answer = link.getresponse().read()
        taken = time.monotonic() - began
        link.close()
        return answer, taken

    def memory_peak_mib(self):
        with open(f'/proc/{self.process.pid}/status', encoding='utf-8') as about:
            return int(re.search(r'VmHWM:\s+(\d+)', about.read())[1]) / 1024


class Bench:
    def __init__(self, given, folder):
        self.client = given.build.resolve() / 'bench_client'
        self.sink_program = given.build.resolve() / 'bench_sink'
        self.load_program = given.build.resolve() / 'bench_local_hub_load'
        self.local_hub_program = given.build.resolve() / 'local_hub'
        self.httplib_dir = given.httplib_dir
        self.folder = folder
        self.quick = given.quick
        self.pairs = 1 if given.quick else given.pairs
        self.figures = []

    def size(self, whole, quick):
        return quick if self.quick else whole

    def measure(self, *arguments):
        output, cpu = run([self.client, *arguments])
        return {'cpu': cpu, **json.loads(output)}

    @contextmanager
    def sink(self, tls=False):
        sink = Sink(self.sink_program, tls, self.folder)
        try:
            yield sink
        finally:
            sink.process.terminate()
            sink.process.wait()

    @contextmanager
    def local_hub(self):
        with tempfile.TemporaryDirectory(dir=self.folder) as data:
            hub = LocalHub(self.local_hub_program, data)
            try:
                yield hub
            finally:
                hub.process.terminate()
                hub.process.wait()

    def add(self, what, figure, goal, met, note=''):
        """One row. `met` is None where there is no goal, or where it cannot be measured here."""
        verdict = {True: 'yes', False: '**no**', None: '-'}[met]
        print(f'| {what} | {figure} | {goal} | {verdict} | {note} |', flush=True)
        self.figures.append((what, figure))

    # ---- files ----------------------------------------------------------------------------------

    def random_file(self, size):
        """A file of random bytes, all of it in the page cache."""
        name = self.folder / f'random-{size}.pt'
        if not name.exists():
            with open(name, 'wb') as out:
                for _ in range(size // MIB):
                    out.write(os.urandom(MIB))
        with open(name, 'rb') as warm:
            while warm.read(MIB):
                pass
        return name

    def sparse_file(self, size):
        name = self.folder / f'sparse-{size}.pt'
        with open(name, 'wb') as out:
            out.truncate(size)
        return name

    # ---- uploads --------------------------------------------------------------------------------

    def curl(self, sink, file):
        trust = ['--cacert', sink.authority] if sink.tls else []
        _, cpu = run(['curl', *trust, '-o', os.devnull, '-F', 'epoch=1', '-F', 'type=final',
                      '-F', 'map=0.5', '-F', f'best.pt=@{file};filename=best.pt',
                      f'{sink.url}/v1/models/{MODEL}/upload'])
        return {'cpu': cpu, **sink.last_upload()}

    def session(self, sink, file):
        more = self.measure('upload', sink.url, file, sink.authority if sink.tls else '')
        return {**more, **sink.last_upload()}

    def sendfile(self, sink, file):
        return {**self.measure('sendfile', sink.port, file), **sink.last_upload()}

    def upload_pairs(self, sink, file, peers):
        """What every peer took, in turn, after one round that does not count."""
        rounds = [[peer(sink, file) for peer in peers] for _ in range(self.pairs + 1)]
        return list(zip(*rounds[1:]))

    def check_hashes(self, tls):
        """That what is timed is a whole upload; apart from the timing, as a hash costs time."""
        file = self.random_file(self.size(64 * MIB, 4 * MIB))
        wanted = hashlib.sha256(file.read_bytes()).hexdigest()
        with self.sink(tls) as sink:
            sink.ask('POST', '/sink/hash')
            for peer in (self.curl, self.session):
                if peer(sink, file)['sha256'] != wanted:
                    raise Failed(f'the bytes that {peer.__name__} uploaded are not the file\'s')

    def upload(self):
        self.check_hashes(tls=False)
        size = self.size(1024 * MIB, 8 * MIB)
        file = self.random_file(size)
        with self.sink() as sink:
            ours, curl, raw = self.upload_pairs(sink, file,
                                                [self.session, self.curl, self.sendfile])
        what = f'upload of {size // MIB} MiB, plain HTTP'
        rate = size / MIB / median(one['seconds'] for one in ours)
        faster = median(b['seconds'] / a['seconds'] for a, b in zip(ours, curl))
        self.add(f'{what}: throughput against `curl -F`', f'{faster:.2f}', 'at least 1.3',
                 faster >= 1.3, f'{rate:.0f} MiB/s')
        limit = median(b['seconds'] / a['seconds'] for a, b in zip(ours, raw))
        busy = median(one['cpu'] / one['seconds'] for one in raw)
        self.add(f'{what}: throughput against a `sendfile` loop', f'{limit:.2f}', 'at least 0.9',
                 limit >= 0.9, f'the loop itself works {min(busy, 1):.0%} of the time: the sink '
                 'is not what it waits for' if busy > 0.9 else
                 f'the loop itself works {busy:.0%} of the time, and else waits for the sink')
        cpu = median(a['cpu'] / b['cpu'] for a, b in zip(ours, curl))
        self.add(f'{what}: processor time against `curl -F`', f'{cpu:.2f}', 'below 1', cpu < 1,
                 f'{median(one["cpu"] for one in ours):.2f} s, the whole process')

    def tls(self):
        self.check_hashes(tls=True)
        size = self.size(1024 * MIB, 8 * MIB)
        file = self.random_file(size)
        with self.sink(tls=True) as sink:
            ours, curl = self.upload_pairs(sink, file, [self.session, self.curl])
        ciphers = {one['cipher'] for one in ours + curl}
        rate = size / MIB / median(one['seconds'] for one in ours)
        faster = median(b['seconds'] / a['seconds'] for a, b in zip(ours, curl))
        cpu = median(a['cpu'] / b['cpu'] for a, b in zip(ours, curl))
        self.add(f'upload of {size // MIB} MiB, TLS: throughput against `curl -F`',
                 f'{faster:.2f}', 'at least 1', faster >= 1 and len(ciphers) == 1,
                 f'{rate:.0f} MiB/s, {" and ".join(sorted(ciphers))}, processor time {cpu:.2f}')

    def memory(self):
        small, large = self.sparse_file(100 * MIB), self.sparse_file(self.size(8192, 200) * MIB)
        with self.sink() as sink:
            peaks = self.upload_pairs(sink, large, [self.session,
                                                    lambda to, _: self.session(to, small)])
        large_peak, small_peak = (median(one['peak_mib'] for one in each) for each in peaks)
        self.add(f'upload of a sparse file of {large.stat().st_size // MIB} MiB: peak memory',
                 f'{large_peak:.1f} MiB', 'at most 12 MiB', large_peak <= 12, 'the whole process')
        same = large_peak / small_peak
        self.add('the same against a file of 100 MiB', f'{same:.2f}', '1.0', same < 1.05)
        large.unlink()

    # ---- callbacks ------------------------------------------------------------------------------

    def epochs(self):
        count = self.size(1_000_000, 20_000)
        moods = ('fast', 'dead', 'hang')
        taken = {mood: [] for mood in moods}
        fewer = []
        for _ in range(self.pairs):
            for mood in moods:
                with self.sink() as sink:
                    taken[mood].append(self.measure('epochs', sink.url, count, mood, ''))
            with self.sink() as sink:
                fewer.append(self.measure('epochs', sink.url, count // 4, 'hang', ''))
        for mood in moods:
            one = {key: median(each[key] for each in taken[mood]) for key in taken[mood][0]}
            self.add(f'`on_fit_epoch_end`, 12 metrics, {count:,} calls, server {mood}: median',
                     f'{one["median_us"]:.2f} µs', 'at most 2 µs', one['median_us'] <= 2,
                     f'longest {one["max_us"]:.0f} µs, {one["delivered"]:,.0f} delivered')
            self.add('- its 99.9th percentile', f'{one["p999_us"]:.2f} µs', 'at most 20 µs',
                     one['p999_us'] <= 20, f'peak memory {one["peak_mib"]:.0f} MiB')
        touch = [self.measure('touch', self.size(16384, 1024)) for _ in range(self.pairs)]
        self.add('- for comparison: to touch a page of memory for the first time',
                 f'{median(one["median_us"] for one in touch):.2f} µs', '', None,
                 f'99th percentile {median(one["p99_us"] for one in touch):.1f} µs; a full queue '
                 f'is {touch[0]["queue_pages"]:,} pages, {touch[0]["queue_pages"] / count:.1%} of '
                 'the calls')
        for mood in moods[1:]:
            same = median(b['median_us'] / a['median_us']
                          for a, b in zip(taken['fast'], taken[mood]))
            self.add(f'- median, server {mood} against fast', f'{same:.2f}', '1.0',
                     0.8 <= same <= 1.25)
        grown = median(b['peak_mib'] / a['peak_mib'] for a, b in zip(fewer, taken['hang']))
        self.add(f'- peak memory, {count:,} calls against {count // 4:,}, server hangs',
                 f'{grown:.2f}', '1.0', grown <= 1.1, 'bounded by limits.metrics_queue_bytes_max')

    def spool(self):
        count = self.size(100_000, 5_000)
        taken = []
        for i in range(self.pairs):
            with self.sink() as sink:
                taken.append([self.measure('epochs', sink.url, count, 'fast', folder)['median_us']
                              for folder in ('', self.folder / f'spool-{i}')])
        more = median(with_spool - without for without, with_spool in taken)
        self.add(f'`on_fit_epoch_end` with a spool, {count:,} calls: median over that without one',
                 f'{more:.2f} µs', 'at most 10 µs', more <= 10,
                 f'on {file_system(self.folder)}; spool_sync::interval')

    def save(self):
        size = self.size(100, 4) * MIB
        file = self.random_file(size)
        with self.sink() as sink:
            idle = [self.measure('save_not_due', sink.url, 100_000, file)
                    for _ in range(self.pairs)]
            idle_us = median(one['median_us'] for one in idle)
            what = f'`on_model_save`, {size // MIB} MiB'
            self.add(f'{what}, not due', f'{idle_us * 1000:.0f} ns', 'below 1 µs', idle_us < 1)

            pairs = self.measure('save_copy', sink.url, self.pairs + 1, file)
            counted = pairs['saved_and_copied_us'][1:]
            copied = median(ours / cp for ours, cp in counted)
            self.add(f'{what}, due, with snapshot, against `cp`', f'{copied:.2f}',
                     'at most 1.2', copied <= 1.2,
                     f'{median(ours for ours, _ in counted) / 1000:.1f} ms')

            pairs = self.measure('save_in_place', sink.url, self.pairs + 1, file)
            in_place = median(ours for ours, _ in pairs['saved_and_copied_us'][1:])
            self.add(f'{what}, due, `snapshot::none`', f'{in_place:.0f} µs', 'at most 200 µs',
                     in_place <= 200)
            self.save_by_reflink(sink, size, what)

    def save_by_reflink(self, sink, size, what):
        small = self.random_file(size // 4)
        linked = subprocess.run(['cp', '--reflink=always', small, self.folder / 'reflink.pt'],
                                stderr=subprocess.DEVNULL).returncode == 0
        goal = 'constant'
        if not linked:
            return self.add(f'{what}, due, by reflink', 'not measured', goal, None,
                            'the file system cannot reflink; give one that can in BENCH_FOLDER')
        taken = [[median(ours for ours, _ in self.measure(
            'save_copy', sink.url, 6, name)['saved_and_copied_us'][1:])
            for name in (self.random_file(size), small)] for _ in range(self.pairs)]
        same = median(large / little for large, little in taken)
        self.add(f'{what}, due, by reflink, against a quarter of the size', f'{same:.2f}', goal,
                 same <= 1.5, f'{median(large for large, _ in taken):.0f} µs')

    # ---- metrics --------------------------------------------------------------------------------

    def backlog(self):
        count = self.size(10_000, 1_000)

        def seconds(epochs):
            with self.sink() as sink:
                taken = self.measure('backlog', sink.url, epochs)['seconds']
                return taken, sink.seen()

        rounds = [(seconds(count), seconds(count // 4)) for _ in range(self.pairs)]
        whole = median(large[0] for large, _ in rounds)
        seen = rounds[-1][0][1]
        linear = median(large[0] / small[0] / 4 for large, small in rounds)
        self.add(f'{count:,} epochs after an outage: largest batch',
                 f'{seen["batch_bytes_max"] / 1024:.0f} KiB', 'bounded',
                 seen['batch_bytes_max'] <= 512 * 1024, f'{seen["batches"]} batches')
        self.add(f'- time for each epoch against {count // 4:,} epochs', f'{linear:.2f}',
                 'linear: 1.0', linear <= 1.25, f'{whole * 1000:.0f} ms in all')

    def start(self):
        with self.sink() as sink:
            taken = self.measure('start', sink.url)
            # Asking takes a connection of its own.
            seen = sink.seen()
        requests = ', '.join(seen['requests'])
        self.add('session start to first epoch delivered: round trips',
                 f'{len(seen["requests"])}', 'counted', None,
                 f'{requests}; {seen["connections"] - 1} connections; '
                 f'{taken["milliseconds"]:.1f} ms')

    # ---- local_hub ------------------------------------------------------------------------------

    def load(self, what, hub, *arguments):
        return json.loads(run([self.load_program, what, hub.url, hub.key, *arguments])[0])

    def halves(self, what, hub, *arguments):
        """Requests a second of many agents and the peak memory after it, for each half of their work."""
        load = subprocess.Popen([self.load_program, what, hub.url, hub.key, *map(str, arguments)],
                                stdout=subprocess.PIPE)
        found = [(json.loads(line)['per_second'], hub.memory_peak_mib()) for line in load.stdout]
        if load.wait() != 0 or len(found) != 2:
            raise Failed(f'local_hub_load {what} ended with {load.returncode}; see above')
        return found

    def hub(self):
        agents = self.size(64, 4)
        seconds = self.size(5, 1)
        for what in ('heartbeats', 'metrics', 'events'):
            with self.local_hub() as hub:
                rounds = [self.halves(what, hub, agents, seconds) for _ in range(self.pairs)]
            notes = {'metrics': f'each on the disk before it is confirmed, {file_system(self.folder)}',
                     'events': "epochs, and consoles of 40 lines each, in turn, on the Platform's wire"}
            each = median(rate for halves in rounds for rate, _ in halves)
            self.add(f'local_hub: {what} a second, {agents} agents', f'{each:,.0f}', 'measured', None,
                     notes.get(what, ''))
        with self.local_hub() as hub:  # for long enough that all there is to keep is there half-way
            (_, before), (_, after) = self.halves('events', hub, agents, self.size(20, 1))
        self.add(f'local_hub: peak memory while {agents} agents send events, half-way and at the end',
                 f'{before:.0f} MiB; {after:.0f} MiB', 'flat: at most 10% more', after <= before * 1.1,
                 'runs of 100 epochs, whose consoles have no end')
        self.hub_uploads()
        self.hub_epochs()

    def hub_uploads(self):
        size = self.size(100, 1) * MIB
        count = self.size(20, 4)
        file = self.random_file(size)
        with self.local_hub() as hub:
            self.load('uploads', hub, 1, file)
            before = hub.memory_peak_mib()
            taken = self.load('uploads', hub, count, file)['seconds']
            after = hub.memory_peak_mib()
        self.add(f'local_hub: {count} uploads of {size // MIB} MiB at once: peak memory',
                 f'{after:.0f} MiB', f'flat: at most {size // MIB} MiB more',
                 after - before < size / MIB,
                 f'{before:.0f} MiB after one of them alone; {taken:.1f} s in all')

    def hub_epochs(self):
        count = self.size(10_000, 200)
        names = [f'{place}/{kind}_loss' for place in ('train', 'val') for kind in ('box', 'cls')]
        with self.local_hub() as hub:
            model = json.loads(hub.ask('POST', '/api/models', {'name': 'long'})[0])['id']
            for first in range(0, count, 100):
                epochs = {epoch: json.dumps({name: 1 / (epoch + 1) for name in names})
                          for epoch in range(first, first + 100)}
                hub.ask('POST', f'/v1/models/{model}', {'metrics': epochs, 'type': 'metrics'})
            taken = median(hub.ask('GET', f'/api/models/{model}/metrics')[1]
                           for _ in range(self.pairs))
        self.add(f'local_hub: the metrics of {count:,} epochs, as the page asks for them',
                 f'{taken * 1000:.0f} ms', 'at most 1 s', taken <= 1,
                 'tests/browser.sh prints how long the browser takes to draw them')

    # ---- compiling ------------------------------------------------------------------------------

    def compiler(self):
        return shlex.split(os.environ.get('CXX', 'c++'))

    def flags(self):
        if self.httplib_dir:
            packages, more = [], ['-isystem' + self.httplib_dir, '-DCPPHTTPLIB_OPENSSL_SUPPORT',
                                  '-DCPPHTTPLIB_MAX_LINE_LENGTH=8192']
        else:
            packages, more = ['cpp-httplib'], []
        asked, _ = run(['pkg-config', '--cflags', 'openssl', 'nlohmann_json', *packages])
        return ['-std=c++20', f'-I{HEADER.parent}', *more, *shlex.split(asked)]

    def compile_seconds(self, source, *more):
        """Processor time, which other programs disturb less than the time on the wall. Quickly, the
        preprocessor alone: tests/matrix.sh compiles each of these files."""
        mode = ['-E'] if self.quick else ['-c']
        return run([*self.compiler(), *self.flags(), *more, *mode, '-o', self.folder / 'compiled.o',
                    source])[1]

    def compile_pair(self, what, goal, ours, theirs, *more):
        """Both in turn: a row of its own."""
        taken = [(self.compile_seconds(ours, *more), self.compile_seconds(theirs, *more))
                 for _ in range(self.pairs)]
        ratio = median(mine / other for mine, other in taken)
        self.add(f'compiling {what}', f'{ratio:.2f}', f'at most {goal}', ratio <= goal,
                 f'{median(mine for mine, _ in taken):.1f} s against '
                 f'{median(other for _, other in taken):.1f} s')

    def compile(self):
        here = HERE / 'compile'
        minimal = HEADER.parent / 'examples' / 'minimal.cpp'
        for level in ('-O0', '-O2'):
            self.compile_pair(f'a file that makes a session, {level}, against the same by hand', 2.0,
                              minimal, here / 'by_hand.cpp', level)
            self.compile_pair(f'- one that makes a session of either protocol, {level}', 2.3,
                              here / 'both.cpp', here / 'by_hand.cpp', level)
        self.compile_pair('a test with the test kit, -O0, against one without', 2.0,
                          here / 'test_with_the_kit.cpp', here / 'test_by_hand.cpp', '-O0')
        self.compile_pair('an include alone, -O0, against a use of nlohmann/json', 1.3,
                          here / 'header.cpp', here / 'json.cpp', '-O0')
        text = HEADER.read_text()
        begin = text.index('#define HUB_SESSION_VERSION_MAJOR')
        included = self.folder / 'included.cpp'
        included.write_text(text[begin:text.index('\nnamespace hub {')])
        self.compile_pair('the interface alone, -O0, against what it includes', 1.1,
                          here / 'header.cpp', included, '-O0', '-DHUB_SESSION_INTERFACE_ONLY')
        if not self.quick:
            ours, theirs = (self.stripped_bytes(file) for file in (minimal, here / 'by_hand.cpp'))
            self.add('the program of a session, -O2, stripped, against the same by hand',
                     f'{ours / theirs:.2f}', 'at most 2.5', ours / theirs <= 2.5,
                     f'{ours // 1024} KiB against {theirs // 1024} KiB')

    def stripped_bytes(self, source):
        packages = [] if self.httplib_dir else ['cpp-httplib']
        libraries, _ = run(['pkg-config', '--libs', 'openssl', *packages])
        program = self.folder / 'program'
        run([*self.compiler(), *self.flags(), '-O2', '-s', '-o', program, source,
             *shlex.split(libraries), '-pthread'])
        return program.stat().st_size

    def parts(self):
        count = self.size(10, 2)
        sources = [('network', []), ('main', [])]
        sources += [('part', [f'-DPART={i}']) for i in range(1, count - 1)]
        with_httplib = 0
        taken = 0.0
        for number, (name, more) in enumerate(sources):
            target = self.folder / f'part-{number}.o'
            taken += run([*self.compiler(), *self.flags(), '-O0', *more, '-c', '-o', target,
                          HERE / 'parts' / f'{name}.cpp'])[1]
            symbols, _ = run(['nm', '-C', target])
            with_httplib += 'httplib::' in symbols
        self.add(f'a program of {count} translation units: how many hold httplib',
                 f'{with_httplib}', '1', with_httplib == 1, f'{taken:.0f} s to compile all')


# Appends what was measured to history.tsv, with the day, the commit and the machine.
def keep(figures, build):
    commit = subprocess.run(['git', 'describe', '--always', '--dirty'], cwd=HERE, capture_output=True,
                            text=True).stdout.strip() or '-'
    with open(HERE / 'history.tsv', 'a', encoding='utf-8') as history:
        for what, figure in figures:
            print(time.strftime('%Y-%m-%d'), commit, machine(build), what, figure, sep='\t',
                  file=history)


def file_system(folder):
    return subprocess.run(['df', '--output=fstype', folder], capture_output=True,
                          text=True).stdout.split()[-1]


ROWS = ('upload', 'tls', 'memory', 'epochs', 'spool', 'save', 'backlog', 'start', 'hub', 'compile',
        'parts')


def machine(build):
    def first_line(*command):
        return subprocess.run(command, capture_output=True, text=True).stdout.split('\n')[0]

    def version(package):
        return first_line('pkg-config', '--modversion', package)

    processor = platform.processor() or platform.machine()
    with open('/proc/cpuinfo', encoding='utf-8') as about:
        for line in about:
            if line.startswith('model name'):
                processor = line.split(':')[1].strip()
                break
    load = os.getloadavg()[0]
    compiler = first_line(*shlex.split(os.environ.get('CXX', 'c++')), '--version')
    return (f'{os.cpu_count()} × {processor}, Linux {platform.release()}, load {load:.1f} at the '
            f'start; {compiler}; {" ".join(first_line("curl", "--version").split()[:2])}, '
            f'cpp-httplib {version("cpp-httplib")}, OpenSSL {version("openssl")}, '
            f'nlohmann/json {version("nlohmann_json")}')


def main():
    parser = argparse.ArgumentParser(prog='sh tests/bench.sh')
    parser.add_argument('--quick', action='store_true',
                        help='small sizes, once: shows that it works, and no more')
    parser.add_argument('--pairs', type=int, default=5)
    parser.add_argument('--keep', action='store_true',
                        help='append the figures to tests/bench/history.tsv')
    parser.add_argument('--build', type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument('--httplib-dir', default='', help=argparse.SUPPRESS)
    parser.add_argument('rows', nargs='*', metavar='ROW', help=', '.join(ROWS))
    given = parser.parse_args()
    unknown = set(given.rows) - set(ROWS)
    if unknown:
        parser.error(f'there is no row {", ".join(sorted(unknown))}; there are {", ".join(ROWS)}')

    print(machine(given.build))
    print(f'Medians of {1 if given.quick else given.pairs} pairs.\n')
    print('| what | measured | goal | met | |')
    print('|---|---|---|---|---|')
    where = os.environ.get('BENCH_FOLDER') or given.build
    with tempfile.TemporaryDirectory(dir=where, prefix='bench-') as folder:
        bench = Bench(given, Path(folder).resolve())
        try:
            for row in ROWS:
                if not given.rows or row in given.rows:
                    getattr(bench, row)()
        except Failed as why:
            print(f'bench: {why}', file=sys.stderr)
            return 1
        if given.keep:
            keep(bench.figures, given.build)
    return 0


sys.exit(main())
