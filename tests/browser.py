# SPDX-License-Identifier: MIT
#
# The page of local_hub in a real browser (webdriver.py). Called by tests/browser.sh with the programs'
# paths. Whatever is waited for is a condition with a deadline; nothing sleeps for a fixed time.
#
# The last line is `N passed, N failed`.

import hashlib
import http.client
import http.server
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from webdriver import Browser, wait_for

LOCAL_HUB, TRAIN, *WANTED = sys.argv[1:]
EVIL = '<img src=x onerror=document.title="owned">"\'&<script>document.title="owned"</script>'

def free_line(process, lead):
    for line in process.stdout:
        if line.startswith(lead):
            return line[len(lead):].strip()
    raise AssertionError(f'no line {lead!r}')


class Hub:
    def __init__(self, data, *flags, port=0):
        self.process = subprocess.Popen(
            [LOCAL_HUB, '--data', str(data), '--port', str(port), '--quiet', *flags],
            stdout=subprocess.PIPE, text=True)
        self.url = free_line(self.process, 'local_hub: listening on ')
        self.port = int(self.url.rsplit(':', 1)[1])

    def get(self, path):
        return json.load(urllib.request.urlopen(self.url + path))

    def post(self, path, body, key=None):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), method='POST')
        request.add_header('Content-Type', 'application/json')
        if key:
            request.add_header('x-api-key', key)
        return json.load(urllib.request.urlopen(request))

    def send(self, method, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), method=method)
        request.add_header('Content-Type', 'application/json')
        return json.load(urllib.request.urlopen(request))

    def report(self, model, epochs):
        self.post('/v1/models/' + model['id'], key=model['key'], body={
            'type': 'metrics',
            'metrics': {str(epoch): json.dumps(values) for epoch, values in epochs.items()}})

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Below:
    """A server that has a HUB below one of its paths."""

    def __init__(self, path, port):
        class Handler(http.server.BaseHTTPRequestHandler):
            def pass_on(self):
                length = int(self.headers.get('Content-Length', 0))
                link = http.client.HTTPConnection('127.0.0.1', port)
                link.request(self.command, self.path.removeprefix(path), self.rfile.read(length), dict(self.headers))
                reply = link.getresponse()
                self.send_response(reply.status)
                for name, value in reply.getheaders():
                    if name.lower() not in ('transfer-encoding', 'content-length', 'connection'):
                        self.send_header(name, value)
                self.end_headers()
                while piece := reply.read1():
                    self.wfile.write(piece)

            def do_GET(self):
                try:
                    self.pass_on() if self.path.startswith(path) else self.send_error(404)
                except OSError:
                    pass  # the page went on to something else

            do_POST = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self.server.server_address[1]}{path}'

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()


