"""The rules of ./run lint that read text: which folder may include which, the coroutine rules, words, lengths, links.

Each rule is a function from (path, text) to complaints "path:line: what is wrong, and what to do". lint_cases.py holds
a case for each that it must find and one that it must leave alone. docs/hacking.md says why the rules are there.
"""

import os
import re

LINES_MAX = 700

# Which folders a folder may include from, and single headers beyond these. docs/architecture.md "Folders".
LAYERS = ["ublkd/base", "ublkd/io", "ublkd/block", "ublkd/store", "ublkd/replication", "ublkd/peer", "ublkd/volume"]
FRONT = ["ublkd/base", "ublkd/io", "ublkd/block"]
EVERYTHING = None
ALLOWED = {layer: LAYERS[: i + 1] for i, layer in enumerate(LAYERS)}
ALLOWED.update(
    {
        "ublkd/front/nbd": FRONT + ["ublkd/front/nbd"],
        "ublkd/front/ublk": FRONT + ["ublkd/front/ublk"],
        "metadata": ["metadata", "ublkd/base", "ublkd/replication/membership.h"],
        "metadata/backup": ["metadata", "ublkd/base", "ublkd/api/value_json.h"],
        "metadata/etcd": ["metadata", "ublkd/base", "ublkd/api/json.h", "ublkd/api/value_json.h"],
        "ublkd/replication": ["ublkd/base", "ublkd/io/task.h", "ublkd/block", "ublkd/replication"],
        "ublkd/peer": FRONT + ["ublkd/replication", "ublkd/peer"],
        "ublkd/api": ["ublkd/base", "ublkd/io/tls.h", "ublkd/api", "metadata/row_service.h", "metadata/records.h", "metadata/tables.h", "metadata/value.h"],
        "ublkd/daemon": EVERYTHING,
        "ublkd/main.cc": EVERYTHING,
        "cli": ["cli", "ublkd/base", "ublkd/api/json.h", "ublkd/api/errors.h"],
        "tests": EVERYTHING,
    }
)

# A library that stays behind one file or two (or a folder), so that its types do not spread and its headers are parsed once.
FEW_USERS = {
    "boost/": ["ublkd/api/", "cli/client.cc"],
    "CLI/": ["cli/arguments.cc"],
    "curl/": ["metadata/etcd/etcd_client.cc"],
    "spdlog/": ["ublkd/base/log.cc"],
    "sqlite3.h": ["metadata/"],
    "liburing.h": ["ublkd/io/"],
    "toml++/": ["ublkd/daemon/configuration.cc"],
    "nlohmann/": ["ublkd/api/json.cc"],
    "openssl/": ["ublkd/"],
    "libnbd.h": ["tests/"],
}

WORDS = {
    r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b": "finish it, or say in plain words what is so",
    r"\bGTEST_SK" r"IP\b": "a test runs or is not there; what this machine lacks runs in the VM",
    r"\bDISAB" r"LED_\w": "a test that is switched off tests nothing",
    r"^\s*#\s*if\s+0\b": "delete it; git remembers",
    r"/wor" r"k/": "a path of one machine",
}
# A host has a dot in its name; "http://ublkd" is what HTTP over a unix socket needs for a name.
URL = re.compile(r"\b(?:https?|ftp)://(?!127\.)[\w-]+\.[\w.-]+")
# What runs or is compiled names no host (packages come from the machine's own sources); docs may.
RUNS = (".h", ".cc", ".c", ".py", ".sh", ".cmake", ".txt", ".json", ".in", "")


def strip(text):
    """`text` with comments and the contents of literals blanked, line breaks kept."""

    def blank(match):
        token = match.group(0)
        if token.startswith(("//", "/*")):
            return re.sub(r"[^\n]", " ", token)
        if token.startswith("R"):
            return '""' + re.sub(r"[^\n]", " ", token[2:])
        return token[0] + " " * (len(token) - 2) + token[-1]

    pattern = r'//[^\n]*|/\*.*?\*/|\bR"(?P<d>[^()\s]*)\(.*?\)(?P=d)"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\''
    return re.sub(pattern, blank, text, flags=re.S)


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def folder_of(path):
    """The longest key of ALLOWED that `path` lies in."""
    fitting = [key for key in ALLOWED if path == key or path.startswith(key + "/")]
    return max(fitting, key=len, default=None)


def includes(text):
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
        if match:
            yield number, match.group(1), match.group(2)


