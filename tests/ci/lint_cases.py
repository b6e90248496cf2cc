"""Cases for lint_rules.py: what each rule must find, and the nearest thing that it must leave alone. ./run lint runs
them first; a rule that finds nothing would otherwise go unnoticed."""

import lint_rules as rules


def always(_path):
    return True


def only(*paths):
    return lambda path: path in paths


def body(statement):
    return "Task<void> f() {\n    " + statement + "\n}\n"


HEADER = "// What it is.\n#pragma once\n"

# (rule, path, text, a part of the expected complaint or None)
CASES = [
    ("include", "ublkd/store/a.h", HEADER + '#include "ublkd/block/b.h"\n', None),
    ("include", "ublkd/store/a.h", HEADER + '#include "ublkd/volume/v.h"\n', "may not include"),
    ("include", "ublkd/front/nbd/a.h", HEADER + '#include "ublkd/volume/v.h"\n', "may not include"),
    ("include", "ublkd/front/nbd/a.h", HEADER + '#include "ublkd/front/ublk/u.h"\n', "may not include"),
    ("include", "metadata/a.h", HEADER + '#include "ublkd/replication/membership.h"\n', None),
    ("include", "metadata/a.h", HEADER + '#include "ublkd/replication/primary.h"\n', "may not include"),
    ("include", "cli/a.h", HEADER + '#include "metadata/store.h"\n', "may not include"),
    ("include", "ublkd/base/a.h", HEADER + '#include "ublkd/io/task.h"\n', "may not include"),
    ("include", "ublkd/daemon/a.h", HEADER + '#include "tests/suites/s.h"\n', "belongs to the tests"),
    ("include", "ublkd/volume/a.h", HEADER + "#include <boost/asio.hpp>\n", "alone"),
    ("include", "ublkd/volume/a.h", HEADER + "#include <vector>\n", None),
    ("include", "elsewhere/a.h", HEADER, "no rule says"),
    ("include", "ublkd/base/a.h", "// What.\nint f();\n", "#pragma once"),
    ("include", "ublkd/base/a.h", "#pragma once\n", "starts with what it is"),
    ("include", "ublkd/base/a.cc", '#include "ublkd/base/a.h"\n#include <vector>\n', None),
    ("include", "ublkd/base/a.cc", '#include <vector>\n#include "ublkd/base/a.h"\n', "first include"),
    ("word", "a.cc", "// TO" "DO later\n", "finish it"),
    ("word", "a.cc", "    GTEST_SK" 'IP() << "no kernel";\n', "a test runs"),
    ("word", "a.cc", "TEST(A, DISAB" "LED_b) {}\n", "switched off"),
    ("word", "a.cc", "#if 0\n", "delete it"),
    ("word", "run", "curl https:" "//registry.example.net/x\n", "names no host"),
    ("word", "a.cc", 'const char* url = "http:' '//ublkd/v1";\n', None),
    ("word", "docs/a.md", "see https:" "//kernel.example.net/doc\n", None),
    ("word", "a.py", "open('/wor" "k/x')\n", "one machine"),
    ("word", "a.cc", "// todos in lower case are words\n", None),
    ("word", "a.cc", "x\n" * 701, "at most 700"),
    ("coroutine", "a.cc", body("co_await read(a, b);"), None),
    ("coroutine", "a.cc", body("auto done = co_await read(a); if (done && more) co_return;"), None),
    ("coroutine", "a.cc", body("const auto n = x ? 1 : 2; co_await read(n);"), None),
    ("coroutine", "a.cc", body("const auto n = x ? co_await read() : 2;"), "conditional"),
    ("coroutine", "a.cc", body("f(co_await read() ? 1 : 2);"), "conditional"),
    ("coroutine", "a.cc", body("if (ready && co_await read()) g();"), "after &&"),
    ("coroutine", "a.cc", body("if (co_await read() || ready) g();"), "before &&"),
    ("coroutine", "a.cc", body("if (co_await read()) done = a || b;"), None),
    ("coroutine", "a.cc", body("if (a && b) co_await read();"), None),
    ("coroutine", "a.cc", body("done = f(co_await read()) || b;"), "before &&"),
    ("coroutine", "a.cc", body("auto&& done = co_await read();"), None),
    ("coroutine", "a.cc", body("CO_TRY(co_await read());"), None),
    ("coroutine", "a.cc", body("if (!co_await read()) co_return;"), None),
    ("coroutine", "a.cc", body("if (x) { if (co_await read()) { g(); } }"), None),
    ("coroutine", "a.cc", body("Pair p{1, co_await read()};"), "braced"),
    ("coroutine", "a.cc", body("co_return Pair{co_await read(), 1};"), "braced"),
    ("coroutine", "a.cc", body("for (auto x : co_await list()) g(x);"), "range-for"),
    ("coroutine", "a.cc", body("for (int i = 0; i < n; ++i) co_await read(i);"), None),
    ("coroutine", "a.cc", body("try { g(); } catch (const E& e) { co_await read(); }"), "catch"),
    ("coroutine", "a.cc", body("auto [a, b] = co_await read();"), "structured"),
    ("coroutine", "a.cc", body("auto f = [this]() -> Task<void> { co_await read(); };"), "capturing"),
    ("coroutine", "a.cc", body("auto f = [](int x) -> Task<void> { co_await read(x); };"), None),
    ("coroutine", "a.cc", body("auto f = [this] { auto g = []() -> Task<void> { co_return; }; };"), None),
    ("coroutine", "a.cc", body("auto f = [this] { struct L { static Task<void> g() { co_return; } }; };"), None),
    ("coroutine", "a.cc", body("auto f = [this] { task.operator co_await(); };"), None),
    ("coroutine", "a.cc", body("co_await run([x] { return x; });"), "lambda inside"),
    ("coroutine", "a.cc", body("auto f = [x] { return x; }; co_await run(f);"), None),
    ("coroutine", "a.cc", body("co_await array[3].read();"), None),
    ("coroutine", "a.cc", body("co_await io::Offload<int>(worker, f);"), "Offload inside"),
    ("coroutine", "a.cc", body("// co_await x ? 1 : 2\n    co_await read();"), None),
    ("link", "docs/a.md", "[b](b.md) [c](../c.md#part) [d](#here)\n", None),
    ("link", "docs/a.md", "[x](missing.md)\n", "not there"),
    ("switch", "ublkd/a.cc", 'if (faults::rule_off("rule.known")) return;', None),
    ("switch", "ublkd/a.cc", 'if (faults::rule_off("rule.not_written")) return;', "not in the table"),
    ("switch", "metadata/a.cc", 'if (faults::rule_off("rule.not_tested")) return;', "no test"),
    ("switch", "tests/a.cc", 'faults::rule_off("rule.not_written")', None),
]
# What stands around a file of a "switch" case.
AROUND = {"docs/testing.md": "| `rule.known`, `rule.not_tested` |", "tests/x_test.cc": '"known" "not_written"'}


def run_rule(rule, path, text):
    if rule == "include":
        return list(rules.include_rules(path, text, always))
    if rule == "word":
        return list(rules.word_rules(path, text))
    if rule == "coroutine":
        return list(rules.coroutine_rules(path, text))
    if rule == "switch":
        return list(rules.switch_rules({**AROUND, path: text}))
    return list(rules.link_rules(path, text, only("docs/b.md", "c.md")))


def failures():
    """What the rules get wrong."""
    for rule, path, text, expected in CASES:
        found = run_rule(rule, path, text)
        if expected is None and found:
            yield f"lint itself: {rule} rule complains about {text[-100:]!r}: {found[0]}"
        if expected is not None and not any(expected in complaint for complaint in found):
            yield f"lint itself: {rule} rule does not find '{expected}' in {text[-100:]!r} (found {found})"