class World:
    """A HUB with a short silence, a browser, and whatever else has to end with the tests."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix='hub_session-browser-'))
        self.trainings = []
        self.hub = Hub(self.folder / 'data', '--silence', '2')
        self.browser = Browser(self.folder)

    def train(self, environment, model, *flags):
        process = subprocess.Popen(
            [TRAIN, '--model', model, '--out', str(self.folder / 'out'), '--metrics-interval', '0.1',
             '--checkpoint-interval', '0.2', '--heartbeat-interval', '0.3', *flags],
            env={**os.environ, **environment, 'YOLO_CONFIG_DIR': str(self.folder / 'settings')},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.trainings.append(process)
        return process

    def close(self):
        for each in self.trainings:
            each.kill()
            each.wait()
        self.browser.close()
        self.hub.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


# ---- what a new user does, step by step ----------------------------------------------------------

def makes_a_model(world):
    page = world.browser
    page.open(world.hub.url)
    page.wait_text('No model yet')
    page.wait_text('live', '#live')
    page.click('#new-model')
    page.type('input[name=name]', 'spirals')
    page.type('input[name=epochs]', '100000')
    page.type('input[name=data]', "it's $(data).yaml")
    for name, value in (('batch', '8'), ('imgsz', '320'), ('patience', '7'), ('device', '0,1')):
        page.type(f'input[name={name}]', value)
    page.click('dialog button.main')
    page.wait_text('Train it')
    page.wait_text('spirals', 'h1')
    shown = page.text('details')
    world.environment = dict(re.findall(r'export (\w+)=(\S+)', page.text('details pre')))
    assert world.environment['ULTRALYTICS_HUB_API'] == world.hub.url
    assert len(world.environment['ULTRALYTICS_API_KEY']) == 42
    world.model = page.js('return location.pathname').rsplit('/', 1)[1]
    assert f'session{{"{world.hub.url}/models/{world.model}"}}' in shown
    assert f'yolo train model={world.hub.url}/models/{world.model}' in shown
    assert f'export ULTRALYTICS_PLATFORM_URL={world.hub.url}\n' in shown
    assert 'session{{.project = "local", .name = "spirals", .epochs = 100000}};' in shown
    assert "'data=it'\\''s $(data).yaml'" in shown, shown  # which a shell does not run
    args = world.hub.get(f'/api/models/{world.model}')['train_args']
    assert (args['batch'], args['imgsz'], args['patience'], args['device']) == (8, 320, 7, '0,1'), args
    page.shot('new')


def epochs_drawn(page):
    return int(page.js('return document.querySelector("[data-epochs]")?.dataset.epochs ?? 0'))


def sees_the_chart_grow(world):
    page = world.browser
    world.training = world.train(world.environment, world.model, '--epoch-seconds', '0.05')
    wait_for('the first epochs', lambda: epochs_drawn(page) >= 2)
    before = epochs_drawn(page)
    wait_for('more epochs', lambda: epochs_drawn(page) >= before + 5)
    page.wait_text('training', '.state')
    assert page.js('return document.querySelectorAll(".chart canvas").length') >= 3
    assert 'train/loss' in page.text('.charts') and 'val/loss' in page.text('.charts')
    page.wait_text('epoch-', '#main')
    for time_of in ('began ', ' for an epoch', ' left'):
        page.wait_text(time_of, '.tiles')
    page.wait_text('Heartbeats', '#main')
    table = urllib.request.urlopen(f'{world.hub.url}/api/models/{world.model}/metrics.csv').readline()
    assert table.startswith(b'epoch,time,seconds,"'), table
    page.click('.brand')
    page.wait_text('1 in training')
    page.wait_text('epoch ', '.models')
    page.wait_text(' left', '.models')
    assert re.search(r', \d+ (s|min)\b', page.text('.models .times')), page.text('.models .times')
    page.shot('growing')
    page.click('.model')
    wait_for('the charts again', lambda: epochs_drawn(page) >= before)


def reads_values_with_the_keyboard(world):
    page = world.browser
    page.js('document.querySelector(".chart canvas").focus()')
    page.keys('\ue011')  # Home
    page.wait_text('epoch 1', '.chart')
    page.keys('\ue014')  # the right arrow
    page.wait_text('epoch 2', '.chart')
    label = page.js('return document.querySelector(".chart canvas").getAttribute("aria-label")')
    assert 'epoch 2: ' in label and 'metrics/accuracy_top1 0.' in label, label
    page.click('#log')
    page.js('const s = document.getElementById("smoothing"); s.value = 0.8;'
            's.dispatchEvent(new Event("input"))')
    page.js('document.querySelector("[aria-label=Metrics] details summary").click()')
    page.wait_text('train/accuracy', '[aria-label=Metrics] table')


def reads_values_with_the_pointer(world):
    page = world.browser
    wait_for('an epoch in the middle', lambda: epochs_drawn(page) >= 10)
    page.hover('.chart canvas')

    def epoch_shown():
        found = re.search(r'epoch (\d+)', page.text('.chart'))
        return found and int(found[1]) >= 4
    wait_for('its values', epoch_shown)


def sees_a_training_that_is_killed(world):
    page = world.browser
    world.training.kill()
    world.training.wait()
    page.wait_text('disconnected since', '.state')
    beats = 'return document.querySelector("svg.beats")?.getAttribute("aria-label") ?? ""'
    wait_for('the gap among the heartbeats', lambda: re.search(r'with [1-9]\d* gaps', page.js(beats)))
    page.click('.brand')
    page.wait_text('disconnected since', '.models')
    page.shot('disconnected')


def takes_the_model_out(world):
    page = world.browser
    page.click('.model')
    link = 'a[href$="files/best.pt"]'
    world.train(world.environment, world.model, '--epochs', '3').wait()
    page.wait_text('trained', '.state')
    shown = page.js('return document.querySelector(arguments[0]).closest("tr").innerText',
                    wait_for(link, lambda: link if page.js(
                        'return !!document.querySelector(arguments[0])', link) else ''))
    page.click(link)
    file = world.browser.downloads / 'best.pt'
    wait_for('the download', lambda: file.exists() and file.stat().st_size > 0)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert digest in shown, (digest, shown)
    assert file.read_bytes() == (world.folder / 'out' / 'best.pt').read_bytes()
    page.click('a[href$="everything.zip"]')
    archive = world.browser.downloads / f'{world.model}.zip'
    wait_for('the archive', lambda: archive.exists() and zipfile.is_zipfile(archive))
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        assert opened.read(f'{world.model}/best.pt') == file.read_bytes()


def edits_resets_and_deletes(world):
    page = world.browser
    page.press('Edit')
    page.type('dialog [name=name]', 'renamed')
    page.type('dialog [name=project]', 'of browsers')
    page.type('dialog [name=tags]', 'night, 640')
    page.type('dialog [name=note]', 'two\nlines')
    page.click('dialog button.main')
    page.wait_text('renamed', 'h1')
    for label in ('of browsers', 'night', '640', 'two\nlines'):
        page.wait_text(label, '#main')
    page.press('Reset')
    assert_harmless_focus(page)
    page.click('dialog button.bad')
    page.wait_text('new', '.state')
    page.wait_text('No epoch has been reported yet.')
    page.press('Delete')
    assert_harmless_focus(page)
    page.wait_text('renamed', 'dialog h2')
    page.keys('\ue007')  # Enter, which deletes nothing
    wait_for('no dialog', lambda: not page.text('dialog'))
    page.press('Delete')
    page.click('dialog button.bad')
    page.wait_text('No model yet')
    page.press('Undo')
    page.wait_text('renamed', '.models')
    page.click('.model')
    page.press('Delete')
    page.wait_text('0 checkpoints', 'dialog')
    page.click('dialog button.bad')
    page.wait_text('Deleted, and kept for a day: 1')
    page.click('details.card summary')
    page.press('Delete for good')
    assert_harmless_focus(page)
    page.click('dialog button.bad')
    wait_for('an empty trash', lambda: world.hub.get('/api/trash')['trash'] == [])
    assert world.hub.get('/api/models')['models'] == []


def assert_harmless_focus(page):
    assert page.js('return document.activeElement.innerText') == 'Cancel'


def no_name_brings_markup(world):
    page = world.browser
    model = world.hub.post('/api/models', {'name': EVIL, 'data': EVIL, 'start': EVIL})
    world.hub.post('/v1/agent/heartbeat/models/' + model['id'], {'agent': EVIL, 'agentId': EVIL},
                   model['key'])
    world.hub.report(model, {0: {EVIL: 1, 'train/' + EVIL: 2, '__proto__': 3, 'constructor': 4}})
    try:
        world.hub.report(model, {EVIL: {}})
    except urllib.error.HTTPError as refused:
        assert refused.code == 400
    page.open(world.hub.url)
    page.wait_text(EVIL, '.models .name')
    page.click('.model')
    page.wait_text(EVIL, 'h1')
    page.wait_text('train/' + EVIL, '.charts')
    titles = page.js('return [...document.querySelectorAll(".chart h3")].map((h) => h.innerText)')
    assert '__proto__' in titles and 'constructor' in titles, titles
    page.wait_text('no JSON object', '#main')
    page.js('document.querySelector("[aria-label=Metrics] details summary").click()')
    page.wait_text(EVIL, '[aria-label=Metrics] table')
    assert page.js('return document.querySelectorAll("main img, main script").length') == 0
    assert 'owned' != page.js('return document.title')
    world.hub.post(f"/api/models/{model['id']}/reset", {})


def fits_a_phone(world):
    page = world.browser
    long = 'a' * 40
    model = world.hub.post('/api/models', {'name': long, 'data': long, 'start': long, 'device': long})
    world.hub.post('/v1/agent/heartbeat/models/' + model['id'], {'agent': long, 'agentId': long},
                   model['key'])
    world.hub.report(model, {0: {'metrics/' + long: 1, 'train/' + long: 2, 'model/' + long: 3}})
    for width, dark in ((390, False), (390, True), (360, False)):
        page.emulate(width=width, height=780, dark=dark)
        for path in ('/', '/models/' + model['id'], '/keys'):
            page.open(world.hub.url + path)
            page.wait_text('live', '#live')
            page.wait_text('Keys' if path == '/keys' else long)
            wide = page.js('return document.documentElement.scrollWidth')
            assert wide <= width, f'{path} is {wide} pixels wide'
            page.shot(f'phone{path.replace("/", "-")[:7]}{"-dark" if dark else ""}')
    page.emulate()


def counts_epochs_in_one_way(world):
    page = world.browser
    model = world.hub.post('/api/models', {'name': 'counted', 'epochs': 60})
    world.hub.report(model, {epoch: {'metrics/mAP50-95(B)': 0.5 if epoch == 28 else 0.1}
                             for epoch in range(60)})
    page.open(f'{world.hub.url}/models/{model["id"]}')
    page.wait_text('60 of 60')
    page.wait_text('epoch 29', '.tiles')
    page.js('document.querySelector(".chart canvas").focus()')
    page.keys('\ue010')  # End
    page.wait_text('epoch 60', '.chart')
    page.js('document.querySelector("[aria-label=Metrics] details summary").click()')
    page.wait_text('60', '[aria-label=Metrics] tbody tr')
    table = urllib.request.urlopen(f'{world.hub.url}/api/models/{model["id"]}/metrics.csv').read()
    epochs = [line.split(b',')[0] for line in table.split(b'\r\n')[1:-1]]
    assert epochs == [str(epoch).encode() for epoch in range(1, 61)], epochs


def axis_labels(page, selector, alignment):
    """Pairs of a label and where it stands, "center" along the chart, "right" beside it."""
    at = 1 if alignment == 'center' else 2
    return [(label[0], label[at]) for label in page.labels(selector) or [] if label[3] == alignment]


def labels_its_axes_exactly(world):
    """Every label of an axis says the number of the place where it stands."""
    page = world.browser
    cases = ((10, 0, 7.5), (4, 0, 10), (11, 0, 1e-4), (38, 1000.125, 1000.75), (3, -3, 2.5e7))
    for i, (epochs, low, high) in enumerate(cases):
        model = world.hub.post('/api/models', {'name': f'axes {i}', 'epochs': epochs})
        world.hub.report(model, {epoch: {'val/x': low + (high - low) * epoch / (epochs - 1)}
                                 for epoch in range(epochs)})
        page.open(f'{world.hub.url}/models/{model["id"]}')
        wait_for('the chart', lambda: page.labels('.chart canvas'))
        for axis in ('right', 'center'):
            found = [(float(label), place) for label, place in axis_labels(page, '.chart canvas', axis)]
            assert len(found) >= 3, found
            (first, from_), (last, to) = found[0], found[-1]
            for number, place in found:
                there = first + (last - first) * (place - from_) / (to - from_)
                assert abs(there - number) < 1e-3 * abs(last - first), found


def shares_events_between_tabs(world):
    """A browser opens six connections to a host; an event stream for each tab would use them up."""
    page = world.browser
    first = page.send('GET', '/window')
    tabs = []
    for _ in range(8):
        tabs.append(page.send('POST', '/window/new', {'type': 'tab'})['handle'])
        page.send('POST', '/window', {'handle': tabs[-1]})
        page.open(world.hub.url)
        page.wait_text('live', '#live')
    made = world.hub.post('/api/models', {'name': 'seen in every tab'})
    for tab in tabs:
        page.send('POST', '/window', {'handle': tab})
        page.wait_text('seen in every tab', '.models')
        page.send('DELETE', '/window')
    page.send('POST', '/window', {'handle': first})
    page.open(world.hub.url)
    page.wait_text('live', '#live')
    page.wait_text('seen in every tab', '.models')


def made_runs(world, count, project, epochs=40):
    """Runs with a metric that is the better the later they are made."""
    runs = []
    for i in range(count):
        run = world.hub.post('/api/models', {'name': f'{project} {i}', 'epochs': epochs, 'imgsz': 320 * (i + 1)})
        world.hub.report(run, {epoch: {'metrics/mAP50-95(B)': (i + 1) * epoch / 100, 'val/loss': 9 - i - epoch / 9}
                               for epoch in range(epochs)})
        world.hub.send('PATCH', '/api/models/' + run['id'],
                       {'project': project, 'tags': [f'{project}-{i}'], 'note': f'note of {project} {i}'})
        runs.append(run)
    return runs


def sorts_by_any_column(world, names):
    """What is not known comes last, whichever way round."""
    page = world.browser
    rows = {row['name']: row for row in world.hub.get('/api/models')['models']}
    columns = page.js('return [...document.querySelectorAll("[data-sort]")].map((each) => each.dataset.sort)')
    assert columns == ['state', 'name', 'epoch', 'best', 'began', 'took', 'last'], columns
    for column in ('epoch', 'began', 'took', 'last'):
        for direction in (-1, 1):
            page.js('document.querySelector(`[data-sort=${arguments[0]}]`).click()', column)
            known = lambda: [direction * rows[name][column] for name in names() if rows[name][column] is not None]
            wait_for(f'the order of {column}', lambda: known() == sorted(known()) and
                     all(rows[name][column] is None for name in names()[len(known()):]))
    assert len(known()) == 1, 'one of them has a heartbeat'


def finds_sorts_and_groups_models(world):
    page = world.browser
    made_runs(world, 3, 'apples')
    beating = made_runs(world, 2, 'pears', epochs=20)[1]

    def took():
        world.hub.post('/v1/agent/heartbeat/models/' + beating['id'], {'agent': 'here', 'agentId': 'a'}, beating['key'])
        return world.hub.get('/api/models/' + beating['id'])['took']
    wait_for('one that takes a second', took)
    page.open(world.hub.url)
    page.wait_text('pears 1', '.models')
    names = lambda: page.all('.models .name')
    page.choose('#search', 'APPLES-2')
    wait_for('the one that has this tag', lambda: names() == ['apples 2'])
    page.choose('#search', 'note of pears')
    page.choose('#state', 'trained')
    page.wait_text('No model is like this')
    page.choose('#state', 'disconnected')
    wait_for('those with this note, once both are silent', lambda: sorted(names()) == ['pears 0', 'pears 1'])
    page.choose('#state', '')
    page.choose('#search', 'note')
    sorts_by_any_column(world, names)
    page.js('document.querySelector("[data-sort=name]").click()')
    order = [f'apples {i}' for i in range(3)] + [f'pears {i}' for i in range(2)]
    wait_for('names in order', lambda: names() == order)
    page.js('document.querySelector("[data-sort=name]").click()')
    wait_for('names the other way round', lambda: names() == order[::-1])
    page.js('document.querySelector("[data-sort=best]").click()')
    wait_for('the best one first', lambda: names()[0] == 'apples 2')
    page.choose('#group', True)
    page.wait_text('apples', '.models h2')
    page.open(page.js('return location.href'))  # what is chosen is in the address
    wait_for('the same list', lambda: page.all('.models h2') == ['apples', 'pears'] and names()[0] == 'apples 2')
    page.shot('grouped')
    page.js('document.querySelector(".entry input").focus()')
    page.keys(' ')
    page.wait_text('Choose none', '#main')
    page.keys('\ue004', '\ue007')  # the next one is its link: Tab, Enter
    page.wait_text('apples 2', 'h1')


def inks(page, canvas, from_, to, least=200, most=255):
    """The strong colours, as opaque as that, in a part of a canvas's height: 0 is its top, 1 its bottom."""
    return page.js("""const [canvas, from, to, least, most] = [document.querySelector(arguments[0]), ...arguments[1]];
        if (!canvas?.height) return [];
        const [begin, end] = [from, to].map((share) => Math.round(share * canvas.height));
        const {data} = canvas.getContext("2d").getImageData(0, begin, canvas.width, end - begin), found = new Set();
        for (let i = 0; i < data.length; i += 4) {
          const ink = [...data.slice(i, i + 3)];
          if (data[i + 3] >= least && data[i + 3] <= most && Math.max(...ink) - Math.min(...ink) > 90)
            found.add(ink.join());
        }
        return [...found].map((ink) => ink.split(",").map(Number))""", canvas, [from_, to, least, most])


