# SPDX-License-Identifier: MIT
#
# A real browser: headless Chromium, driven through chromedriver's WebDriver protocol with nothing but
# the standard library. Whatever is waited for is a condition with a deadline; nothing sleeps for a fixed
# time.

import base64
import http.client
import json
import os
import re
import subprocess
import time
from pathlib import Path

SHOTS = Path(os.environ['SCREENSHOTS']) if 'SCREENSHOTS' in os.environ else None
PATIENCE_S = 60
ELEMENT = 'element-6066-11e4-a52e-4f735466cecf'  # what WebDriver calls a reference to an element

# A canvas is pixels; so that its text can be read, each keeps what it was given since it was cleared.
KEEP_LABELS = '''
    const pen = CanvasRenderingContext2D.prototype, fill = pen.fillText;
    const size = Object.getOwnPropertyDescriptor(HTMLCanvasElement.prototype, "width");
    Object.defineProperty(HTMLCanvasElement.prototype, "width", {...size, set(value) {
      this.labels = [];
      size.set.call(this, value);
    }});
    pen.fillText = function (text, x, y) {
      (this.canvas.labels ??= []).push([text, x, y, this.textAlign]);
      fill.apply(this, arguments);
    };'''


def wait_for(what, condition):
    """Returns what the condition returns as soon as that is something."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f'waited in vain: {what}')
        time.sleep(0.02)


class Unsteady(AssertionError):
    """The element is no longer in the page, or something is in front of it for the moment."""

    KINDS = ('stale element reference', 'element click intercepted', 'element not interactable')


class Browser:
    """One window. `js` runs a function's body in the page and returns what it returns."""

    def __init__(self, folder, *flags):
        self.driver = subprocess.Popen(['chromedriver', '--port=0'], stdout=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL, text=True)
        for line in self.driver.stdout:
            found = re.search(r'started successfully on port (\d+)', line)
            if found:
                break
        self.port = int(found[1])
        self.downloads = folder / 'downloads'
        arguments = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic',
                     '--no-first-run', '--disable-background-networking',
                     '--disable-component-update', '--disable-sync', '--window-size=1280,900',
                     f'--user-data-dir={folder / "profile"}', *flags]
        options = {'args': arguments,
                   'prefs': {'download.default_directory': str(self.downloads)}}
        wanted = {'capabilities': {'alwaysMatch': {'browserName': 'chrome',
                                                   'goog:loggingPrefs': {'browser': 'ALL'},
                                                   'goog:chromeOptions': options}}}
        self.path = ''
        self.path = '/session/' + self.send('POST', '/session', wanted)['sessionId']
        self.command('Page.addScriptToEvaluateOnNewDocument', {'source': KEEP_LABELS})

    def send(self, method, path, body=None):
        link = http.client.HTTPConnection('127.0.0.1', self.port, timeout=PATIENCE_S)
        link.request(method, self.path + path, json.dumps(body) if body is not None else None)
        said = json.loads(link.getresponse().read())['value']
        link.close()
        if isinstance(said, dict) and 'error' in said:
            kind = Unsteady if said['error'] in Unsteady.KINDS else AssertionError
            raise kind(f"{said['error']}: {said['message'][:300]}")
        return said

    def command(self, name, params):
        return self.send('POST', '/goog/cdp/execute', {'cmd': name, 'params': params})

    def open(self, url):
        self.send('POST', '/url', {'url': url})

    def js(self, body, *arguments):
        return self.send('POST', '/execute/sync', {'script': body, 'args': list(arguments)})

    def text(self, selector='body'):
        return self.js('return document.querySelector(arguments[0])?.innerText ?? ""', selector)

    def wait_text(self, part, selector='body'):
        return wait_for(f'{part!r} in {selector}', lambda: part in self.text(selector))

    def find(self, selector):
        found = wait_for(selector, lambda: self.send(
            'POST', '/elements', {'using': 'css selector', 'value': selector}))
        return found[0][ELEMENT]

    def act(self, selector, action):
        """Does something with an element. The page is live, and may put another one in its place."""
        def done():
            try:
                element = self.find(selector)
                # The driver scrolls as little as it can, which may be to below the bar at the top.
                self.js('arguments[0].scrollIntoView({block: "center"})', {ELEMENT: element})
                action(element)
            except Unsteady:
                return False
            return True
        wait_for(f'{selector} to stay', done)

    def click(self, selector):
        self.act(selector, lambda element: self.send('POST', f'/element/{element}/click', {}))

    def choose(self, selector, value):
        """Sets a field, as a person does."""
        def action(element):
            self.js("""const [node, value] = arguments;
                if (node.type === "checkbox") node.checked = value;
                else node.value = value;
                for (const each of ["input", "change"]) node.dispatchEvent(new Event(each));""",
                    {ELEMENT: element}, value)
        self.act(selector, action)

    def all(self, selector):
        """What the elements that are to be seen say."""
        return self.js("""return [...document.querySelectorAll(arguments[0])]
            .filter((each) => each.offsetParent).map((each) => each.innerText)""", selector)

    def downloaded(self, pattern):
        return wait_for(f'a download {pattern}', lambda: next(
            (each for each in self.downloads.glob(pattern) if each.stat().st_size), None))

    def press(self, label):
        """Clicks the button that says this; one in a dialog comes first."""
        def found():
            return self.js("""const all = [...document.querySelectorAll("button")].filter((each) => each.offsetParent);
                const it = all.find((each) => each.innerText === arguments[0] && each.closest("dialog"))
                  ?? all.find((each) => each.innerText === arguments[0]);
                it?.click();
                return !!it;""", label)
        wait_for(f'a button {label!r}', found)

    def press_labelled(self, label):
        self.act(f'[aria-label="{label}"]', lambda element: self.send('POST', f'/element/{element}/click', {}))

    def press_link(self, label):
        wait_for(f'a link {label!r}', lambda: self.js("""const it = [...document.querySelectorAll("a")]
            .find((each) => each.innerText === arguments[0]);
            it?.click();
            return !!it;""", label))

    def type(self, selector, text):
        def action(element):
            self.send('POST', f'/element/{element}/clear', {})
            self.send('POST', f'/element/{element}/value', {'text': text})
        self.act(selector, action)

    def keys(self, *keys):
        actions = [{'type': kind, 'value': key} for key in keys for kind in ('keyDown', 'keyUp')]
        self.send('POST', '/actions', {'actions': [{'type': 'key', 'id': 'k', 'actions': actions}]})

    def hover(self, selector):
        """Moves the pointer to the middle of an element."""
        self.drag(selector, 0)

    def drag(self, selector, *places):
        """Moves the pointer to places left and right of an element's middle, pressed where there are several."""
        def action(element):
            move = lambda x: {'type': 'pointerMove', 'duration': 0, 'x': x, 'y': 0,
                              'origin': {ELEMENT: element}}
            press = lambda kind: {'type': kind, 'button': 0}
            rest = [press('pointerDown'), *map(move, places[1:]), press('pointerUp')]
            self.send('POST', '/actions', {'actions': [
                {'type': 'pointer', 'id': 'p', 'parameters': {'pointerType': 'mouse'},
                 'actions': [move(places[0]), *(rest if len(places) > 1 else [])]}]})
        self.act(selector, action)

    def labels(self, selector):
        """What a canvas has as text: [text, x, y, alignment] each."""
        return self.js('return arguments[0].labels', {ELEMENT: self.find(selector)})

    def emulate(self, width=1280, height=900, dark=False):
        run = self.command
        run('Emulation.setDeviceMetricsOverride', {'width': width, 'height': height,
                                                   'deviceScaleFactor': 1, 'mobile': width < 600})
        run('Emulation.setEmulatedMedia', {'features': [
            {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}]})

    def shot(self, name):
        if SHOTS:
            (SHOTS / f'{name}.png').write_bytes(base64.b64decode(self.send('GET', '/screenshot')))

    def complaints(self):
        log = self.send('POST', '/se/log', {'type': 'browser'})
        return [each['message'] for each in log if each['level'] == 'SEVERE']

    def close(self):
        try:
            self.send('DELETE', '')
        finally:
            self.driver.terminate()
            self.driver.wait()
