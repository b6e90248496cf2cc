# One volume of one replica as a ublk device ($ours) and the kernel's loop driver with direct I/O ($loop), on files of one file
# system, both filled. Sourced by what compares them; it needs disk `a`.

size=$((384 << 20))
mkfs.ext4 -qF /dev/vm/a
mkdir -p /mnt
mount /dev/vm/a /mnt
mkdir /mnt/replicas
bench_volume_server --ublk --folder /mnt/replicas --size $size > /tmp/server.log 2>&1 &
server=$!
wait_for 20 grep -q '^ready' /tmp/server.log || { cat /tmp/server.log; fail "the server does not come up"; }
ours=$(grep '^/dev/ublkb' /tmp/server.log)
truncate -s $size /mnt/file
loop=$(/bin/losetup --find --show --direct-io=on /mnt/file)
[ "$(cat /sys/block/${loop#/dev/}/loop/dio)" = 1 ] || fail "loop has no direct I/O"
echo none > /sys/block/${loop#/dev/}/queue/scheduler
for device in $ours $loop; do
    fio --name=fill --filename=$device --direct=1 --ioengine=io_uring --rw=write --bs=512k --iodepth=4 > /dev/null
done
sync

# load DEVICE RW DEPTH SECONDS: fio's result as JSON.
load() {
    fio --name=x --filename="$1" --direct=1 --ioengine=io_uring --rw="$2" --bs=4k --iodepth="$3" --time_based \
        --runtime="$4" --norandommap --output-format=json
}

both_end() {
    /bin/losetup -d $loop
    kill -TERM $server
    wait $server || { cat /tmp/server.log; fail "the server ended with an error"; }
    tail -1 /tmp/server.log
    umount /mnt
}