def include_rules(path, text, exists):
    """Folders in their order, from the root, own header first, one user per library. `exists`: path -> bool."""
    folder = folder_of(path)
    if folder is None:
        yield f"{path}:1: no rule says what this folder may include; add it to tests/ci/lint_rules.py"
        return
    found = list(includes(text))
    for number, quote, name in found:
        where = f"{path}:{number}"
        if quote == "<":
            for library, users in FEW_USERS.items():
                if name.startswith(library) and not path.startswith((*users, "tests/")):
                    yield f"{where}: <{name}> is for {' and '.join(users)} alone"
            continue
        if not exists(name):
            yield f'{where}: "{name}" is not a path from the root of the repository'
        elif ALLOWED[folder] is not EVERYTHING and not any(
            name == allowed or name.startswith(allowed + "/") for allowed in ALLOWED[folder]
        ):
            yield f'{where}: {folder} may not include "{name}" (docs/architecture.md, Folders)'
        elif name.startswith("tests/") and not path.startswith("tests/"):
            yield f'{where}: "{name}" belongs to the tests'
    own = re.sub(r"\.cc$", ".h", path)
    quoted = [name for _, quote, name in found if quote == '"']
    if path.endswith(".cc") and exists(own) and found and (not quoted or found[0][2] != own):
        yield f'{path}:{found[0][0]}: the first include is "{own}", so that the header is known to stand alone'
    if path.endswith(".h") and "#pragma once" not in text:
        yield f"{path}:1: #pragma once"
    if path.endswith(".h") and not text.startswith(("//", "/*")):
        yield f"{path}:1: a header starts with what it is, who owns it and on which thread"


def word_rules(path, text):
    code = path.endswith((".h", ".cc", ".c"))
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, advice in WORDS.items():
            match = re.search(pattern, line)
            if match:
                yield f"{path}:{number}: '{match.group(0).strip()}': {advice}"
        extension = os.path.splitext(path)[1]
        if extension in RUNS and os.path.basename(path) not in ("LICENSE",):
            match = URL.search(line)
            if match:
                yield f"{path}:{number}: '{match.group(0)}': what runs or is compiled names no host"
    if code and text.count("\n") > LINES_MAX:
        yield f"{path}:1: {text.count(chr(10))} lines; at most {LINES_MAX}: one subject a file"


SWITCHES_PAGE = "docs/testing.md"


def switch_rules(texts):
    """Each rule that can be switched off is in the table of docs/testing.md and in a test. `texts`: path -> text."""
    tests = "\n".join(text for path, text in texts.items() if path.startswith("tests/") and not path.startswith("tests/ci/"))
    for path, text in sorted(texts.items()):
        if not path.startswith(("ublkd/", "metadata/")):
            continue
        for match in re.finditer(r'rule_off\("rule\.(\w+)"\)', text):
            name, where = match.group(1), f"{path}:{line_of(text, match.start())}"
            if not re.search(rf"`rule\.{name}`", texts.get(SWITCHES_PAGE, "")):
                yield f"{where}: rule.{name} is not in the table of {SWITCHES_PAGE}"
            # Some tests add the "rule." themselves.
            if not re.search(rf"\b{name}\b", tests):
                yield f"{where}: no test switches rule.{name} off"


def matching(code, position):
    """The position of the bracket that closes the one at `position`, or the end."""
    pairs = {"(": ")", "[": "]", "{": "}"}
    stack = []
    for i in range(position, len(code)):
        if code[i] in pairs:
            stack.append(pairs[code[i]])
        elif stack and code[i] == stack[-1]:
            stack.pop()
            if not stack:
                return i
    return len(code)


def lambdas(code):
    """(start, capture, body start, body end) of each lambda."""
    for match in re.finditer(r"\[([^\[\]]*)\]", code):
        before = code[: match.start()].rstrip()
        if before and (before[-1].isalnum() or before[-1] in "_)]\"'>") and not re.search(r"\b(return|co_return|co_await)$", before):
            continue
        rest = match.end()
        while rest < len(code) and code[rest].isspace():
            rest += 1
        if rest < len(code) and code[rest] == "(":
            rest = matching(code, rest) + 1
        tail = re.match(r"[\s\w:<>,*&\->]*\{", code[rest:])
        if not tail:
            continue
        body = rest + tail.end() - 1
        yield match.start(), match.group(1).strip(), body, matching(code, body)


def own_statements(code, begin, end):
    """code[begin:end] with the bodies of lambdas and of local classes inside it blanked."""
    part = code[begin:end]
    for _, _, body, close in lambdas(part):
        part = part[: body + 1] + " " * max(0, close - body - 1) + part[close:]
    for match in re.finditer(r"\b(?:struct|class)\b[^;{}()]*\{", part):
        close = matching(part, match.end() - 1)
        part = part[: match.end()] + " " * max(0, close - match.end()) + part[close:]
    return part


