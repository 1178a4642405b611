# SPDX-License-Identifier: MIT
#
# local_hub behind nginx, below a path and behind TLS: whole trainings of both kinds, the page's live
# stream, and the page in a real browser (webdriver.py), where there is one. Called by tests/nginx.sh
# with the programs' paths. Two HUBs stand behind the same nginx: one whose nginx passes everything on
# as it came, and one whose nginx takes the path off and says so. Whatever is waited for has a deadline.
#
# The last line is `N passed, N failed`.

import hashlib
import http.cookiejar
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from webdriver import Browser, wait_for

LOCAL_HUB, TRAIN = sys.argv[1:3]
PATIENCE_S = 60
KEY = 'ul_' + '0123456789abcdef' * 2 + '01234567'

# Everything is buffered that may be, so that what is to be live comes only where the HUB says so.
CONFIGURATION = '''
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/bodies;
  proxy_temp_path {folder}/replies;
  fastcgi_temp_path {folder}/unused;
  uwsgi_temp_path {folder}/unused;
  scgi_temp_path {folder}/unused;
  proxy_buffering on;
  proxy_buffer_size 512k;
  proxy_buffers 8 512k;
  proxy_busy_buffers_size 1m;
  gzip on;
  gzip_proxied any;
  gzip_types *;
  client_max_body_size 0;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/certificate.pem;
    ssl_certificate_key {folder}/key.pem;
    location /hub/ {{
      proxy_pass http://127.0.0.1:{ports[0]};
    }}
    location /user/ann/proxy/8100/ {{
      proxy_pass http://127.0.0.1:{ports[1]}/;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Prefix /user/ann/proxy/8100;
    }}
  }}
}}
'''


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