def compares_runs(world):
    page = world.browser
    page.open(world.hub.url + '/?q=apples&sort=name')
    wait_for('the runs', lambda: len(page.all('.models .name')) == 3)
    for i in (0, 2):
        page.click(f'.entry:nth-child({i + 1}) input')
    page.wait_text('Compare 2', '#compare')
    page.click('#compare')
    compared = lambda: int(page.js('return document.querySelector("[data-runs]")?.dataset.runs ?? 0'))
    wait_for('both runs', lambda: compared() == 2)
    page.choose('#add-run', page.js("""return [...document.querySelectorAll("#add-run option")]
        .find((each) => each.innerText === "apples 1").value"""))
    wait_for('a third one', lambda: compared() == 3)
    assert sorted(page.all('.chart h3')) == ['metrics/mAP50-95(B)', 'val/loss']
    colors = page.js("""return [...document.querySelectorAll(".chart .legend .swatch")].slice(0, 3)
        .map((each) => getComputedStyle(each).backgroundColor)""")
    assert len(set(colors)) == 3, colors
    page.js('document.querySelector(".chart canvas").focus()')
    page.keys('\ue011', '\ue014')
    page.wait_text('epoch 2', '.chart')
    legend = page.all('.chart:first-child .legend li')
    assert sorted(legend) == ['apples 0\n0.0100', 'apples 1\n0.0200', 'apples 2\n0.0300'], legend
    page.hover('.chart canvas')
    page.wait_text('epoch', '.chart .tools')
    epoch = int(re.search(r'epoch (\d+)', page.text('.chart .tools'))[1])
    legend = page.all('.chart:first-child .legend li b')
    assert 10 < epoch < 30 and legend == [f'{i * (epoch - 1) / 100:.4f}' for i in (1, 3, 2)], (epoch, legend)
    row = lambda label: page.js("""return [...document.querySelector(`[aria-label="${arguments[0]}"] tbody tr`).cells]
        .map((each) => each.innerText + (each.querySelector("b") ? "!" : ""))""", label)
    assert row('Best values') == ['metrics/mAP50-95(B)', '0.3900', '1.170!', '0.7800'], row('Best values')
    assert row('Arguments that differ') == ['imgsz', '320', '960', '640'], row('Arguments that differ')
    page.shot('compare')
    page.emulate(dark=True)
    wait_for('the colours of the dark', lambda: [143, 155, 255] in inks(page, '.chart canvas', 0, 1))
    page.emulate(width=390, height=780, dark=True)
    wide = page.js('return document.documentElement.scrollWidth')
    assert wide <= 390, f'a comparison is {wide} pixels wide'
    page.shot('phone-compare-dark')
    page.emulate()
    page.open(page.js('return location.href'))
    wait_for('the same runs', lambda: compared() == 3)
    page.click('.runs li:first-child button')
    wait_for('one less', lambda: compared() == 2)
    page.click('.brand')
    page.open(world.hub.url + '/?q=apples&group=project')
    page.press_link('Compare them')
    wait_for('the whole project', lambda: compared() == 3)


