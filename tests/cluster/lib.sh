# Words of the tests in tests/, beside those of tests/cli and tests/history. A host is a daemon with a folder, a pool and a loopback
# address of its own. $history is the tool; a load's process is $load. The first host has the metadata.
. "$here/../history/lib.sh"
net=127.$((RANDOM % 200 + 20)).$((RANDOM % 250))    # of this test, beside others that run at the same time
declare -A pid=()
first=''
shown=()

end_hosts() {
  local status=$? name
  for name in "${!pid[@]}"; do { kill -KILL "${pid[$name]}" && wait "${pid[$name]}"; } 2> /dev/null || true; done
  if [ $status != 0 ]; then for name in "${!pid[@]}"; do echo "--- $name:"; tail -n 25 "$work/$name.log"; done; fi
  return $status
}
on() { local host=$1; shift; "$ebs_cli" --socket "$work/$host/api.sock" "$@"; }    # ebs-cli, at a host
# start_host NAME [FAULTS]: until it answers.
start_host() {
  local name=$1 i
  UBLKD_FAULTS=${2:-} "$ublkd" --state "$work/$name" >> "$work/$name.log" 2>&1 &
  pid[$name]=$!
  for ((i = 0; i < 400; ++i)); do
    if on "$name" version > /dev/null 2>&1; then return 0; fi
    kill -0 "${pid[$name]}" 2> /dev/null || fail "a daemon that runs on $name"
    sleep 0.05
  done
  fail "an answer of $name"
}
kill_host() { kill -KILL "${pid[$1]}"; wait "${pid[$1]}" 2> /dev/null || true; unset "pid[$1]"; }
stop_host() { kill -TERM "${pid[$1]}"; wait "${pid[$1]}"; unset "pid[$1]"; }    # its exit status has to be 0
signal_host() { kill -"$2" "${pid[$1]}"; }    # NAME SIGNAL
authority() {    # NAME: $work/pki/NAME-cert.pem and its key
  mkdir -p "$work/pki"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -days 2 -keyout "$work/pki/$1-key.pem" \
    -out "$work/pki/$1-cert.pem" 2> "$work/pki/log" || { cat "$work/pki/log"; return 1; }
}
# certify AUTHORITY HOST [NAME]: the host's certificate, with its name or another one, and what its [cluster] says of it.
certify() {
  local to=$work/pki/$2
  {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$2" -keyout "$to-key.pem" -out "$to.csr"
    openssl x509 -req -in "$to.csr" -CA "$work/pki/$1-cert.pem" -CAkey "$work/pki/$1-key.pem" -CAcreateserial -days 1 \
      -extfile <(echo "subjectAltName=URI:ublkd:host:${3:-$2}") -out "$to-cert.pem"
  } 2> "$work/pki/log" || { cat "$work/pki/log"; return 1; }
  printf 'tls_certificate = "%s-cert.pem"\ntls_key = "%s-key.pem"\ntls_ca = "%s/pki/hosts-cert.pem"\n' "$to" "$to" "$work" \
    >> "$work/$2/ublkd.toml"
}
with_tls=''    # else hosts have certificates, and the metadata over TLS
metadata_of() {    # NUMBER: what a host's [cluster] says of it; the first one has them
  if [ -n "${metadata_is:-}" ]; then
    echo "metadata = \"$metadata_is\""
  elif [ "$1" = 1 ]; then
    [ -z "$with_tls" ] || echo "metadata_listen = \"$net.1:7070\""
  elif [ -n "$with_tls" ]; then
    echo "metadata = \"https://$net.1:7070\""
  else
    echo "metadata = \"$work/$first/metadata.sock${relayed:+.$name}\""
  fi
}
enrolled=''    # else hosts have entered their cluster by 'ebs-cli cluster'
host_is() { [ "$(on "$first" host list --filter "name=$1" --columns state -o tsv)" = "$2" ]; }    # HOST STATE
again() { stop_host "$1"; start_host "$1" "${2:-}"; }    # HOST [FAULTS]
# enrol NAME NUMBER: the first one makes the cluster, another one joins it; then it runs as a host of it.
enrol() {
  mkdir -p "$work/$1"
  start_host "$1" "${faults:-}"
  if [ "$2" = 1 ]; then
    on "$1" cluster init --listen "$net.$2:7071" --name "$1" > /dev/null 2>&1
  else
    on "$first" cluster token -q | on "$1" cluster join - --listen "$net.$2:7071" --name "$1" > /dev/null 2>&1
  fi
  again "$1" "${faults:-}"
}
# new_hosts NAME...: each made, started and initialized with a pool in a failure domain of its own; but those called meta and
# far…, which have none.
new_hosts() {
  local name number=0 pools=0
  trap 'end_hosts; finish' EXIT
  [ -z "$with_tls" ] || authority hosts
  for name in "$@"; do
    number=$((number + 1))
    if [ -n "$enrolled" ]; then
      first=${first:-$name}
      enrol "$name" "$number"
      on "$name" pool add "$work/$name.pool" --domain "$name" > /dev/null
      pools=$((pools + 1))
      continue
    fi
    mkdir -p "$work/$name"
    printf '[host]\nname = "%s"\n[cluster]\nlisten = "%s.%s:7071"\n' "$name" "$net" "$number" > "$work/$name/ublkd.toml"
    [ -z "$with_tls" ] || certify hosts "$name"
    metadata_of "$number" >> "$work/$name/ublkd.toml"
    [ ! -e "$work/cluster_keys" ] || cat "$work/cluster_keys" >> "$work/$name/ublkd.toml"
    printf '%s' "${settings:-}" >> "$work/$name/ublkd.toml"
    first=${first:-$name}
    start_host "$name" "${faults:-}"
    if [[ $name == meta || $name == far* ]]; then on "$name" init > /dev/null; continue; fi
    on "$name" init --dir "$work/$name.pool" --domain "$name" > /dev/null
    pools=$((pools + 1))
  done
  until_true 20 all_pools_are_known $pools
}
# The same, and the network between them is relay.py; the first one has to be meta.
new_hosts_over_relay() {
  local name id number=0 hosts=() relayed=yes
  for name in "$@"; do hosts+=("$name=$((++number))"); done
  mkdir -p "$work/$1"
  coproc relay { exec python3 "$here/../cluster/relay.py" "$net" "$work/$1/metadata.sock" "${hosts[@]}" 2> "$work/relay.log"; }
  pid[relay]=$relay_PID
  read -r -t 20 _ <&"${relay[0]}" || fail "a relay: $(cat "$work/relay.log")"
  new_hosts "$@"
  while read -r name id; do network host "$name" "$id"; done < <(on "$first" host list -o json | jq -r '.Hosts[] | "\(.Name) \(.HostId)"')
}
# start_etcd [SCHEME FLAGS...]: a private one at an address of its own, until it serves; what it has stays over kill_host etcd. Where it wants
# something, $shown are etcdctl's flags for it, and the file cluster_keys has the hosts'.
start_etcd() {
  local client=${1:-http}://$net.250:2379 peer=http://$net.250:2380
  metadata_is=etcd:$client
  etcd --data-dir "$work/etcd" --listen-client-urls $client --advertise-client-urls $client --listen-peer-urls $peer \
    --initial-advertise-peer-urls $peer --initial-cluster default=$peer --heartbeat-interval 20 --election-timeout 200 "${@:2}" \
    >> "$work/etcd.log" 2>&1 &
  pid[etcd]=$!
  trap 'end_hosts; finish' EXIT
  until_true 20 etcd_serves
}
etcd_serves() { curl -s --max-time 1 ${shown[@]+"${shown[@]}"} "${metadata_is#etcd:}/health" | grep -q '"true"'; }
network() {    # COMMAND...: of relay.py
  echo "$*" >&"${relay[1]}"
  read -r -t 20 _ <&"${relay[0]}" || fail "the relay's answer to $*"
}
apart() { network cut "$1" "$2" ${3:-}; network cut "$2" "$1" ${3:-}; }    # HOST HOST [KIND]: both ways
# Of each host's pool the others know: a volume can have so many replicas.
all_pools_are_known() {
  local host
  for host in "${!pid[@]}"; do
    [[ $host != relay && $host != etcd ]] || continue
    on "$host" volume create --size 1M --replicas $(($1 > 3 ? 3 : $1)) --dry-run > /dev/null 2>&1 || return 1
  done
}
uri_on() { echo "nbd+unix:///$2?socket=$work/$1/nbd.sock"; }    # HOST VOLUME
health_on() { on "$1" volume show "$2" -o json | jq -r '.Volumes[0] // . | "\(.Health.State) \(.Health.InSync)/\(.Health.Wanted)"'; }
is_healthy() { [ "$(health_on "$1" "$2")" = "$3" ]; }    # HOST VOLUME "ok 2/2"
primary_of() { host_of "$1" primary; }
# The host of a volume's replica of this role, by name.
host_of() {
  local id
  id=$(on "$first" volume show "$1" -o json | jq -r --arg role "$2" '.Volumes[0] // . | .Replicas[] | select(.Role == $role) | .HostId')
  on "$first" host list -o json | jq -r --arg id "$id" '.Hosts[] | select(.HostId == $id) | .Name'
}
replicas_in() { ls "$work/$1.pool/replicas" 2> /dev/null | wc -l; }    # HOST
number_of() { on "$first" volume show "$1" -o json | jq -r '.Volumes[0] // . | .Number'; }
answers() { grep -c '^<' "$work/$1.history" || true; }    # so many of a load, NAME, so far
host_id() { on "$first" host list -o json | jq -r --arg name "$1" '.Hosts[] | select(.Name == $name) | .HostId'; }    # NAME
replica_on() {    # VOLUME HOST: the id of its replica there
  on "$first" volume show "$1" -o json | jq -r --arg id "$(host_id "$2")" '.Volumes[0] // . | .Replicas[] | select(.HostId == $id) | .ReplicaId'
}
volume_id() { on "$first" volume show "$1" -o json | jq -r '.Volumes[0] // . | .VolumeId'; }
askers() { python3 "$here/../cluster/askers.py" "$@"; }
replicas_everywhere() { find "$work"/*.pool/replicas -mindepth 1 -maxdepth 1 2> /dev/null | wc -l; }    # folders, at all hosts
replicas_are() { [ "$(replicas_everywhere)" = "$1" ]; }
moved_from() { local now; now=$(primary_of "$1") && [ -n "$now" ] && [ "$now" != "$2" ]; }    # VOLUME HOST
died() { ! kill -0 "${pid[$1]}" 2> /dev/null; }    # HOST, by a fault point
until_it_dies() { until_true 30 died "$1"; wait "${pid[$1]}" 2> /dev/null || true; unset "pid[$1]"; }    # HOST
moved_to() { [ "$(primary_of "$1")" = "$2" ]; }    # VOLUME HOST
in_sync_are() { [[ $(health_on "$first" "$1") == *" $2/"* ]]; }    # VOLUME NUMBER
answers_beyond() { local now; now=$(answers "$1" 2> /dev/null) && [ "${now:-0}" -gt "$2" ]; }    # LOAD NUMBER
# Both replicas are the same, byte for byte, when nobody has the volume any more.
is_whole() { [[ $(health_on "$first" "$1") == ok* ]]; }    # VOLUME
equal_at_rest() {    # VOLUME HOST...: that are attached
  local volume=$1 host
  shift
  until_true 40 is_whole "$volume"    # a failover that ended the last test step may have left a member out
  for host in "$@"; do on "$host" detach "$volume" > /dev/null; done
  for host in "${!pid[@]}"; do [[ $host == relay || $host == "$first" ]] || stop_host "$host"; done
  stop_host "$first"
  cmp $(ls "$work"/*.pool/replicas/*/data)
}
