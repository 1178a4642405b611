# SPDX-License-Identifier: MIT
#
# python3 tests/tidy.py [--can-fail]
#
# What the house keeps to and no compiler checks: the contents page names the rooms, each room obeys
# the rules of its banner, a function fits a screen, no macro leaks, the version is the same wherever
# it stands, no file is forgotten. Takes a second. What is found is said as FILE:LINE: what is wrong;
# what to do. The last line is `N passed, N failed`, in rules.
#
# With --can-fail each rule is shown a copy of the tree that breaks it, and has to say so.

import fnmatch
import functools
import os
import re
import sys

header = 'hub_session.hpp'
function_lines_max = 60
test_case_lines_max = 120  # a sentence and its table

# What a room may not do, as a pattern over its code without comments; and why, as the room puts it.
# Patterns marked `said` are looked for in the texts that it shows as well.
clock = r'\bnow\(\)'
files = r'\bfs::|\bfilesystem\b|\b[io]?fstream\b|\bfopen\b|\bstd::c(out|err|in)\b'
threads = r'\bstd::(thread|mutex|lock_guard|unique_lock|condition_variable)\b|\bsleep_(for|until)\b'
system_switch = r'^\s*#\s*(el)?if.*(_WIN32|__linux__|__APPLE__|__unix__|HUB_SESSION_(POSIX|WINDOWS))'
system_call = r'(?<![\w>:])::[a-z_]\w*\('
switch = r'^\s*#\s*(el)?if'
wire = r'\b(hub_v1|hub_v1_wire|platform|platform_wire|protocols)\b'

bans = {
    'configuration': [
        # But what <windows.h> calls a library, in what is declared in its place.
        ('a type', r'\b(class|struct)\b(?! HINSTANCE__)',
         'it sets switches and includes, and defines nothing'),
    ],
    'vocabulary': [
        ('a clock', r'\w\.now\(\)|::now\(\)', 'plain values are told the time'),
        ('I/O', r'\b[io]?fstream\b|\bfopen\b|\bstd::c(out|err|in)\b', 'plain values do nothing'),
        ('a switch', switch + r'(?!.*ADDS)', 'a value has one layout on every system'),
    ],
    'policies': [
        ('a clock', r'::now\(\)', 'a concept names operations; the default policies have them'),
        ('I/O', r'\b[io]?fstream\b|\bfopen\b|\bstd::c(out|err|in)\b', 'so does I/O'),
        ('a switch', switch + r'(?!.*ADDS)', 'a promise is the same on every system'),
    ],
    'engine': [
        ('a clock', clock, 'time comes in as an argument'),
        ('a lock or a thread', threads, 'the session holds its mutex around every call'),
        ('I/O', files.replace(r'|\bfilesystem\b', ''), 'it touches nothing: orders come out'),
        ('a wire', wire + r'|\b(request|reply|json|url)\b', 'orders and outcomes are all it shares'),
        ('a server by its name', r'said:\bHUB\b|\bPlatform\b', 'it serves any: say "the server"'),
        ('a switch', switch, 'the same calls give the same answers on every machine'),
    ],
    'text': [
        ('a clock', clock, 'these are pure functions'),
        ('I/O', files, 'these are pure functions'),
        ('the engine', r'\bengine\b|\blane\b', 'text knows nothing above it'),
        ('a wire', wire, 'text knows no server'),
        ('a server by its name', r'said:\bHUB\b|\bPlatform\b', 'text knows no server'),
        ('a switch', switch, 'text is the same on every system'),
    ],
    'protocols': [
        ('a clock', clock, 'time comes in as an argument'),
        ('I/O', files, 'what a protocol makes is sent by the session'),
        ('a thread', threads, 'these are pure functions'),
        ('the engine', r'\bengine\b', 'it is asked by the session alone'),
        ('the machine', r'\bmachine\b', 'what it knows comes in as an argument'),
        ('a switch', switch, 'a wire is the same on every system'),
    ],
    'machine': [
        ('the engine', r'\bengine\b|\blane\b', 'the machine knows nothing of what is sent'),
        ('a wire', wire, 'the machine knows nothing of what is sent'),
    ],
    'spool': [
        ('a request', r'\brequest\b|\breply\b', 'it keeps epochs, uploads and a text of the run'),
        ('a wire', wire, 'it keeps a run as the name of its protocol and a text'),
        ('the engine', r'\bengine\b', 'the session strikes out what the engine has done with'),
        ('a system', system_switch + '|' + system_call, 'system calls stand in the machine room'),
    ],
    'session': [
        ('parsing', r'\bjson\b|\bparse_json\b', "every byte's meaning is the protocol's"),
        ('a system', system_switch + '|' + system_call, 'system calls stand in the machine room'),
        ('the Platform', r'\bplatform(_wire)?\b', "what one protocol needs stands in its policy"),
    ],
    'default policies': [
        ('the engine', r'\bengine\b|\blane\b', 'a policy serves a session and does not know it'),
        ('the spool', r'\bspool\b', 'a policy serves a session and does not know it'),
    ],
    'test kit': [
        ('a clock', r'(steady|system)_clock::now', 'time is a number that advance() moves'),
        ('a thread', threads.replace('|unique_lock', ''), 'every step runs on the thread of the caller'),
        ('a system', system_switch + '|' + system_call, 'system calls stand in the machine room'),
        ('OpenSSL', r'\bSSL_|\bEVP_|\bhttplib\b', 'whoever tests needs neither it nor httplib'),
    ],
    'hygiene': [],
}