def zooms_and_keeps_what_is_chosen(world):
    page = world.browser
    run = made_runs(world, 1, 'zoomed', epochs=100)[0]
    page.open(f'{world.hub.url}/models/{run["id"]}')
    chart = '.chart canvas'
    wait_for('the chart', lambda: page.labels(chart))
    places = lambda: [float(label) for label, _ in axis_labels(page, chart, 'center')]
    assert places()[-1] == 100, places()
    page.drag(chart, -40, 0, 40)
    wait_for('a part of it', lambda: 25 <= places()[0] and places()[-1] <= 75)
    page.choose('#log', True)
    page.choose('#smoothing', '0.6')
    before = page.labels(chart)
    page.open(page.js('return location.href'))
    wait_for('the same picture', lambda: page.labels(chart) == before)
    assert page.js('return document.getElementById("smoothing").value') == '0.6'
    page.press('Whole range')
    wait_for('all of it', lambda: places()[-1] == 100)
    page.choose('#axis', 'time')
    wait_for('times', lambda: all(re.fullmatch(r'[\d.]+ (s|min|h|d)', label)
                                  for label, _ in axis_labels(page, chart, 'center')))
    assert 'x=time' in page.js('return location.search')
    page.hover(chart)
    page.wait_text('after', '.chart')


def smooths_and_takes_logarithms(world):
    """What is smoothed leaves the line that it is made of to be seen, faintly."""
    page = world.browser
    run = world.hub.post('/api/models', {'name': 'noise', 'epochs': 40})
    world.hub.report(run, {epoch: {'val/x': 100 if epoch % 2 else 1} for epoch in range(40)})
    page.open(f'{world.hub.url}/models/{run["id"]}')
    chart = '.chart canvas'
    strong = lambda: bool(inks(page, chart, 0, 0.2))
    faint = lambda: bool(inks(page, chart, 0, 0.2, 50, 90))
    wait_for('a line up to the top', strong)
    page.choose('#smoothing', '0.9')
    wait_for('it becomes faint', lambda: not strong() and faint())
    assert inks(page, chart, 0.3, 0.7), 'the smoothed line is in the middle'
    page.choose('#smoothing', '0')
    page.choose('#log', True)

    def is_logarithmic():
        found = [(float(label), place) for label, place in axis_labels(page, chart, 'right')]
        if len(found) < 4 or any(value <= 0 for value, _ in found):
            return False
        (low, below), *between, (high, above) = [(math.log10(value), place) for value, place in found]
        return all(abs(low + (high - low) * (place - below) / (above - below) - value) < 1e-3
                   for value, place in between)
    wait_for('logarithms', is_logarithmic)


