# PostgreSQL in the guest: a database of its own on a mounted file system, and pgbench on it, which adds a row to a table in each transaction.
# Sourced after daemon.sh. The server refuses to run as root, and the shell prefers its own setpriv.

postgres_bin=$(echo /usr/lib/postgresql/*/bin)
as_postgres="/bin/setpriv --reuid 901 --regid 901 --clear-groups"   # no function: of one in the background $! is a shell
query() { $as_postgres "$postgres_bin/psql" -h /tmp/postgres -U postgres -At -c "$1" postgres; }

# database_new MOUNT_POINT
database_new() {
    database=$1/data
    mkdir -p "$database" /tmp/postgres
    chown 901:901 "$database" /tmp/postgres
    $as_postgres "$postgres_bin/initdb" -D "$database" -U postgres -A trust --no-locale -E UTF8 > /tmp/postgres/initdb.log 2>&1 \
        || { cat /tmp/postgres/initdb.log; fail initdb; }
    printf "listen_addresses = ''\nunix_socket_directories = '/tmp/postgres'\nshared_buffers = 16MB\njit = off\nmax_wal_size = 64MB\n" \
        >> "$database/postgresql.conf"
    database_start
    $as_postgres "$postgres_bin/pgbench" -h /tmp/postgres -U postgres -i -s 1 --quiet postgres > /tmp/postgres/init.log 2>&1 \
        || { cat /tmp/postgres/init.log; fail "pgbench -i"; }
}

database_answers() { query 'select 1'; }
database_start() {
    $as_postgres "$postgres_bin/postgres" -D "$database" >> /tmp/postgres/log 2>&1 &
    postgres=$!
    wait_for 60 database_answers
}
database_stop() {
    kill -INT $postgres   # fast
    wait_for 60 gone $postgres
}
# SIGKILL of all of it.
database_kill() {
    killall -KILL postgres
    wait_for 20 gone $postgres
    sleep 1
}

bench_start() {
    $as_postgres "$postgres_bin/pgbench" -h /tmp/postgres -U postgres -c 2 -T 3600 -n postgres > /tmp/postgres/bench.log 2>&1 &
    bench=$!
}
# Ends it; what it says it has committed is added to $committed.
bench_end() {
    query "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgbench'" > /dev/null
    wait $bench || true
    local count
    count=$(sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' /tmp/postgres/bench.log)
    [ "${count:-0}" -gt 0 ] || { cat /tmp/postgres/bench.log; fail "pgbench committed nothing"; }
    committed=$((committed + count))
    echo "committed: $committed"
}

# database_has COUNT: at least so many transactions (one whose answer was cut off may be there too), each of them whole.
database_has() {
    local rows sums
    rows=$(query 'select count(*) from pgbench_history')
    [ "$rows" -ge "$1" ] || fail "$rows rows of $1 committed transactions"
    [ "$rows" -le $(($1 + 100)) ] || fail "$rows rows, $1 were committed"
    sums=$(query 'select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches),
        (select sum(tbalance) from pgbench_tellers), (select coalesce(sum(delta), 0) from pgbench_history)')
    [ "$(echo "$sums" | tr '|' '\n' | sort -u | wc -l)" = 1 ] || fail "transactions in part: $sums"
    ! grep -E 'PANIC|ERROR: .*(read|write|I/O)|invalid page|checksum' /tmp/postgres/log || fail "the server's log"
}

# The journal of a file system whose user was killed is played back by a mount.
clean_ext4_after_journal() { e2fsck -fy "$1" > /tmp/fsck.log 2>&1 || [ $? = 1 ] || { tail -20 /tmp/fsck.log; fail "e2fsck on $1"; }; }