# Within the protocols, each keeps to itself.
namespace_bans = {
    'hub_v1_wire': r'\bplatform(_wire)?::',
    'platform_wire': r'\bhub_v1(_wire)?::',
    'storage_host': r'\b(platform|hub_v1)(_wire)?::',
}

# Examples are copied: what they show is what a user may write.
made_for_copying = ['examples/*.cpp', 'examples/*.hpp', 'examples/libtorch/*', 'examples/mpi/*']
not_for_copying = ['examples/local_hub.cpp']
not_for_users = r'\b(detail|machine|protocols|text|spool|hub_v1_wire|platform_wire)::'

with_licence = ['*.hpp', '*.cpp', '*.sh', '*.py', '*.js', '*.css', '*.html', '*.svg', '*.yml', '*.txt',
                'meson.build', '*CMakeLists.txt']
recorded = ['tests/data/*', 'tests/fuzz/corpus/*']


# ---- reading -------------------------------------------------------------------------------------

def matches(path, patterns):
    return any(fnmatch.fnmatch(path, each) for each in patterns)


# Every file that belongs to the project, as text, by its path.
def read_tree():
    tree = {}
    for folder, folders, names in os.walk('.'):
        folders[:] = [each for each in folders if each in ('.ci', '.github') or
                      not each.startswith(('.', 'build', 'subprojects', '__pycache__'))]
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), '.').replace(os.sep, '/')
            if matches(path, recorded) or name.endswith(('.png', '.pyc')) or name == '.git':
                continue
            with open(path, encoding='utf-8', newline='') as file:
                tree[path] = file.read()
    return tree


token = re.compile(r'''//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"'''
                   r'''|'(?:\\.|[^'\\\n])+'|`(?:\\.|[^`\\])*`''', re.S)


# The lines of C++ or JavaScript with blanks for comments and, unless they are asked for, no texts.
@functools.lru_cache(maxsize=None)
def code_of(text, with_texts=False):
    text = re.sub(r'^R"page\(|\)page"$', '', text, flags=re.M)
    text = re.sub(r"(?<=[0-9A-Fa-f])'(?=[0-9A-Fa-f])", '_', text)

    def blank(match):
        if match[0].startswith('/'):
            return re.sub(r'[^\n]', ' ', match[0])
        return match[0] if with_texts else re.sub(r'[^\n]', '"', match[0])
    return token.sub(blank, text).split('\n')