def takes_a_chart_out(world):
    page = world.browser
    page.press_labelled('Numbers of loss')
    numbers = page.downloaded('loss.csv').read_text().split()
    assert numbers[0] == 'seconds,"val/loss"' and len(numbers) > 1, numbers
    page.choose('#axis', 'epoch')
    page.press_labelled('Numbers of Metrics')
    numbers = page.downloaded('Metrics.csv').read_text().split()
    assert numbers[:3] == ['epoch,"metrics/mAP50-95(B)"', '1,0', '2,0.01'] and len(numbers) == 101, numbers
    page.press_labelled('Picture of loss')
    assert page.downloaded('loss.png').read_bytes().startswith(b'\x89PNG')


def shows_many_lines(world):
    page = world.browser
    run = world.hub.post('/api/models', {'name': 'many classes', 'epochs': 20})
    classes = [f'ap/class_{i:04}' for i in range(1200)]
    world.hub.report(run, {epoch: {'metrics/mAP50-95(B)': epoch / 20, 'lr/pg0': 1,
                                   **{name: (epoch + i % 9) / 40 for i, name in enumerate(classes)}}
                           for epoch in range(20)})
    page.open(f'{world.hub.url}/models/{run["id"]}')
    wait_for('the charts', lambda: len(page.all('.chart')) == 3)
    heights = page.js('return [...document.querySelectorAll(".chart")].map((each) => each.offsetHeight)')
    assert max(heights) < 500, heights
    assert len(set(heights)) > 1, f'neighbours keep their height: {heights}'
    many = '.chart:nth-child(2)'
    assert page.text(f'{many} h3') == 'ap'
    assert len(page.all(f'{many} .legend li')) <= 60
    page.wait_text('of 1200 lines', many)
    page.choose(f'{many} .legend-tools input', 'class_0777')
    wait_for('the one that was searched', lambda: len(page.all(f'{many} .legend li')) == 1)
    drawn = lambda: page.js('return document.querySelector(arguments[0])?.getAttribute("aria-label") ?? ""',
                            f'{many} canvas')
    page.js('document.querySelector(arguments[0]).dispatchEvent(new MouseEvent("click", {shiftKey: true}))',
            f'{many} .legend button')
    wait_for('that one alone', lambda: 'last: ap/class_0777 0.5500. Arrow' in drawn())
    page.open(page.js('return location.href'))
    wait_for('that one alone after a reload', lambda: 'last: ap/class_0777 0.5500. Arrow' in drawn())
    page.choose(f'{many} .legend-tools input', 'class_0777')
    page.click(f'{many} .legend button')
    wait_for('none', lambda: 'last: . Arrow' in drawn())
    page.open(page.js('return location.href'))
    wait_for('none after a reload', lambda: 'last: . Arrow' in drawn())
    page.press('All')
    wait_for('all', lambda: 'ap/class_0000' in drawn())
    page.click(f'{many} .legend li:first-child button')
    wait_for('one is hidden', lambda: 'last: ap/class_0001' in drawn())
    page.open(page.js('return location.href'))
    wait_for('it is after a reload', lambda: 'last: ap/class_0001' in drawn())
    hidden = '&'.join(f'hide.ap={each}' for each in classes[100:260])
    page.open(page.js('return location.href.split("?")[0]') + '?' + hidden)
    wait_for('160 are hidden', lambda: page.all(f'{many} .legend li') and 'ap/class_0000' in drawn())
    page.js('document.querySelectorAll(`${arguments[0]} .legend button`).forEach((each) => each.click())', many)
    wait_for('60 more are', lambda: 'last: ap/class_0060' in drawn())
    search = page.js('return location.search')
    assert 'hide' not in search, f'an address has an end: {search}'
    page.press('All')
    page.choose('#find', 'learning')
    wait_for('one chart', lambda: page.all('.chart h3') == ['Learning rate'])
    page.press_labelled('Pin Learning rate')
    page.choose('#find', '')
    wait_for('it comes first', lambda: page.all('.chart h3') == ['Learning rate', 'Metrics', 'ap'])
    page.open(page.js('return location.href'))
    wait_for('it still does', lambda: page.all('.chart h3') == ['Learning rate', 'Metrics', 'ap'])
    page.shot('many')


def leaves_gaps(world):
    """Between two values no line is drawn where there is none: neither over a missing value nor over epochs that were
    never reported. A value between two gaps is a dot."""
    page = world.browser
    run = world.hub.post('/api/models', {'name': 'gaps', 'epochs': 100})
    world.hub.report(run, {epoch: {'val/whole': 1, **({'val/holes': 1} if not 20 <= epoch < 40 or epoch == 30 else {})}
                           for epoch in range(100) if not 60 <= epoch < 80})
    page.open(f'{world.hub.url}/models/{run["id"]}')
    wait_for('the charts', lambda: len(page.all('.chart')) == 2 and page.labels('.chart:last-child canvas'))
    # Which epochs have a pixel of a line's colour above them.
    inked = lambda chart: page.js("""const canvas = document.querySelector(arguments[0]);
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        const [[first, from], [last, to]] = arguments[1], seen = [];
        for (let epoch = 1; epoch <= 100; ++epoch) {
          const x = Math.round(from + (to - from) * (epoch - first) / (last - first));
          for (let y = 0; y < canvas.height; ++y) {
            const [r, g, b, a] = data.slice(4 * (y * canvas.width + x));
            if (a > 100 && Math.max(r, g, b) - Math.min(r, g, b) > 60) { seen.push(epoch); break; }
          }
        }
        return seen;""", chart, [(int(label), place) for label, place in (
            lambda found: (found[0], found[-1]))(axis_labels(page, chart, 'center'))])
    holes, whole = inked('.chart:first-child canvas'), inked('.chart:last-child canvas')
    missing = set(range(1, 101)) - set(whole)
    assert set(range(62, 80)) <= missing <= set(range(61, 81)), missing
    missing = set(range(1, 101)) - set(holes)
    assert set(range(22, 30)) | set(range(33, 40)) <= missing, missing
    assert {19, 31, 42} <= set(holes), holes