def enclosing(code, position):
    """From the inside outwards: (opening bracket, its position, the text of that level before `position`), up to the
    start of the statement; the last one has bracket '' and is the statement's own level."""
    levels = []
    depth = 0
    text = []
    for i in range(position - 1, -1, -1):
        c = code[i]
        if c in ")]}":
            if depth == 0 and c == "}":
                break
            depth += 1
        elif c in "([{":
            if depth == 0:
                levels.append((c, i, "".join(reversed(text))))
                text = []
                if c == "{" and is_block(code, i):
                    return levels
                continue
            depth -= 1
        elif depth == 0 and c == ";":
            break
        if depth == 0 and c not in ")]}":
            text.append(c)
    levels.append(("", -1, "".join(reversed(text))))
    return levels


def is_block(code, position):
    """Whether the brace at `position` opens statements rather than an initializer."""
    close = matching(code, position)
    depth = 0
    for i in range(position + 1, close):
        c = code[i]
        if c in "([{":
            if c == "{" and depth == 0:
                return True
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == ";" and depth == 0:
            return True
    return False


def level_after(code, position, levels):
    """The rest of the expression after `position`, bracketed parts left out, up to the end of the statement or of the
    parenthesis of an if, a loop or a switch. `levels`: enclosing() of the same place."""
    text = []
    left = 0
    i = position
    while i < len(code) and code[i] not in ";{":
        if code[i] in "([":
            i = matching(code, i)
        elif code[i] in ")]}":
            opening = levels[left][1] if left < len(levels) else -1
            if opening < 0 or re.search(r"\b(if|while|for|switch|constexpr)\s*$", code[max(0, opening - 20) : opening]):
                break
            left += 1
        else:
            text.append(code[i])
        i += 1
    return "".join(text)


def coroutine_rules(path, text):
    """What g++ 12 compiles wrongly (docs/hacking.md, Coroutines)."""
    if not path.endswith((".h", ".cc")) or "co_" not in text:
        return
    code = strip(text).replace("operator co_await", "operator_co_await")
    for start, capture, body, close in lambdas(code):
        inside = own_statements(code, body + 1, close)
        if capture and re.search(r"\bco_(await|return|yield)\b", inside):
            yield f"{path}:{line_of(code, start)}: a capturing lambda that is a coroutine: its captures die before it does"
    for match in re.finditer(r"\bauto\s*&{0,2}\s*\[[^\]]*\]\s*=\s*co_await\b", code):
        yield f"{path}:{line_of(code, match.start())}: a structured binding of co_await: name the result first"
    for match in re.finditer(r"\bcatch\s*\([^)]*\)\s*\{", code):
        if "co_await" in code[match.end() : matching(code, match.end() - 1)]:
            yield f"{path}:{line_of(code, match.start())}: co_await in a catch block"
    for match in re.finditer(r"\bfor\s*\(", code):
        head = code[match.end() : matching(code, match.end() - 1)]
        if ";" not in head and "co_await" in head:
            yield f"{path}:{line_of(code, match.start())}: co_await in a range-for: name the range first"
    for match in re.finditer(r"\bco_await\b", code):
        where = f"{path}:{line_of(code, match.start())}"
        levels = enclosing(code, match.start())
        for bracket, at, before in levels:
            if "?" in before:
                yield f"{where}: co_await in a conditional expression: use if"
                break
            if re.search(r"\|\||(?<!auto)&&(?!\s*\w+\s*=)", before):
                yield f"{where}: co_await after && or ||: name the result first"
                break
            if bracket == "{":
                if not is_block(code, at):
                    yield f"{where}: co_await in a braced initializer: name the result first"
                break
        after = level_after(code, match.end(), levels)
        if "?" in after:
            yield f"{where}: co_await in a conditional expression: use if"
        elif re.search(r"&&|\|\|", after):
            yield f"{where}: co_await before && or ||: name the result first"
        end = statement_end(code, match.end())
        if any(True for _ in lambdas(code[match.end() : end])):
            yield f"{where}: a lambda inside a co_await expression is destroyed twice: name it first"
        if re.match(r"co_await\s+(\w+::)*Offload\s*<", code[match.start() :]):
            yield f"{where}: an Offload inside a co_await expression is destroyed twice: name it first"


def statement_end(code, position):
    """Where the statement at `position` ends: its ';' outside of brackets, or the end of the bracket around it."""
    depth = 0
    for i in range(position, len(code)):
        if code[i] in "([{":
            depth += 1
        elif code[i] in ")]}":
            depth -= 1
            if depth < 0:
                return i
        elif code[i] == ";" and depth == 0:
            return i
    return len(code)


def link_rules(path, text, exists):
    """Relative links of Markdown pages lead somewhere."""
    if not path.endswith(".md"):
        return
    for number, line in enumerate(text.splitlines(), 1):
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            if re.match(r"[a-z]+:", target) or target.startswith("#"):
                continue
            target = os.path.normpath(os.path.join(os.path.dirname(path), target.split("#")[0]))
            if not exists(target):
                yield f"{path}:{number}: a link to {target}, which is not there"