# The rooms of the header by name, each with its first and last line, counted from 1.
@functools.lru_cache(maxsize=None)
def rooms_of(text):
    lines = text.split('\n')
    rule = '// ' + '=' * 97
    begins = [(line.removeprefix('// '), number)
              for number, (above, line, below) in enumerate(zip(lines, lines[1:], lines[2:]), 2)
              if above == rule and below == '//']
    ends = [number - 2 for _, number in begins[1:]] + [len(lines)]
    return {name: (begin, end) for (name, begin), end in zip(begins, ends)}


# ---- rules: each yields (path, line, what is wrong and what to do) -------------------------------

def contents_equal_banners(tree):
    lines = tree[header].split('\n')
    begin = next((i for i, line in enumerate(lines) if line.startswith('// Contents:')), None)
    if begin is None:
        yield header, 1, 'there is no line "// Contents:"; the opening page lists the rooms below it'
        return
    listed = []
    for number, line in enumerate(lines[begin + 1:], begin + 2):
        if line == '//':
            break
        if match := re.match(r'//   (\w+(?: \w+)*)', line):
            listed.append((match[1], number))
    rooms = [('contents', 1), *((name, begin) for name, (begin, _) in rooms_of(tree[header]).items())]
    for (said, at), (stands, where) in zip(listed, rooms):
        if said != stands:
            yield header, at, (f'the contents say "{said}" where line {where} opens "{stands}"; let '
                               'them name the same rooms in the same order')
            return
    for name, at in listed[len(rooms):]:
        yield header, at, f'the contents name "{name}", which has no banner; write it or strike it out'
    for name, at in rooms[len(listed):]:
        yield header, at, f'the contents do not name "{name}"; add a line for it'


def banners_state_rules(tree):
    lines = tree[header].split('\n')
    for name, (begin, _) in rooms_of(tree[header]).items():
        if not lines[begin + 1].startswith('// Rules: '):
            yield header, begin, f'the banner of "{name}" does not go on with "// Rules: "'
        if name not in bans:
            yield header, begin, f'tests/tidy.py does not know the room "{name}"; write down its bans'


def rooms_keep_their_rules(tree):
    text = tree[header]
    for name, (begin, end) in rooms_of(text).items():
        for what, pattern, why in bans.get(name, []):
            said = pattern.startswith('said:')
            code = code_of(text, with_texts=said)
            for number in range(begin, end + 1):
                if found := re.search(pattern.removeprefix('said:'), code[number - 1]):
                    yield header, number, (f'{what} in the room "{name}", "{found[0].strip()}": {why}; '
                                           'move it, or hand it in')


def protocols_keep_apart(tree):
    code = code_of(tree[header])
    inside = None
    for number, line in enumerate(code, 1):
        if match := re.match(r'namespace (\w+) \{', line):
            inside = match[1] if match[1] in namespace_bans else inside
        elif line.startswith('}') and inside and tree[header].split('\n')[number - 1].endswith(inside):
            inside = None
        elif inside and (found := re.search(namespace_bans[inside], line)):
            yield header, number, (f'{inside} names "{found[0]}"; what two protocols share stands '
                                   'before both')


def includes_stand_in_configuration(tree):
    begin, end = rooms_of(tree[header])['configuration']
    for number, line in enumerate(tree[header].split('\n'), 1):
        if re.match(r'\s*#\s*include\b', line) and not begin <= number <= end:
            yield header, number, 'an include below the configuration; move it there, beside the others'


