# Words of the tests in tests/. $work is the test's folder, $daemon the daemon's process while it runs.
state=$work/state
socket=$state/api.sock

# start_daemon [FAULTS]: until it answers. More flags in $flags.
start_daemon() {
  UBLKD_FAULTS=${1:-} "$ublkd" --state "$state" ${flags:-} >> "$work/log" 2>&1 &
  daemon=$!
  local i
  for ((i = 0; i < 600; ++i)); do
    if "$ebs_cli" --socket "$socket" version > /dev/null 2>&1; then return 0; fi
    kill -0 "$daemon" 2> /dev/null || { echo "the daemon ended at its start"; return 1; }
    sleep 0.05
  done
  echo "the daemon does not answer"
  return 1
}
kill_daemon() {    # SIGKILL
  kill -KILL "$daemon"
  wait "$daemon" 2> /dev/null || true
  daemon=''
}
stop_daemon() {    # SIGTERM; its exit status has to be 0
  kill -TERM "$daemon"
  wait "$daemon"
  daemon=''
}
wait_for_death() {    # a fault point kills it
  local i
  for ((i = 0; i < 400; ++i)); do
    if ! kill -0 "$daemon" 2> /dev/null; then
      wait "$daemon" 2> /dev/null || true
      daemon=''
      return 0
    fi
    sleep 0.05
  done
  echo "the daemon did not die"
  return 1
}

ebs() { "$ebs_cli" --socket "$socket" "$@"; }
two_pools() {
  ebs init --dir "$work/a" --domain a > /dev/null
  ebs pool add "$work/b" --domain b > /dev/null
}

fail() { echo "expected: $*"; return 1; }
same() { [ "$1" = "$2" ] || fail "'$2', got '$1'"; }
has() { [[ $1 == *"$2"* ]] || fail "'$2' in '$1'"; }
lacks() { [[ $1 != *"$2"* ]] || fail "no '$2' in '$1'"; }

# refused EXIT TEXT ARGUMENTS...: ebs-cli ends with EXIT, says TEXT on stderr and nothing on stdout.
refused() {
  local exit=$1 text=$2 status=0
  shift 2
  ebs "$@" > "$work/out" 2> "$work/err" < /dev/null || status=$?
  [ "$status" = "$exit" ] || fail "exit $exit of 'ebs-cli $*', got $status: $(cat "$work/out" "$work/err")"
  [ ! -s "$work/out" ] || fail "nothing on stdout of 'ebs-cli $*', got $(cat "$work/out")"
  has "$(cat "$work/err")" "$text"
}

# api METHOD PATH [BODY]: the answer's body; its status in $work/status.
api() {
  curl --silent --max-time 60 --unix-socket "$socket" --request "$1" ${3:+--data-binary "$3"} \
    --output "$work/answer" --write-out '%{http_code}' "http://localhost$2" > "$work/status"
  cat "$work/answer"
}
# denied STATUS CODE TEXT METHOD PATH [BODY]: the error body, whole.
denied() {
  local status=$1 code=$2 text=$3 answer
  shift 3
  answer=$(api "$@")
  same "$(cat "$work/status") of $*" "$status of $*"
  same "$(jq -r .code <<< "$answer")" "$code"
  has "$(jq -r .message <<< "$answer")" "$text"
  [[ $(jq -r .request_id <<< "$answer") == req-0* ]] || fail "a request id in $answer"
}

# until_true SECONDS COMMAND...
until_true() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || fail "'$*' in time"
    sleep 0.1
  done
}
health_is() { has "$(ebs volume list --columns health -o tsv --filter "name=$1")" "$2" > /dev/null; }
uri() { ebs volume show "$1" -o json | jq -r '.Attachments[0].Device'; }
# How many replicas lie in the pools' folders.
replicas() { find "$work"/*/replicas -mindepth 1 -maxdepth 1 2> /dev/null | wc -l; }
# What there is, as one text: to compare before and after something that was refused.
everything() {
  ebs volume list -o json
  ebs pool list -o json | jq 'del(.Pools[].FreeBytes)'
  ebs instance list -o json
  ebs attachment list -o json
  ebs tag list -o json
  ebs permission list -o json
  find "$work"/*/replicas -mindepth 1 2> /dev/null | sort
}