class World:
    """An nginx with two HUBs behind it, and whatever else has to end with the tests."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix='hub_session-nginx-'))
        self.processes = []
        self.browser = None
        self.make_certificate()
        self.port = free_port()
        self.url = f'https://127.0.0.1:{self.port}'
        self.hubs = [
            Hub(self, '/hub', '--base-path', '/hub', '--public-url', self.url + '/hub',
                '--page-needs-key'),
            Hub(self, '/user/ann/proxy/8100', '--trusted-proxy', '127.0.0.1')]
        self.start_nginx()

    def make_certificate(self):
        subprocess.run(
            ['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1',
             '-nodes', '-days', '2', '-subj', '/CN=localhost',
             '-addext', 'subjectAltName=IP:127.0.0.1',
             '-keyout', self.folder / 'key.pem', '-out', self.folder / 'certificate.pem'],
            check=True, stderr=subprocess.DEVNULL)
        self.tls = ssl.create_default_context(cafile=self.folder / 'certificate.pem')

    def start_nginx(self):
        text = CONFIGURATION.format(folder=self.folder, port=self.port,
                                    ports=[each.port for each in self.hubs])
        (self.folder / 'nginx.conf').write_text(text)
        nginx = self.start(['nginx', '-p', str(self.folder), '-c', str(self.folder / 'nginx.conf')])
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if nginx.poll() is not None:
                raise AssertionError('nginx ended by itself; see above')
            with socket.socket() as probe:
                if probe.connect_ex(('127.0.0.1', self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError('nginx does not listen')

    def start(self, words, **how):
        process = subprocess.Popen(words, **how)
        self.processes.append(process)
        return process

    def train(self, *flags, environment):
        out = tempfile.mkdtemp(dir=self.folder)
        settings = {'SSL_CERT_FILE': str(self.folder / 'certificate.pem'), 'YOLO_CONFIG_DIR': out}
        process = self.start([TRAIN, '--out', out, '--metrics-interval', '0.05', *flags],
                             env={**os.environ, **settings, **environment},
                             stdout=open(Path(out) / 'log', 'w'), stderr=subprocess.STDOUT)
        process.out = Path(out)
        return process

    def close(self):
        if self.browser:
            self.browser.close()
        for each in self.processes:
            each.kill()
            each.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Hub:
    """A local_hub, as a browser sees it through nginx: with its cookies, and the origin of its page."""

    def __init__(self, world, path, *flags):
        self.world = world
        self.url = world.url + path
        data = str(world.folder / path.replace('/', '-'))
        self.process = world.start(
            [LOCAL_HUB, '--data', data, '--port', '0', '--quiet', '--api-key', KEY, *flags],
            stdout=subprocess.PIPE, text=True)
        listening = next(line for line in self.process.stdout if 'listening on' in line)
        self.port = int(re.search(r':(\d+)', listening.split('//')[1])[1])
        self.cookies = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(self.cookies),
            urllib.request.HTTPSHandler(context=world.tls))

    def open(self, path, body=None, method=None):
        request = urllib.request.Request(self.url + path, method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header('Content-Type', 'application/json')
            request.add_header('Origin', self.world.url)
        return self.opener.open(request, timeout=PATIENCE_S)

    def get(self, path):
        return json.load(self.open(path))

    def post(self, path, body):
        return json.load(self.open(path, body, 'POST'))

    def sign_in(self):
        self.post('/api/sign-in', {'key': KEY})

    def events(self):
        """Each event of the live stream as (name, value); one that is held back times out."""
        name = None
        for line in self.open('/api/events'):
            if line.startswith(b'event: '):
                name = line[7:].strip().decode()
            elif line.startswith(b'data: '):
                yield name, json.loads(line[6:])

    def wait_for_row(self, events, what, condition):
        """The first row of which this is true."""
        deadline = time.monotonic() + PATIENCE_S
        for name, value in events:
            if name == 'row' and condition(value):
                return value
            if time.monotonic() > deadline:
                break
        raise AssertionError(f'waited in vain: {what}')


def status_of(act):
    try:
        return act().status
    except urllib.error.HTTPError as refused:
        return refused.code


def check_end(process, code=0):
    ended = process.wait(PATIENCE_S)
    assert ended == code, f'train ended with {ended}:\n{(process.out / "log").read_text()[-2000:]}'


# ---- what is done at each of the HUBs ------------------------------------------------------------

def signs_in_for_its_own_path(world, hub):
    assert status_of(lambda: hub.open('/api/models')) == 401
    hub.sign_in()
    assert status_of(lambda: hub.open('/api/models')) == 200
    cookie = next(iter(hub.cookies))
    assert cookie.secure, 'it would be sent without TLS'
    assert hub.url.endswith(cookie.path.removesuffix('/api')), cookie.path
    assert status_of(lambda: hub.open('/api/trash', {}, 'POST')) == 404, 'the page counts as another'


def shows_its_page(world, hub):
    page = hub.open('/models/x').read().decode()
    for each in re.findall(r'(?:src|href)="([^"]*page/[^"]*)"', page):
        assert each.startswith('../page/'), each
        assert hub.open(urllib.parse.urljoin('/models/x', each)).status == 200
    assert hub.open('').url == hub.url + '/', 'without its slash, the page finds nothing'


def trains_on_the_platforms_wire_and_is_stopped_live(world, hub):
    events = hub.events()
    environment = {'ULTRALYTICS_PLATFORM_URL': hub.url, 'ULTRALYTICS_API_KEY': KEY}
    train = world.train('--platform', 'spirals', '--epochs', '100000', '--epoch-seconds', '0.1',
                        environment=environment)
    row = hub.wait_for_row(events, 'epochs while they come',
                           lambda row: row['state'] == 'training' and (row['epoch'] or 0) > 2)
    assert train.poll() is None
    hub.post(f'/api/models/{row["id"]}/stop', {})
    hub.wait_for_row(events, 'its end', lambda row: row['state'] == 'trained')
    check_end(train)
    check_file(hub, row['id'], train.out / 'best.pt')


def trains_on_hubs_wire(world, hub):
    made = hub.post('/api/models', {'name': 'mine', 'epochs': 5})
    environment = {'ULTRALYTICS_HUB_API': hub.url, 'ULTRALYTICS_API_KEY': made['key']}
    train = world.train('--model', f'{hub.url}/models/{made["id"]}', environment=environment)
    check_end(train)
    row = hub.get(f'/api/models/{made["id"]}')
    assert (row['state'], row['epoch']) == ('trained', 5), row
    check_file(hub, made['id'], train.out / 'best.pt')


def resumes_from_what_it_is_handed(world, hub):
    made = hub.post('/api/models', {'name': 'again', 'epochs': 100000})
    environment = {'ULTRALYTICS_HUB_API': hub.url, 'ULTRALYTICS_API_KEY': made['key']}
    events = hub.events()
    train = world.train('--model', made['id'], '--checkpoint-interval', '0.05',
                        '--epoch-seconds', '0.1', environment=environment)
    path = f'/api/models/{made["id"]}'
    hub.wait_for_row(events, 'a checkpoint', lambda row: hub.get(path)['checkpoints'])
    train.terminate()
    train.wait(PATIENCE_S)
    epochs = hub.get(path)['epoch'] + 2
    again = world.train('--model', made['id'], '--resume', '--epochs', str(epochs),
                        environment=environment)
    check_end(again)
    assert 'Going on after epoch ' in (again.out / 'log').read_text()
    assert hub.get(path)['epoch'] == epochs


def is_used_in_a_browser(world, hub):
    """A model is made, trained, taken out and deleted; what comes is shown without a reload."""
    page = world.browser = world.browser or Browser(world.folder, '--ignore-certificate-errors')
    page.open(hub.url + '/')
    page.wait_text('asks for a key', 'dialog')
    page.type('dialog input', KEY)
    page.click('dialog button.main')
    page.wait_text('live', '#live')
    page.click('#new-model')
    page.type('input[name=name]', 'by hand')
    page.click('dialog button.main')
    page.wait_text('by hand', 'h1')
    address = page.js('return location.href')
    assert address.startswith(hub.url + '/models/'), address
    environment = dict(re.findall(r'export (\w+)=(\S+)', page.text('details pre')))
    assert environment['ULTRALYTICS_HUB_API'] == hub.url, environment
    train = world.train('--model', address, '--epochs', '20', '--epoch-seconds', '0.1',
                        environment=environment)
    drawn = 'return Number(document.querySelector("[data-epochs]")?.dataset.epochs ?? 0)'
    wait_for('epochs while they come', lambda: page.js(drawn) > 2)
    assert train.poll() is None, 'they came all at once'
    check_end(train)
    page.wait_text('trained', '.state')
    page.click('a[href$="files/best.pt"]')
    file = page.downloaded('best.pt')
    assert file.read_bytes() == (train.out / 'best.pt').read_bytes()
    file.unlink()
    page.press('Delete')
    page.click('dialog button.bad')
    page.press('Undo')
    page.wait_text('by hand', '.models')


def check_file(hub, model, file):
    sent = hub.open(f'/api/models/{model}/files/best.pt').read()
    assert hashlib.sha256(sent).digest() == hashlib.sha256(file.read_bytes()).digest()


CHECKS = [signs_in_for_its_own_path, shows_its_page,
          trains_on_the_platforms_wire_and_is_stopped_live, trains_on_hubs_wire,
          resumes_from_what_it_is_handed]
if shutil.which('chromedriver'):
    CHECKS.append(is_used_in_a_browser)


def main():
    passed = failed = 0
    world = World()
    try:
        for hub in world.hubs:
            for check in CHECKS:
                name = f'{check.__name__} at {hub.url.removeprefix(world.url)}'
                try:
                    check(world, hub)
                    print(f'ok {name}', flush=True)
                    passed += 1
                except Exception:
                    traceback.print_exc()
                    print(f'FAILED: {name}\n  again: sh tests/nginx.sh', flush=True)
                    failed += 1
    finally:
        world.close()
    print(f'{passed} passed, {failed} failed')
    sys.exit(failed > 0)


main()
