# For tests of the ublk front end alone: tests/vm/tools/ublk_server serves a file on tmpfs as /dev/ublkb0.
backing=/tmp/ublk.backing
server_log=/tmp/ublk_server.log

# start_server SIZE_MIB [DELAY_US [FAULTS]]: makes or recovers /dev/ublkb0; ends when it serves.
start_server() {
    : > $server_log
    UBLKD_FAULTS=${3:-} ublk_server serve $backing "$1" 0 "${2:-0}" >> $server_log 2>&1 &
    server=$!
    local try
    for try in $(seq 600); do
        if grep -qE '^(made|made anew|recovered) ' $server_log; then return 0; fi
        [ -d /proc/$server ] || return 1
        sleep 0.1
    done
    cat $server_log
    fail "the server does not come up"
}

# start_doomed SIZE_MIB DELAY_US FAULTS [with_reader]: a server that a fault point kills on its way; ends when it is dead.
# With a reader: a process reads the disk as soon as it is there; it waits until the next server.
start_doomed() {
    : > $server_log
    reader=''
    UBLKD_FAULTS=$3 ublk_server serve $backing "$1" 0 "$2" >> $server_log 2>&1 &
    server=$!
    if [ -n "${4:-}" ]; then
        (until [ -b /dev/ublkb0 ]; do sleep 0.1; gone $server && exit; done; dd if=/dev/ublkb0 of=/dev/null bs=4k count=1 2>/dev/null) &
        reader=$!
    fi
    wait_for 60 gone $server
    wait $server 2>/dev/null || true
}

server_says() { grep -E "$1" $server_log; }

kill_server() {
    kill -9 "$server"
    wait "$server" 2>/dev/null || true
}

# end_server SIGNAL SECONDS: TERM quiesces, USR1 detaches unless busy, USR2 detaches. Busy is also for a moment who looks for
# partitions: it is asked again.
end_server() {
    local refusals=0
    kill "-$1" "$server"
    has_ended() {
        gone "$server" && return
        [ "$(grep -c '^not detached' $server_log)" -le $refusals ] && return 1
        refusals=$((refusals + 1))
        kill "-$1" "$server"
        return 1
    }
    (wait_for "$2" has_ended "$1") || { cat $server_log; fail "the server ends"; }
    wait "$server" || { cat $server_log; fail "the server ended with an error"; }
}

no_devices() { [ -z "$(ls /sys/class/ublk-char 2>/dev/null)" ]; }
