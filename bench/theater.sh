#!/usr/bin/env bash
# What a person feels, measured on the running program: time to the first routed answer, memory, idle CPU,
# how long a patch takes to work, and requests per second through gateway, sidecars and mutual TLS.
# Prints figures; asserts nothing. Needs curl and kubectl; wrk for the last line.
#   bench/theater.sh [PROGRAM]        default: target/release/theater
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "${1:-target/release/theater}")
state=$(mktemp -d)
port=${PORT:-28080}
now() { date +%s%N; }
ms() { echo $((($2 - $1) / 1000000)); }
url=http://theater.localhost:$port/users/

cleanup() {
  kill -INT "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  rm -rf "$state"
}

# The supervisor and everything below it.
processes() {
  local queue=("$pid") next
  while [ ${#queue[@]} -gt 0 ]; do
    next=${queue[0]}
    queue=("${queue[@]:1}")
    echo "$next"
    mapfile -t -O ${#queue[@]} queue < <(cat /proc/"$next"/task/*/children 2>/dev/null | tr ' ' '\n' | grep . || true)
  done
}
pss() { for p in $(processes); do awk '/^Pss:/{print $2}' "/proc/$p/smaps_rollup" 2>/dev/null || true; done | awk '{s += $1} END {printf "%.0f", s / 1024}'; }
ticks() { for p in $(processes); do awk '{print $14 + $15}' "/proc/$p/stat" 2>/dev/null || true; done | awk '{s += $1} END {print s}'; }

echo "load before: $(cut -d' ' -f1-3 /proc/loadavg), cores: $(nproc)"
t0=$(now)
"$program" up --state-dir "$state" --port "$port" --api-port 0 >"$state/up.log" 2>&1 &
pid=$!
trap cleanup EXIT
deadline=$((SECONDS + 60))
# Asked without a program of its own each time: a curl every few milliseconds would take a quarter of two cores from the start.
routed() (
  status=
  { exec 3<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null || exit 1
  printf 'GET /users/ HTTP/1.1\r\nHost: theater.localhost:%s\r\nConnection: close\r\n\r\n' "$port" >&3
  read -r -t 1 status <&3 2>/dev/null
  [[ $status == HTTP/1.1\ 200* ]]
)
until routed; do
  [ $SECONDS -lt $deadline ] || { cat "$state/up.log"; exit 1; }
  sleep 0.02
done
printf 'time to first routed 200     %6d ms   (target 2000)\n' "$(ms "$t0" "$(now)")"
until grep -q '^ *Theater\|^ *극장' "$state/up.log"; do [ $SECONDS -lt $deadline ]; done
eval "$("$program" env --state-dir "$state")"

sleep 5 # lets what only happens at the start come to rest: this is the measurement, not a test
printf 'memory idle (PSS)            %6d MB   (target 300)\n' "$(pss)"
before=$(ticks)
sleep 10
printf 'CPU idle                     %6s %% of a core (target 2)\n' "$(awk -v t=$(($(ticks) - before)) 'BEGIN {printf "%.1f", t / 10}')"

for weights in "100 0 ctx1" "0 100 ctx2" "100 0 ctx1"; do
  read -r one two wanted <<<"$weights"
  patch='{"spec":{"http":[{"route":[{"destination":{"host":"user-service","subset":"ctx1"},"weight":'$one'},{"destination":{"host":"user-service","subset":"ctx2"},"weight":'$two'}]}]}}'
  kubectl patch virtualservice user-service-vs -n theater-msa --context ctx1 --type merge -p "$patch" >/dev/null
  t0=$(now)
  until [ "$(curl -s -o /dev/null -D - "$url" | tr -d '\r' | awk 'tolower($1) == "x-service-cluster:" {print $2}')" = "$wanted" ]; do :; done
  printf 'patch to effect              %6d ms   (target 100, after kubectl returned)\n' "$(ms "$t0" "$(now)")"
done

for _ in $(seq 200); do
  curl -s -o /dev/null "$url" &
  sleep 0.05
done
printf 'memory at 20 requests/s      %6d MB   (target 300)\n' "$(pss)"
if command -v wrk >/dev/null; then
  wrk -t1 -c16 -d5s -H 'Host: theater.localhost' "http://127.0.0.1:$port/users/" |
    awk '/Requests\/sec/ {printf "requests/s, 16 connections   %6d\n", $2} /Latency/ {print "latency (mean, sd, max)      " $2, $3, $4}'
fi
