// Preloaded into a daemon: its wall clock is CLOCK_OFF_SECONDS off, and jumps by that much to and
// fro every two seconds. Clocks that only go forward stay as they are.
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long offset_at(long seconds) {
    const char* text = getenv("CLOCK_OFF_SECONDS");
    const long off = text != NULL ? atol(text) : 0;
    return seconds / 2 % 2 == 0 ? off : -off;
}

int clock_gettime(clockid_t clock, struct timespec* now) {
    const long status = syscall(SYS_clock_gettime, clock, now);
    if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += offset_at(now->tv_sec);
    return (int)status;
}

int gettimeofday(struct timeval* value, void* zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    value->tv_sec = now.tv_sec;
    value->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t* seconds) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (seconds != NULL) *seconds = now.tv_sec;
    return now.tv_sec;
}
