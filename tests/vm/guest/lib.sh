# What every test may use; sourced before it. A test is a busybox sh script that ends with status 0, or fails by `fail`.
set -eu

fail() { echo "FAILED: $*"; exit 1; }

# wait_for SECONDS COMMAND...: runs the command five times a second until it succeeds.
wait_for() {
    local end=$(($(cut -d. -f1 /proc/uptime) + $1 * SLOWNESS))
    shift
    until "$@" > /tmp/wait_for.log 2>&1; do
        if [ "$(cut -d. -f1 /proc/uptime)" -ge "$end" ]; then
            tail -5 /tmp/wait_for.log
            fail "waited in vain for: $*"
        fi
        sleep 0.2
    done
}

# gone PID: it has ended (a child that nobody waited for yet counts).
gone() { ! kill -0 "$1" 2>/dev/null || grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; }

# random BELOW: a number from 0 to BELOW-1.
random() { echo $(($(od -An -N4 -tu4 /dev/urandom) % $1)); }

# cut_power SECONDS: asks the host to kill the machine at a random moment within SECONDS. The test goes on meanwhile; the next
# boot runs it with PHASE one higher.
cut_power() { printf '\n@cut %s\n' "$1"; }