class Run:
    """A training by a client of the Platform."""

    def __init__(self, hub, key, name, epochs):
        self.hub, self.key = hub, key
        said = self.tell('training_started', {
            'trainArgs': {'data': EVIL, 'imgsz': '640'}, 'epochs': epochs, 'device': 'cpu',
            'environment': {'hostname': 'gpu-7', 'command': EVIL}}, project='runs', name=name)
        self.id, self.run_id = said['modelId'], said['runId']

    def tell(self, event, data, **envelope):
        request = urllib.request.Request(
            self.hub.url + '/api/webhooks/training/metrics', method='POST',
            data=json.dumps({'event': event, 'data': data, **(envelope or {'modelId': self.id})}).encode())
        request.add_header('Content-Type', 'application/json')
        request.add_header('Authorization', 'Bearer ' + self.key)
        return json.load(urllib.request.urlopen(request))

    def epoch(self, number):
        system = {'cpu': 40 + number, 'ram': 30, 'disk': [{'mount': '/', 'used_gb': 10, 'total_gb': 90}],
                  'gpus': {'0': {'usage': 90, 'memory': 50, 'temp': 60 + number, 'power': 200}}}
        return self.tell('epoch_end', {'epoch': number, 'metrics': {'train/loss': 1 / (number + 1)},
                                       'system': system, 'fitness': 0.5, 'best_fitness': 0.5})

    def print(self, chunk, *lines):
        self.tell('console_output', {'chunkId': chunk, 'content': '\n'.join(lines), 'lineCount': len(lines)})


def shows_a_run(world):
    page = world.browser
    key = world.hub.post('/api/keys', {'name': 'runs'})['platform_key']
    run = Run(world.hub, key, 'shown', 5)
    page.open(f'{world.hub.url}/models/{run.id}')
    page.wait_text('shown', 'h1')
    page.wait_text('gpu-7', '#main')
    page.wait_text(EVIL, '#main')
    assert page.js("""return [...document.querySelectorAll("dl.args div")].map((each) => each.innerText)""") \
        .count('imgsz\n640') == 1, 'its arguments'
    assert 'Heartbeats' not in page.text('#main') and 'Last event' in page.text('.tiles')
    run.epoch(0)
    run.print(1, f'\x1b[31mred\x1b[0m {EVIL}', '\x1b]0;title\x07\x1b[2Kplain\x1b[38;5;208m orange')
    page.wait_text('plain orange', '.console')
    assert f'red {EVIL}' in page.text('.console')
    color = lambda text: page.js("""const it = [...document.querySelectorAll(".console span")]
        .find((each) => each.innerText.trim() === arguments[0]);
        return getComputedStyle(it).color""", text)
    assert len({color('red'), color('plain'), color('orange')}) == 3
    run.print(3, *(f'line {i}' for i in range(100)), 'the last one')
    page.wait_text('the last one', '.console')
    run.print(2, 'a late one')
    page.wait_text('plain orange\na late one\nline 0', '.console')
    bottom = 'const it = document.querySelector(".console"); return it.scrollHeight - it.clientHeight - it.scrollTop'
    wait_for('it to follow', lambda: page.js(bottom) < 2)
    page.choose('#console-search', 'LATE')
    wait_for('the line that is searched', lambda: page.text('.console') == 'a late one')
    page.choose('#console-search', '')
    page.js('document.querySelector(".console").scrollTop = 40')
    wait_for('it to stay where a person reads', lambda: not page.js('return document.querySelector("#follow").checked'))
    run.print(4, 'the very last one')
    page.wait_text('the very last one', '.console')
    assert page.js('return document.querySelector(".console").scrollTop') == 40
    page.click('#follow')
    wait_for('it to follow again', lambda: page.js(bottom) < 2)
    for epoch in (1, 2):
        run.epoch(epoch)
    titles = lambda: page.js('return [...document.querySelectorAll(".chart h3")].map((each) => each.innerText)')
    wait_for('its machine', lambda: 'GPU temperature, °C' in titles() and 'Disk, GB' in titles())
    assert page.js('return document.querySelectorAll("main img, main script").length') == 0
    page.wait_text('3 of 5', '.tiles')
    page.press('Stop')
    assert_harmless_focus(page)
    page.wait_text('epoch 3 of 5', 'dialog')
    page.click('dialog button.bad')
    page.wait_text('stopping', '.state')
    assert run.epoch(3)['cancelled']
    page.wait_text('stopping', '.state')
    points = [i / 10 for i in range(11)]
    run.tell('training_complete', {
        'results': {'metrics': {'metrics/mAP50-95(B)': 0.4}, 'bestEpoch': 3, 'bestFitness': 0.4,
                    'validation': {'population': 900, 'sampling': 'f1_rank',
                                   'rows': [[f'images/{i}.jpg', i, 0, 1] for i in range(40)],
                                   'extremes': {'worst': [], 'best': []}}},
        'classNames': ['cat', EVIL], 'runId': run.run_id,
        'plots': [{'type': 'pr_curve', 'x': points, 'y': [[1 - x for x in points]] * 2, 'ap': [0.5, 0.25]},
                  {'type': 'f1_curve', 'x': points, 'y': [[4 * x * (1 - x) for x in points]] * 2},
                  {'type': 'confusion_matrix', 'matrix': [[8, 1, 0], [2, 9, 3], [1, 0, 0]]}]})
    page.wait_text('trained', '.state')
    wait_for('its curves', lambda: 'Precision over recall' in titles() and 'F1 over confidence' in titles())
    page.wait_text('cat, AP 0.5000', '[aria-label=Results]')
    cells = page.js("""return [...document.querySelectorAll(".matrix tbody tr")]
        .map((row) => [...row.cells].map((cell) => cell.innerText))""")
    assert cells == [['cat', '8', '1', '0'], [EVIL, '2', '9', '3'], ['background', '1', '0', '0']], cells
    page.wait_text('images/9.jpg', '#main')
    assert 'images/39.jpg' not in page.text('#main')
    page.press('More')
    page.wait_text('images/39.jpg', '#main')
    assert page.js('return document.querySelectorAll("main img, main script").length') == 0
    page.shot('run')
    page.emulate(width=390, height=780)
    wide = page.js('return document.documentElement.scrollWidth')
    assert wide <= 390, f'a run is {wide} pixels wide'
    page.emulate()


