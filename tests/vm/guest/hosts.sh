# Several hosts in the guest: a daemon each, with a state folder under /srv/state, an address of its own on the loopback device, and,
# where a disk has its name, a pool on that disk. The first one has the metadata. Sourced after daemon.sh.

host_on() { local host=$1; shift; ebs-cli --socket "/srv/state/$host/api.sock" "$@"; }   # ebs-cli, at a host
host_pid() { cat "/tmp/host.$1.pid"; }
host_answers() { host_on "$1" version; }

# host_start NAME: until it answers.
host_start() {
    setsid ublkd --state "/srv/state/$1" >> "/tmp/ublkd.$1.log" 2>&1 < /dev/null &
    echo $! > "/tmp/host.$1.pid"
    wait_for 30 host_answers "$1"
}

host_signal() { kill "-$2" "$(host_pid "$1")"; }   # NAME SIGNAL

host_kill() {
    host_signal "$1" KILL
    wait "$(host_pid "$1")" 2> /dev/null || true
}

host_stop() {
    host_signal "$1" TERM
    wait_for 30 gone "$(host_pid "$1")"
    wait "$(host_pid "$1")" || fail "the daemon of $1 ended with status $?"
}

# hosts_new NAME...: made, started and initialized.
hosts_new() {
    local name number=0 pools=0
    hosts="$*"
    for name in $hosts; do
        number=$((number + 1))
        mkdir -p "/srv/state/$name"
        printf '[host]\nname = "%s"\n[cluster]\nlisten = "127.0.0.%s:7071"\n' "$name" $number > "/srv/state/$name/ublkd.toml"
        [ $number = 1 ] || echo "metadata = \"/srv/state/${hosts%% *}/metadata.sock\"" >> "/srv/state/$name/ublkd.toml"
        host_start "$name"
        if grep -q " /srv/$name " /proc/mounts; then
            host_on "$name" init --dir "/srv/$name/pool" --domain "$name" > /dev/null || fail "init of $name"
            pools=$((pools + 1))
        else
            host_on "$name" init > /dev/null || fail "init of $name"
        fi
    done
    export UBLKD_SOCKET="/srv/state/${hosts%% *}/api.sock"
    wait_for 30 ebs-cli volume create --size 1M --replicas $pools --dry-run
}

# The name of the host where the volume's primary is.
primary_of() {
    local id
    id=$(volume_field "$1" '.Replicas[] | select(.Role == "primary") | .HostId')
    ebs-cli host list -o json | jq -r --arg id "$id" '.Hosts[] | select(.HostId == $id) | .Name'
}
moved_from() { local now; now=$(primary_of "$1") && [ -n "$now" ] && [ "$now" != "$2" ]; }   # VOLUME HOST

# fail_primary VOLUME KILL|STOP: its daemon, until another one serves the volume; and back, until it is whole again.
fail_primary() {
    local volume=$1 how=$2 host
    host=$(primary_of "$volume")
    echo "$how of $host"
    if [ "$how" = KILL ]; then host_kill "$host"; else host_signal "$host" STOP; fi
    wait_for 20 moved_from "$volume" "$host"
    load_check
    usleep $(($(random 1500) * 1000))
    if [ "$how" = KILL ]; then host_start "$host"; else host_signal "$host" CONT; fi
    wait_for 60 volume_healthy "$volume"
    load_check
}

# hosts_end VOLUME HOST: the volume is detached there, all daemons stop, and its replicas are the same, byte for byte.
hosts_end() {
    local name
    host_on "$2" detach "$1" || fail "detach $1"
    for name in $(echo "$hosts" | tr ' ' '\n' | sort -r); do host_stop "$name"; done
    cmp /srv/*/pool/replicas/*/data || fail "the replicas of $1 differ"
}

trap 'status=$?; [ $status = 0 ] || for name in $hosts; do echo "--- $name:"; tail -30 "/tmp/ublkd.$name.log"; done' EXIT
