#!/usr/bin/env bash
# Faults on purpose, and the way back. `theater fault` does the same without kubectl.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

help() {
  say "Usage: $PROGRAM [--context NAME] COMMAND

  setup     circuit breakers: DestinationRules that eject pods which really fail
  delay     movie-service: answers of ctx2 take 3 s, those of ctx1 do not
  circuit   user-service: 30 % of the requests fail, 90 % with the header x-circuit-test: true
  error     user-service: 50 % of the requests fail
  block     booking-service: nothing goes to ctx2
  chaos     delay, error and block together
  recover   everything as it was in the beginning (also: reset)
  status    which faults are in force
  test      ask each service 20 times and count the answers

  --context NAME   only this cluster (default: ctx1 and ctx2, as far as the kubeconfig has them)
  -h, --help       this text

A pod that fails for real, for the circuit breakers of 'setup' to open (mode: error, hang or off):
  kubectl --context ctx2 -n $NAMESPACE exec deploy/user-service -c user-service -- \\
    curl -s -H 'content-type: application/json' -d '{\"mode\":\"error\"}' localhost:8081/fault" \
    "사용법: $PROGRAM [--context 이름] 명령

  setup     서킷 브레이커: 실제로 실패하는 파드를 제외하는 DestinationRule
  delay     movie-service: ctx2의 응답만 3초 늦어집니다
  circuit   user-service: 요청의 30%가 실패합니다. x-circuit-test: true 헤더가 있으면 90%
  error     user-service: 요청의 50%가 실패합니다
  block     booking-service: ctx2로 아무것도 가지 않습니다
  chaos     delay, error, block을 한꺼번에
  recover   처음 상태로 되돌립니다 (reset과 같음)
  status    지금 적용된 장애
  test      서비스마다 20번 요청하고 응답을 셉니다

  --context 이름   이 클러스터에만 (기본값: kubeconfig에 있는 ctx1과 ctx2)
  -h, --help       이 도움말

'setup'의 서킷 브레이커가 열리도록 파드를 실제로 실패시키려면 (mode: error, hang, off):
  kubectl --context ctx2 -n $NAMESPACE exec deploy/user-service -c user-service -- \\
    curl -s -H 'content-type: application/json' -d '{\"mode\":\"error\"}' localhost:8081/fault"
}

# An unknown option or command: the help, and 1.
refuse() {
  printf '%s: %s\n' "$PROGRAM" "$(say "$1" "$2")" >&2
  help >&2
  exit 1
}

command=""
contexts=""
while [ $# -gt 0 ]; do
  case "$1" in
    --context=*) contexts="${1#*=}" ;;
    --context) contexts="$(value "$1" "$@")" || exit 1; shift ;;
    -h | --help | help) help; exit 0 ;;
    -*) refuse "unknown option '$1'" "알 수 없는 옵션 '$1'" ;;
    *)
      [ -z "$command" ] || refuse "one command at a time: '$command' or '$1'" "명령은 하나만: '$command' 또는 '$1'"
      command="$1"
      ;;
  esac
  shift
done
case "$command" in
  "") help; exit 1 ;;
  setup | delay | circuit | error | block | chaos | recover | reset | status | test) ;;
  *) refuse "unknown command '$command'" "알 수 없는 명령 '$command'" ;;
esac
check_kubectl
if [ -z "$contexts" ]; then
  for context in ctx1 ctx2; do
    if kubectl config get-contexts "$context" >/dev/null 2>&1; then
      contexts="$contexts $context"
    fi
  done
  [ -n "$contexts" ] || fail "the kubeconfig has neither ctx1 nor ctx2; name a context with --context" \
    "kubeconfig에 ctx1도 ctx2도 없습니다. --context로 지정하세요"
fi
for context in $contexts; do
  check_context "$context"
done

# apply FILE: to each cluster; what is applied rules the callers there.
apply() {
  local context
  for context in $contexts; do
    kubectl --context "$context" apply -f "$HERE/$1"
  done
}

recover() {
  local context
  for context in $contexts; do
    kubectl --context "$context" -n "$NAMESPACE" delete envoyfilters.networking.istio.io -l theater/fault --ignore-not-found
    # Replaced, not applied: what a patch has added goes as well.
    kubectl --context "$context" replace --save-config -f "$HERE/istio-virtualservices.yaml" ||
      kubectl --context "$context" apply -f "$HERE/istio-virtualservices.yaml"
    kubectl --context "$context" replace --save-config -f "$HERE/istio-destinationrules.yaml" ||
      kubectl --context "$context" apply -f "$HERE/istio-destinationrules.yaml"
  done
}

status() {
  local context
  for context in $contexts; do
    say "== $context" "== $context"
    kubectl --context "$context" -n "$NAMESPACE" get virtualservices.networking.istio.io -o \
      'custom-columns=VIRTUALSERVICE:.metadata.name,FAULT:.spec.http[*].fault,WEIGHTS:.spec.http[*].route[*].weight'
    kubectl --context "$context" -n "$NAMESPACE" get destinationrules.networking.istio.io -o \
      'custom-columns=DESTINATIONRULE:.metadata.name,OUTLIER DETECTION:.spec.trafficPolicy.outlierDetection'
    kubectl --context "$context" -n "$NAMESPACE" get envoyfilters.networking.istio.io
  done
}

test_services() {
  local url="${THEATER_URL:-https://theater.$DOMAIN}" path
  for path in users movies bookings; do
    say "== $url/$path/: status, cluster, whole seconds, and how often" "== $url/$path/: 상태, 클러스터, 초(정수), 횟수"
    for _ in $(seq 20); do
      curl -sk --max-time 10 -o /dev/null -D - -w 'time: %{time_total}\n' "$url/$path/" | tr -d '\r' | awk '
        /^HTTP\// { status = $2 }
        tolower($1) == "x-service-cluster:" { cluster = $2 }
        $1 == "time:" { printf "%s %s %ds\n", status == "" ? "-" : status, cluster == "" ? "-" : cluster, int($2) }'
    done | sort | uniq -c
  done
}

case "$command" in
  setup) apply istio-circuit-breaker.yaml ;;
  recover | reset) recover ;;
  status) status ;;
  test) test_services ;;
  *) apply "fault-injection/$command.yaml" ;;
esac