def makes_and_revokes_keys(world):
    page = world.browser
    page.open(world.hub.url)
    page.click('header .keys')
    page.wait_text('Keys', 'h1')
    page.click('#new-key')
    page.type('dialog input', 'laptop')
    page.click('dialog button.main')
    page.wait_text('laptop', 'table')
    ours, others = (dict(re.findall(r'^export (\w+)=(\S+)$', lines, re.M)) for lines in page.all('pre'))
    key = ours['ULTRALYTICS_API_KEY']
    assert re.fullmatch('ul[0-9a-f]{40}', key), key
    assert others == {'ULTRALYTICS_PLATFORM_URL': world.hub.url, 'ULTRALYTICS_API_KEY': 'ul_' + key[2:]}, others
    assert ours['ULTRALYTICS_HUB_API'] == ours['ULTRALYTICS_HUB_WEB'] == world.hub.url, ours
    is_good = lambda: world.hub.post('/v1/auth', {}, key)['success']
    assert is_good()
    page.js("""[...document.querySelectorAll("tr")].find((each) => each.cells[0].innerText === "laptop")
        .querySelector("button").click()""")
    page.wait_text('laptop', 'dialog h2')
    assert_harmless_focus(page)
    page.click('dialog button.bad')
    wait_for('it is gone', lambda: 'laptop' not in page.text('table'))
    assert not is_good()


def works_below_a_path(world):
    """Behind a server that has it at /some/where/, and takes that away before it asks."""
    page = world.browser
    with Below('/some/where', world.hub.port) as below:
        page.open(below.url + '/')
        page.wait_text('live', '#live')
        page.wait_text('gaps', '.models')
        page.choose('#search', 'gaps')
        page.click('.model')
        page.wait_text('gaps', 'h1')
        assert page.js('return location.pathname').startswith('/some/where/models/')
        lines = page.js('return document.querySelector("details").textContent')
        assert f'export ULTRALYTICS_HUB_API={below.url}\n' in lines
        page.open(page.js('return location.href'))
        page.wait_text('live', '#live')
        page.wait_text('gaps', 'h1')
        page.click('header .keys')
        page.wait_text('Keys', 'h1')
        page.open(page.js('return location.href') + '/')
        page.wait_text('Keys', 'h1')
        page.click('.brand')
        page.wait_text('Models', 'h1')


def draws_ten_thousand_epochs(world):
    page = world.browser
    model = world.hub.post('/api/models', {'name': 'long', 'epochs': 10000})
    names = [f'{place}/{kind}_loss' for place in ('train', 'val') for kind in ('box', 'cls', 'dfl')]
    names += [f'part_{i}/value' for i in range(74)]
    for first in range(0, 10000, 500):
        world.hub.report(model, {epoch: {name: 1 / (epoch + i + 1) for i, name in enumerate(names)}
                                 for epoch in range(first, first + 500)})
    page.open(world.hub.url + '/?q=long')
    page.wait_text('long', '.models')
    # From the click to the frame that shows them; the figures are printed, not judged.
    took = page.send('POST', '/execute/async', {'args': [model['id']], 'script': '''
        const done = arguments[1], start = performance.now();
        document.querySelector(`a[href$="/models/${arguments[0]}"]`).click();
        const look = () => {
          if (document.querySelector("[data-epochs]")?.dataset.epochs === "10000")
            requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
          else requestAnimationFrame(look);
        };
        look();'''})
    print(f'10,000 epochs of {len(names)} metrics are drawn {took:.0f} ms after the click')
    wait_for('the chart', lambda: page.labels('.chart canvas'))
    moved = page.send('POST', '/execute/async', {'args': [], 'script': '''
        const done = arguments[0], start = performance.now(), canvas = document.querySelector(".chart canvas");
        let count = 0;
        const move = () => {
          const left = canvas.getBoundingClientRect().left;
          canvas.dispatchEvent(new PointerEvent("pointermove", {clientX: left + 60 + count}));
          if (++count < 30) requestAnimationFrame(move);
          else done((performance.now() - start) / count);
        };
        move();'''})
    print(f'with the pointer on a chart, a frame takes {moved:.0f} ms')
    assert epochs_drawn(page) == 10000


def compares_long_runs(world):
    """Four of 10,000 epochs and 80 metrics: all are drawn, and a key on one chart is read in all of them."""
    page = world.browser
    names = [f'part_{i}/value' for i in range(80)]
    runs = [world.hub.post('/api/models', {'name': f'long {i}', 'epochs': 10000}) for i in range(4)]
    for i, run in enumerate(runs):
        for first in range(0, 10000, 500):
            world.hub.report(run, {epoch: {name: (i + 1) / (epoch + at + 1) for at, name in enumerate(names)}
                                   for epoch in range(first, first + 500)})
    began = time.monotonic()
    page.open(world.hub.url + '/compare?' + '&'.join(f'runs={run["id"]}' for run in runs))
    wait_for('the runs', lambda: page.js('return document.querySelector("[data-runs]")?.dataset.runs') == '4')
    wait_for('the charts', lambda: page.labels('.chart canvas'))
    used = page.js('return performance.memory.usedJSHeapSize') >> 20
    print(f'4 runs of 10,000 epochs and 80 metrics are drawn after {time.monotonic() - began:.1f} s, with {used} MiB')
    assert len(page.all('.chart')) == 80
    page.js('document.querySelector(".chart canvas").focus()')
    page.keys('\ue011')
    page.wait_text('epoch 1', '.chart')
    assert len(page.all('.chart:first-child .legend li')) == 4
    page.wait_text('epoch 1', '.chart:nth-child(2)')
    page.keys('\ue014')
    page.wait_text('epoch 2', '.chart:nth-child(2)')


def shows_values_as_they_arrive(world):
    page = world.browser
    model = world.hub.post('/api/models', {'name': 'live', 'epochs': 10})
    page.open(f'{world.hub.url}/models/{model["id"]}')
    page.wait_text('live', '#live')
    world.hub.report(model, {0: {'train/loss': 0.5}})
    began = time.monotonic()
    wait_for('the first value', lambda: epochs_drawn(page) == 1)
    print(f'a value is drawn {(time.monotonic() - began) * 1000:.0f} ms after it was confirmed')


def says_when_the_hub_is_gone(world):
    page = world.browser
    port = world.hub.port
    world.hub.process.send_signal(signal.SIGKILL)
    world.hub.process.wait()
    page.wait_text('The HUB has not answered since', '#gone')
    page.wait_text('no connection', '#live')
    page.shot('gone')
    world.hub = Hub(world.folder / 'data', '--silence', '2', port=port)
    page.wait_text('live', '#live')
    wait_for('no banner', lambda: page.js('return document.getElementById("gone").hidden'))


def asks_for_a_key(world):
    page = world.browser
    said = subprocess.run([LOCAL_HUB, 'keys', 'make', 'laptop', '--data', str(world.folder / 'other')],
                          check=True, capture_output=True, text=True).stdout
    made = re.search(r'\bul_?[0-9a-f]{40}\b', said)[0]
    other = Hub(world.folder / 'other', '--page-needs-key')
    try:
        page.open(other.url)
        page.wait_text('asks for a key', 'dialog')
        page.press('Cancel')
        page.wait_text('not signed in', '#live')
        page.press('Sign in')
        page.type('dialog input', 'wrong')
        page.click('dialog button.main')
        page.wait_text('does not know the key', 'dialog')
        page.type('dialog input', made)
        page.click('dialog button.main')
        page.wait_text('No model yet')
        page.wait_text('live', '#live')
        subprocess.run([LOCAL_HUB, 'keys', 'revoke', 'laptop', '--data', str(world.folder / 'other')],
                       check=True)
        page.wait_text('asks for a key', 'dialog')
    finally:
        other.stop()