def blocks_of(code):
    text = '\n'.join(code)
    opened = []
    for brace in re.finditer(r'[{}]', text):
        if brace[0] == '{':
            opened.append(brace.start())
        elif opened:
            begin = opened.pop()
            first, last = text.count('\n', 0, begin) + 1, text.count('\n', 0, brace.start()) + 1
            if last - first >= function_lines_max - 10:
                head = re.split(r'[;{}]|\n\s*\n|\n#[^\n]*|(?:public|private|protected):',
                                text[:begin])[-1].strip()
                yield head, first - head.count('\n'), last


def functions_fit_a_screen(tree):
    for path, text in tree.items():
        if not path.endswith(('.hpp', '.cpp', '.js')):
            continue
        for head, first, last in blocks_of(code_of(text)):
            is_scope = re.search(r'\b(class|struct|union|enum|namespace)\b', head)
            is_list = head.endswith('=') or head == ''
            if (is_scope and not head.endswith(')')) or is_list:
                continue
            most = test_case_lines_max if re.match('(TEMPLATE_)?TEST_CASE', head) else function_lines_max
            if last - first + 1 > most:
                yield path, first, (f'a function of {last - first + 1} lines, where {most} fit a '
                                    'screen; give a part of it a name')


def macros_end_with_the_header(tree):
    defined = {}
    pushed = {}
    for number, line in enumerate(code_of(tree[header], with_texts=True), 1):
        if match := re.match(r'\s*#\s*(define|undef)\s+(\w+)', line):
            if match[1] == 'define':
                defined[match[2]] = number
            else:
                defined.pop(match[2], None)
        elif match := re.match(r'\s*#\s*pragma (push|pop)_macro\("(\w+)"\)', line):
            if match[1] == 'push':
                pushed[match[2]] = number
            else:
                pushed.pop(match[2], None)
    for name, number in defined.items():
        if not name.startswith('HUB_SESSION_'):
            yield header, number, f'the macro {name} does not begin with HUB_SESSION_; rename it'
        elif not re.match(r'HUB_SESSION_(VERSION(_\w+)?|HPP(_\w+)?_INCLUDED)$', name):
            yield header, number, f'the macro {name} outlives the header; undefine it in "hygiene"'
    for name, number in pushed.items():
        yield header, number, f'{name} is pushed and never popped; pop it in "hygiene"'


# Everything that says a version, against the macro HUB_SESSION_VERSION.
def versions_agree(tree):
    text = tree[header]
    version = re.search(r'#define HUB_SESSION_VERSION "(\d+)\.(\d+)\.(\d+)"', text)
    if not version:
        yield header, 1, 'there is no HUB_SESSION_VERSION "N.N.N"; everything else follows it'
        return
    major, minor, patch = version.groups()
    number = str(int(major) * 10000 + int(minor) * 100 + int(patch))
    whole = f'{major}.{minor}.{patch}'
    format_now = re.search(r'inline constexpr int format = (\d+);', text)
    places = [
        (header, r'#define HUB_SESSION_VERSION_MAJOR (\w+)', major),
        (header, r'#define HUB_SESSION_VERSION_MINOR (\w+)', minor),
        (header, r'#define HUB_SESSION_VERSION_PATCH (\w+)', patch),
        (header, r'#define HUB_SESSION_HPP_INCLUDED (\w+)', number),
        (header, r'HUB_SESSION_HPP_INCLUDED != (\w+)', number),
        (header, r'inline namespace (\w+) \{', f'v{major}_{minor}'),
        (header, r'\}  // namespace (v\d\w*)', f'v{major}_{minor}'),
        ('meson.build', r"version: '([\d.]+)'", whole),
        ('README.md', r'hub_session\.hpp ([\d.]+\d)', whole),
        ('README.md', r"journal's format is (\d+)", format_now[1] if format_now else '?'),
    ]
    for path, pattern, wanted in places:
        found = re.search(pattern, tree[path])
        if not found:
            yield path, 1, f'nothing like "{pattern}" says the version; it should say {wanted}'
        elif found[1] != wanted:
            yield path, tree[path].count('\n', 0, found.start()) + 1, (
                f'"{found[1]}" where HUB_SESSION_VERSION "{whole}" asks for "{wanted}"; let them agree')


