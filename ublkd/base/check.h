// Assertions. CHECK states an invariant of ours and stays on in release builds: it prints the
// condition, a text and a backtrace, and aborts. DCHECK is for costly ones (dev, asan and tsan
// presets). What the world can break (a disk, a peer, a user) is a Result (result.h) and never
// CHECKed.
#pragma once

namespace ublkd {
[[noreturn]] void check_failed(const char* condition, const char* text, const char* file,
                               int line) noexcept;
}

#define CHECK(condition, text)                                           \
    do {                                                                 \
        if (__builtin_expect(!(condition), 0))                           \
            ::ublkd::check_failed(#condition, text, __FILE__, __LINE__); \
    } while (false)

#ifdef UBLKD_DCHECK
#define DCHECK(condition, text) CHECK(condition, text)
#else
#define DCHECK(condition, text) \
    do {                        \
    } while (false)
#endif
