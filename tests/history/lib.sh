# Words of the tests in tests/, beside those of tests/cli/lib.sh. $history is the tool; a load's process is $load.

# volume NAME REPLICAS: created and attached over NBD; its URI in $uri.
volume() {
  ebs volume create --size 32M --name "$1" --replicas "$2" > /dev/null
  ebs attach "$1" --frontend nbd > /dev/null 2>&1
  uri=$(uri "$1")
}
# start_load NAME SECONDS ARGUMENTS...: in the background; its history is $work/NAME.history, what it says $load_out.
start_load() {
  local name=$1 seconds=$2
  shift 2
  load_out=$work/$name.out
  setpriv --pdeathsig KILL "$history" load --out "$work/$name.history" --seconds "$seconds" --seed "${UBLKD_SEED:-$RANDOM}" "$@" > "$load_out" 2>&1 &
  load=$!
}
end_load() {    # [LEAST]: it read everything at the end, and at least so many operations were answered
  wait "$load" || { cat "$load_out"; return 1; }
  answered=$(sed -n 's/.* \([0-9]*\) answered.*/\1/p' "$load_out")
  [ "$answered" -ge "${1:-300}" ] || fail "${1:-300} answered operations, got $(cat "$load_out")"
}
# A history that is found impossible stays for whoever looks into it.
possible() {    # FILE...
  "$history" check "$@" > "$work/verdict" || {
    cat "$work/verdict"
    kept=$(mktemp -d "${TMPDIR:-/tmp}/ublkd-history.XXXXXX")
    cp "$@" "$kept"
    echo "the history is kept in $kept"
    return 1
  }
  head -1 "$work/verdict"
}
impossible() {    # FILE...: and the report is shown
  local status=0
  "$history" check "$@" > "$work/verdict" || status=$?
  [ $status = 1 ] || fail "an impossible history, got status $status: $(cat "$work/verdict")"
  head -6 "$work/verdict"
}
# The ids of the replicas that hold a place, in one line.
replicas_of_permissions() { ebs permission list -o json | jq -r '[.Permissions[].Incarnation] | sort | join(" ")'; }
count() { ebs event list --columns kind -o tsv | grep -c "^$1\$" || true; }    # events of a KIND
is_dead() { ! kill -0 "$daemon" 2> /dev/null; }    # a fault point has killed it