def licence_is_named(tree):
    for path, text in tree.items():
        if matches(path, with_licence) and 'SPDX-License-Identifier: MIT' not in '\n'.join(
                text.split('\n')[:3]):
            yield path, 1, 'no "SPDX-License-Identifier: MIT" in its first lines; add it'


def nothing_is_put_off(tree):
    for path, text in tree.items():
        for number, line in enumerate(text.split('\n'), 1):
            if found := re.search(r'\b(TO[D]O|FIX[M]E|XX[X])\b', line):
                yield path, number, (f'{found[0]}: do it now, or say in a sentence what is not done '
                                     'and why')


# The limits that .editorconfig sets, the last section that fits a path being the one that counts.
def limits_of(tree):
    sections = []
    for line in tree['.editorconfig'].split('\n'):
        if match := re.match(r'\[(.*)\]$', line):
            sections = match[1].replace('**', '*').strip('*.{}').split(',')
            sections = [f'*.{each}' for each in sections] if ',' in match[1] else [match[1]]
        elif match := re.match(r'max_line_length = (\w+)$', line):
            for section in sections:
                yield section, sys.maxsize if match[1] == 'off' else int(match[1])


def lines_fit(tree):
    limits = list(limits_of(tree))
    for path, text in tree.items():
        most = [limit for pattern, limit in limits
                if fnmatch.fnmatch(path, pattern) or fnmatch.fnmatch(path, '*/' + pattern)][-1]
        lines = text.split('\n')
        if text and lines[-1] != '':
            yield path, len(lines), 'the last line does not end; end it'
        for number, line in enumerate(lines, 1):
            # A text that has a line for itself cannot be folded.
            if len(line) > most and not re.match(r'\s*"[^"]*"[;,)]*( \\)?$', line):
                yield path, number, f'{len(line)} characters, where .editorconfig allows {most}; fold it'
            if line != line.rstrip():
                yield path, number, 'white space at its end (or CR LF); take it away'


def examples_can_be_copied(tree):
    for path, text in tree.items():
        if not matches(path, made_for_copying) or matches(path, not_for_copying) or \
                path.startswith('examples/local_hub/') or not path.endswith(('.hpp', '.cpp')):
            continue
        for number, line in enumerate(code_of(text), 1):
            if found := re.search(not_for_users, line):
                yield path, number, (f'"{found[0]}" is not for users, and this file is made for '
                                     'copying; do without it')


# The files of the page, each with those that it takes something from.
def page_imports_have_no_circle(tree):
    taken = re.compile(r'''^(?:import|\}|export) ?.*\bfrom ['"](.+?)['"]''', re.M)
    takes = {path: {os.path.normpath(os.path.join(os.path.dirname(path), name)).replace(os.sep, '/')
                    for name in taken.findall(text)}
             for path, text in tree.items() if path.endswith('.js')}
    done = set()

    def circle_from(path, way):
        if path in way:
            return [*way[way.index(path):], path]
        if path in done:
            return None
        for other in sorted(takes.get(path, ())):
            if found := circle_from(other, [*way, path]):
                return found
        done.add(path)
        return None
    for path in sorted(takes):
        if found := circle_from(path, []):
            yield path, 1, (f'a circle of imports: {" -> ".join(map(os.path.basename, found))}; move '
                            'what both need into a file below them')
            return


def no_test_is_forgotten(tree):
    for path in tree:
        if re.match(r'tests/[^/]+\.cpp$', path) and f"'{path}'" not in tree['meson.build']:
            yield path, 1, 'no program of tests in meson.build has this file; add it, or delete the file'
        elif re.match(r'tests/[^/]+\.(sh|py)$', path) and \
                f'`{os.path.basename(path)}' not in tree['tests/README.md']:
            yield path, 1, 'tests/README.md does not say what this script is for; add a line'


