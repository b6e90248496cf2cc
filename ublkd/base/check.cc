#include "ublkd/base/check.h"

#include <execinfo.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace ublkd {

void check_failed(const char* condition, const char* text, const char* file, int line) noexcept {
    std::fprintf(stderr, "%s:%d: CHECK failed: %s: %s\n", file, line, condition, text);
    void* frames[64];
    const int count = backtrace(frames, 64);
    backtrace_symbols_fd(frames, count, STDERR_FILENO);
    std::abort();
}

}  // namespace ublkd
