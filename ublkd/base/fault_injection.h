// Fault points: named places where a test makes the real code crash, fail or wait, or switches a
// safety rule off. Compiled in by the CMake option UBLKD_FAULTS (presets dev, asan, tsan, faults),
// never in a release: there each function below is an empty inline, so a point costs nothing.
//
// A point is armed by code (faults::arm) or, for a daemon, by the environment:
//   UBLKD_FAULTS="store.after_data_write=crash@3;permission.before_store=delay:50;rule.range_lock=off"
// Actions: crash (SIGKILL to this process, nothing is flushed), fail[:ERRNO] (the point returns
// that errno, EIO by default), delay:MS (sleeps the calling thread), off (a rule's switch). @N: at
// the Nth hit alone (from 1); without it at each hit. Names are dotted: <folder>.<place>; rules are
// rule.<name>. Thread-safe.
#pragma once

#include <cstdint>
#include <string_view>

namespace ublkd::faults {

#ifdef UBLKD_FAULTS

/// Passes the point `name`: crashes or waits where armed so. Returns 0, or the positive errno to
/// fail with.
int hit(const char* name) noexcept;
/// True where the safety rule `name` is switched off by a test.
bool rule_off(const char* name) noexcept;
/// Arms points from a specification as above. False (and nothing armed) where it cannot be parsed.
bool arm(std::string_view specification);
void disarm_all() noexcept;
/// How often `name` was passed since it was armed.
std::uint64_t hits(const char* name) noexcept;
/// Arms what the environment variable UBLKD_FAULTS says. False where it cannot be parsed.
bool arm_from_environment();

#else

inline int hit(const char*) noexcept { return 0; }
inline bool rule_off(const char*) noexcept { return false; }

#endif

}  // namespace ublkd::faults