rules = [contents_equal_banners, banners_state_rules, rooms_keep_their_rules, protocols_keep_apart,
         includes_stand_in_configuration, functions_fit_a_screen, macros_end_with_the_header,
         versions_agree, licence_is_named, nothing_is_put_off, lines_fit, examples_can_be_copied,
         page_imports_have_no_circle, no_test_is_forgotten]


# ---- that each can fail --------------------------------------------------------------------------

def in_room(name, line):
    def change(text):
        lines = text.split('\n')
        lines.insert(rooms_of(text)[name][1] - 3, line)
        return '\n'.join(lines)
    return change


def replaced(old, new):
    return lambda text: text.replace(old, new, 1)


def followed_by(more):
    return lambda text: text + more


long_function = 'void f() {\n' + '  g();\n' * function_lines_max + '}\n'

# What breaks a rule: the rule, the file, the change, and a word of what has to be said.
breakages = [
    (contents_equal_banners, header, replaced('//   spool     ', '//   spoon     '), '"spoon"'),
    (contents_equal_banners, header, replaced('\n// hygiene\n', '\n// cleaning\n'), '"cleaning"'),
    (contents_equal_banners, header, replaced('//   hygiene ', '//     hygiene '), '"hygiene"'),
    (contents_equal_banners, header, replaced('// Contents:', '// Rooms:'), 'Contents'),
    (banners_state_rules, header, replaced('// Rules: no clock', '// No clock'), '"engine"'),
    (protocols_keep_apart, header, replaced('namespace hub_v1_wire {', 'namespace hub_v1_wire {\nusing '
                                            'platform_wire::run;'), 'platform_wire::'),
    (protocols_keep_apart, header, replaced('namespace platform_wire {', 'namespace platform_wire {\n'
                                            'using hub_v1_wire::caller;'), 'hub_v1_wire::'),
    (includes_stand_in_configuration, header, in_room('spool', '#include <list>'), 'include'),
    (functions_fit_a_screen, header, in_room('machine', long_function), '62 lines'),
    (functions_fit_a_screen, 'examples/minimal.cpp', followed_by(long_function), '62 lines'),
    (functions_fit_a_screen, 'tests/vocabulary.cpp', followed_by(long_function), '62 lines'),
    (macros_end_with_the_header, header, replaced('#undef HUB_SESSION_POSIX', ''), 'HUB_SESSION_POSIX'),
    (macros_end_with_the_header, header, in_room('machine', '#define BLOCK 1'), 'BLOCK'),
    (macros_end_with_the_header, header, replaced('#pragma pop_macro("max")', ''), 'max'),
    (versions_agree, header, replaced('VERSION_PATCH 0', 'VERSION_PATCH 9'), '"9"'),
    (versions_agree, header, replaced('HPP_INCLUDED 100', 'HPP_INCLUDED 101'), '"101"'),
    (versions_agree, header, replaced('HPP_INCLUDED != 100', 'HPP_INCLUDED != 99'), '"99"'),
    (versions_agree, header, replaced('inline namespace v0_1', 'inline namespace v0_7'), '"v0_7"'),
    (versions_agree, 'meson.build', replaced("version: '0", "version: '8"), '"8.'),
    (versions_agree, 'README.md', replaced('hub_session.hpp 0', 'hub_session.hpp 8'), '"8.'),
    (versions_agree, header, replaced('constexpr int format = ', 'constexpr int format = 9'), '"9'),
    (licence_is_named, 'tests/run.sh', replaced('SPDX-License-Identifier: MIT', ''), 'SPDX'),
    (licence_is_named, header, replaced('SPDX-License-Identifier: MIT', ''), 'SPDX'),
    (nothing_is_put_off, header, in_room('text', '// TO' + 'DO: later'), 'do it now'),
    (lines_fit, header, in_room('text', '// ' + 'long ' * 30), 'fold it'),
    (lines_fit, header, in_room('text', 'int a; '), 'white space'),
    (lines_fit, 'examples/minimal.cpp', followed_by('// no end'), 'does not end'),
    (examples_can_be_copied, 'examples/minimal.cpp', followed_by('int a = hub::machine::rank();\n'),
     'machine::'),
    (page_imports_have_no_circle, 'examples/local_hub/page/dom.js',
     followed_by('\nimport { show } from "./main.js";\n'), 'main.js'),
    (no_test_is_forgotten, 'tests/README.md', replaced('`fuzz.sh', '`fuss.sh'), 'tests/README.md'),
    (no_test_is_forgotten, 'meson.build', replaced("'tests/vocabulary.cpp',", ''), 'no program'),
]

