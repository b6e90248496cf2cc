# The daemon in the guest: its disks, its life, its volumes, and load on them that verifies itself. Sourced by tests that
# need it. Disks `state`, `a`, `b` (and `c`) carry the state folder and one pool each, mounted under /srv.

export UBLKD_SOCKET=/srv/state/api.sock
daemon_log=/tmp/ublkd.log

# host_up NAME...: mounts the disks, made anew in the first phase; the journal's replay comes with the mount.
host_up() {
    local name
    for name in "$@"; do
        mkdir -p "/srv/$name"
        if [ "$PHASE" = 0 ]; then mkfs.ext4 -qF -E nodiscard "/dev/vm/$name"; fi
        mount -t ext4 "/dev/vm/$name" "/srv/$name"
    done
}

host_down() {
    local name
    for name in "$@"; do umount "/srv/$name"; done
}

daemon_answers() {
    local status=0
    ebs-cli status > /tmp/status.out 2>&1 || status=$?
    [ $status = 0 ] || [ $status = 8 ]   # 8: degraded
}

# daemon_launch [FAULTS]: starts it without waiting.
daemon_launch() {
    UBLKD_FAULTS=${1:-} setsid ublkd --state /srv/state >> $daemon_log 2>&1 < /dev/null &
    daemon=$!
}

daemon_start() {
    daemon_launch "${1:-}"
    wait_for 30 daemon_answers
}

daemon_kill() {
    kill -KILL $daemon 2>/dev/null || true
    wait $daemon 2>/dev/null || true
}

# daemon_stop: SIGTERM, which leaves the devices; bounded.
daemon_stop() {
    kill -TERM $daemon
    wait_for 30 gone $daemon
    wait $daemon || fail "the daemon ended with status $?"
    ! grep "still in the kernel" $daemon_log || fail "the daemon waited for its own commands"
}

# daemon_first_start POOL...: start, init with the first pool, add the others, each in its own domain.
daemon_first_start() {
    local name first=$1
    : > $daemon_log
    daemon_launch ''
    wait_for 30 test -e $UBLKD_SOCKET
    ebs-cli init --dir "/srv/$first/pool" --domain "$first" || fail "init"
    shift
    for name in "$@"; do ebs-cli pool add "/srv/$name/pool" --domain "$name" || fail "pool add $name"; done
    wait_for 10 daemon_answers
}

# volume_new NAME SIZE [FLAG...]: creates and attaches; the device is found by `device_of`.
volume_new() {
    local name=$1 size=$2
    shift 2
    ebs-cli volume create --size "$size" --name "$name" "$@" || fail "volume create $name"
    ebs-cli attach "$name" || fail "attach $name"
}

# volume_field NAME JQ_PATH: one thing that the API says of a volume.
volume_field() {
    ebs-cli volume list -o json | jq -r --arg n "$1" "(.Volumes? // .)[] | select(.Name == \$n) | $2"
}
volume_id() { volume_field "$1" .VolumeId; }

# device_of NAME: the block device behind /dev/ebs/VOL.
device_of() {
    local link=/dev/ebs/$(volume_id "$1")
    wait_for 20 test -b "$link" >&2
    readlink -f "$link"
}

# Of the one attachment that a test has; '' without one.
attachment_state() { ebs-cli attachment list --columns state -o tsv; }
attachment_is() { [ "$(attachment_state)" = "$1" ]; }

volume_has_members() { [ "$(volume_field "$1" .Health.InSync)" = "$2" ]; }   # NAME COUNT
volume_healthy() { [ "$(volume_field "$1" '.Health | .State == "ok" and .InSync == .Wanted')" = true ]; }
volumes_gone() {
    local name
    for name in "$@"; do
        ebs-cli detach "$name" || fail "detach $name"
        ebs-cli volume delete --yes "$name" || fail "volume delete $name"
    done
}

# verified NAME...: the members of each volume hold the same bytes.
verified() {
    local name
    for name in "$@"; do ebs-cli volume verify "$name" || fail "the members of $name differ"; done
}

# fio with what every job here has: checksums in each block, verified after writing, and no pause at errors.
fio_verify() {
    fio --verify=crc32c --verify_fatal=1 --do_verify=1 --ioengine=libaio --randrepeat=0 --group_reporting \
        --eta=never --output=/tmp/fio.log "$@" || { tail -20 /tmp/fio.log; return 1; }
}

# For a load's fio: bursts with a pause, so that not all of the emulated processor is spent on load while something is waited for.
bursts="--thinktime=10ms --thinktime_blocks=16"

# load_start NAME COMMAND...: runs the command again and again until load_stop; a failure is kept.
load_start() {
    local name=$1
    shift
    rm -f "/tmp/load.$name.failed" /tmp/load.stop
    (rounds=0
     while [ ! -e /tmp/load.stop ]; do
         "$@" > "/tmp/load.$name.log" 2>&1 || { cp "/tmp/load.$name.log" "/tmp/load.$name.failed"; break; }
         rounds=$((rounds + 1))
         echo $rounds > "/tmp/load.$name.rounds"
     done) &
    loads="${loads:-} $!"
}

load_check() {
    local failed
    for failed in /tmp/load.*.failed; do
        [ ! -e "$failed" ] || { cat "$failed"; fail "the load failed: $failed"; }
    done
}

load_stop() {
    touch /tmp/load.stop
    for pid in $loads; do wait_for 60 gone "$pid"; done
    loads=''
    load_check
    cat /tmp/load.*.rounds
}

# clean_ext4 DEVICE / clean_xfs DEVICE: an unmounted file system has nothing to repair.
clean_ext4() { e2fsck -fn "$1" > /tmp/fsck.log 2>&1 || { tail -20 /tmp/fsck.log; fail "e2fsck on $1"; }; }
clean_xfs() { xfs_repair -n "$1" > /tmp/fsck.log 2>&1 || { tail -20 /tmp/fsck.log; fail "xfs_repair on $1"; }; }

# what_became_of_it: for a test that failed while it should have run.
what_became_of_it() {
    gone ${daemon:-0} || { echo "the daemon lives"; return; }
    local status=0
    wait $daemon || status=$?
    echo "the daemon has ended with status $status"
}

trap 'status=$?; [ $status = 0 ] || { what_became_of_it; echo "--- the daemon said:"; grep -m20 " error " $daemon_log; echo ...; tail -40 $daemon_log; }' EXIT
