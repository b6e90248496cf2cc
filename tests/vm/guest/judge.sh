# Runs one test in the guest and judges it: the script's own status, then what a green script may leave behind unseen: lines
# in the kernel's log that nobody expected, tasks in D state, ublk devices, mounts. Sourced by init.

export bad_kernel_lines='segfault at|traps: .* trap |BUG:|WARNING:|Oops|Call Trace|blocked for more than|I/O error|EXT4-fs (error|warning)|XFS .*(orruption|shut|error)|general protection|refcount_t|rcu.*stall|Out of memory|Lost .*write|nvme.*timeout|nbd.*(timed out|Receive control failed)'

# Prints tasks that cannot be interrupted and stay so for five seconds. Each thread counts: a dead process may have one left.
stuck_tasks() {
    local try pid state
    for try in 1 2 3 4 5 6; do
        stuck=''
        for pid in /proc/[0-9]*/task/*; do
            state=$(sed -n 's/^State:\t\(.\).*/\1/p' "$pid/status" 2>/dev/null)
            [ "$state" != D ] || stuck="$stuck $(cat "$pid/comm" 2>/dev/null)(${pid##*/})"
        done
        [ -n "$stuck" ] || return 0
        sleep 1
    done
    echo "in D state:$stuck"
}

# Prints what the test left behind, nothing if it was tidy.
leftovers() {
    grep -E ' (/dev/(ublkb|nbd|mapper|dm-)|/mnt)' /proc/mounts | sed 's/^/still mounted: /'
    ls /sys/class/ublk-char 2>/dev/null | sed 's/^/ublk device left: /'
}

# run_test NAME LIMIT_SECONDS: status 0 if the next test can run in this boot; after a failure nobody knows what is left.
run_test() {
    local name=$1 limit=$2 script=/payload/tests/$1 expected begin status problems
    expected=$(sed -n 's/^# expect-kernel-log: //p' "$script")
    dmesg -c > /dev/null
    begin=$(cut -d. -f1 /proc/uptime)
    printf '\n@begin %s\n' "$name"
    timeout -s KILL "$limit" sh -c ". /payload/guest/lib.sh; . $script" 2>&1
    status=$?
    dmesg -c > /tmp/kernel.log
    problems=$(grep -E "$bad_kernel_lines" /tmp/kernel.log | grep -vE "${expected:-^$}" | head -20 | sed 's/^/kernel: /'
               stuck_tasks
               [ -z "$LAST" ] || leftovers)
    if [ $status -ge 128 ] || [ "${problems#*in D state}" != "$problems" ]; then
        echo "status $status; blocked tasks follow on the console"
        echo w > /proc/sysrq-trigger
        echo l > /proc/sysrq-trigger
        dmesg | tail -150
    fi
    if [ -n "$problems" ]; then
        echo "$problems"
        [ $status -ne 0 ] || status=99
    fi
    printf '\n@end %s %s %s\n' "$name" "$status" $(($(cut -d. -f1 /proc/uptime) - begin))
    [ $status = 0 ]
}