# A line for each ban of each room; `ADDS` and the like are left to the patterns.
samples = {
    'a type': 'struct a {};', 'a clock': 'auto at = std::chrono::steady_clock::now();',
    'I/O': 'std::ofstream out;', 'a switch': '#if defined(_WIN32)',
    'a lock or a thread': 'std::mutex m;',
    'a wire': 'using hub_v1_wire::caller;', 'a server by its name': 'auto a = "HUB does not answer";',
    'the engine': 'hub::engine asked;', 'a thread': 'std::thread t;',
    'the machine': 'auto a = machine::rank();', 'a request': 'hub::request asked;',
    'a system': '#if defined(HUB_SESSION_POSIX)', 'parsing': 'auto a = text::parse_json(body);',
    'the Platform': 'using platform_wire::run;', 'the spool': 'auto a = spool::read();',
    'OpenSSL': 'SSL_free(tls);',
}


# Every sample at once, each in the room that bans it.
def every_ban_broken(text):
    for room, of_room in bans.items():
        for what, _, _ in of_room:
            text = in_room(room, samples[what])(text)
    return in_room('session', 'int a = ::getpid();')(text)


every_ban = [f'{what} in the room "{room}"' for room, of_room in bans.items() for what, _, _ in of_room]
every_ban.append('"::getpid("')


# Each breakage is found, where it is, by the rule that is to find it.
def show_that_each_can_fail(tree):
    passed = failed = 0
    found = [what for _, _, what in rooms_keep_their_rules({header: every_ban_broken(tree[header])})]
    for word in every_ban:
        if any(word in what for what in found):
            passed += 1
        else:
            failed += 1
            print(f'FAILED: rooms_keep_their_rules: nothing is said of {word}')
    for rule, path, change, word in breakages:
        broken = {**tree, path: change(tree[path])}
        if broken[path] == tree[path]:
            found = None
        else:
            found = [what for where, _, what in rule(broken) if where == path or rule in (
                versions_agree, page_imports_have_no_circle, no_test_is_forgotten)]
        if found and any(word in what for what in found):
            passed += 1
            continue
        failed += 1
        why = 'its breakage fits the file no more' if found is None else f'says {found or "nothing"}'
        print(f'FAILED: {rule.__name__}: of {path} without {word!r}: {why}')
    for rule in rules:
        if rule not in {rooms_keep_their_rules, *(each[0] for each in breakages)}:
            failed += 1
            print(f'FAILED: {rule.__name__}: nothing shows that it can fail')
    return passed, failed


def check(tree):
    failed = 0
    for rule in rules:
        found = sorted(set(rule(tree)))
        failed += bool(found)
        for path, number, what in found:
            print(f'FAILED: {path}:{number}: {what}')
    return len(rules) - failed, failed


def main(arguments):
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
    tree = read_tree()
    passed, failed = show_that_each_can_fail(tree) if '--can-fail' in arguments else check(tree)
    print(f'{passed} passed, {failed} failed')
    return failed != 0


sys.exit(main(sys.argv[1:]))