# ---- the whole way of a new user, with both protocols ---------------------------------------------

def walks_as_a_new_user(world):
    """The lines that the page shows, in a shell; two trainings side by side, compared; the HUB is killed; Stop."""
    page, epochs = world.browser, 400
    # The Platform takes a hundred requests a minute, of which a session that says more makes use: then its end
    # would wait for the next minute.
    fast = ['--epoch-seconds', '0.05', '--metrics-interval', '0.1', '--checkpoint-interval', '0.2']
    slow = ['--epoch-seconds', '0.5', '--metrics-interval', '1.5', '--checkpoint-interval', '10']
    hub = Hub(world.folder / 'walked')
    out = {each: world.folder / f'walked-{each}' for each in ('model', 'run')}

    def paste(lines, command, folder):
        process = subprocess.Popen(
            ['sh', '-c', lines + '\nexec "$0" "$@"', TRAIN, *command, '--out', str(folder),
             '--heartbeat-interval', '0.3'],
            env={**os.environ, 'YOLO_CONFIG_DIR': str(world.folder / 'settings')},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        world.trainings.append(process)
        return process
    try:
        page.open(hub.url)
        page.press('Make the first model')
        page.type('dialog [name=name]', 'one arm')
        page.type('dialog [name=epochs]', str(epochs))
        page.click('dialog button.main')
        page.wait_text('one arm', 'h1')
        lines, _, example = page.all('details pre')[:3]
        model = paste(lines, [*shlex.split(example)[1:], *fast], out['model'])
        page.click('header .keys')
        page.click('#new-key')
        page.type('dialog input', 'laptop')
        page.click('dialog button.main')
        page.wait_text('laptop', 'table')
        run = paste(page.all('pre')[1],
                    ['--platform', 'spirals', '--name', 'two arms', '--epochs', '100000', *slow], out['run'])

        page.open(hub.url + '/?sort=name')
        wait_for('both in training', lambda: page.all('.models .state') == ['training', 'training'])
        for i in (1, 2):
            page.click(f'.entry:nth-child({i}) input')
        page.click('#compare')
        accuracy = lambda: page.js("""return [...document.querySelectorAll(".chart")]
            .find((each) => each.querySelector("h3").title === "metrics/accuracy_top1")?.innerText ?? "" """)
        wait_for('both in one chart', lambda: len(re.findall(r'arms?\n0\.\d+|arms?\n1$', accuracy(), re.M)) == 2)
        page.shot('walked')

        hub.process.send_signal(signal.SIGKILL)
        hub.process.wait()
        page.wait_text('no connection', '#live')
        hub = Hub(world.folder / 'walked', port=hub.port)
        page.wait_text('live', '#live')
        rows = lambda: {'run' if 'run' in row else 'model': row for row in hub.get('/api/models')['models']}
        before = rows()
        wait_for('both to go on', lambda: all(rows()[each]['epoch'] > before[each]['epoch'] for each in out))

        page.open(f'{hub.url}/models/{before["run"]["id"]}')
        page.press('Stop')
        page.click('dialog button.bad')
        wait_for('the run to end', lambda: run.poll() is not None)
        page.wait_text('trained', '.state')
        earlier = set(page.downloads.glob('best*.pt'))
        page.click('a[href$="files/best.pt"]')
        found = wait_for('the model', lambda: next(iter(set(page.downloads.glob('best*.pt')) - earlier), None))
        assert run.returncode == 0 and found.read_bytes() == (out['run'] / 'best.pt').read_bytes()
        while model.poll() is None:  # as long as that takes, where it goes on
            reached = rows()['model']['epoch']
            wait_for('the other one to go on, or to end',
                     lambda: model.poll() is not None or rows()['model']['epoch'] > reached)
        assert model.returncode == 0

        ended = rows()
        assert ended['model']['epoch'] == epochs and ended['run']['epoch'] < 100000, ended
        for each in out:
            table = urllib.request.urlopen(f'{hub.url}/api/models/{ended[each]["id"]}/metrics.csv').read().split()
            assert [int(line.split(b',')[0]) for line in table[1:]] == list(range(1, ended[each]['epoch'] + 1)), table
        chunks = hub.get(f'/api/models/{ended["run"]["id"]}/console')['chunks']
        said = re.findall(r'\bepoch (\d+) of 100000: ', '\n'.join(each['content'] for each in chunks))
        assert said == [str(epoch) for epoch in range(1, ended['run']['epoch'] + 1)], said
    finally:
        hub.stop()


def nothing_was_complained_about(world):
    # A HUB that was killed or that refuses a key is a failed request, and meant to be one.
    ours = [each for each in world.browser.complaints()
            if 'Failed to load resource' not in each and 'ERR_' not in each]
    assert ours == [], ours


STEPS = [makes_a_model, sees_the_chart_grow, reads_values_with_the_keyboard,
         reads_values_with_the_pointer, sees_a_training_that_is_killed, takes_the_model_out,
         edits_resets_and_deletes, no_name_brings_markup, fits_a_phone,
         counts_epochs_in_one_way, labels_its_axes_exactly, shares_events_between_tabs,
         finds_sorts_and_groups_models, compares_runs, zooms_and_keeps_what_is_chosen,
         takes_a_chart_out, smooths_and_takes_logarithms, shows_many_lines, leaves_gaps, shows_a_run,
         makes_and_revokes_keys, works_below_a_path,
         draws_ten_thousand_epochs, compares_long_runs, shows_values_as_they_arrive, says_when_the_hub_is_gone,
         asks_for_a_key,
         walks_as_a_new_user, nothing_was_complained_about]


def main():
    passed = failed = 0
    world = World()
    try:
        for step in [each for each in STEPS if not WANTED or each.__name__ in WANTED]:
            try:
                step(world)
                passed += 1
                print('ok  ', step.__name__.replace('_', ' '), flush=True)
            except Exception:
                failed += 1
                print('FAIL', step.__name__.replace('_', ' '), flush=True)
                traceback.print_exc()
                world.browser.shot('failed-' + step.__name__)
    finally:
        world.close()
    print(f'{passed} passed, {failed} failed')
    return failed != 0


sys.exit(main())
