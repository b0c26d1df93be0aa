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
  test      20 requests at once to each service, counted; then to movie-service behind a circuit breaker that opens

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
  test      서비스마다 동시에 20번 요청하고 응답을 셉니다. 그다음 movie-service 앞에 열리는 서킷 브레이커를 두고 다시 셉니다

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

# ask PATH: 20 requests at once, and how often each answer came.
ask() {
  local url="${THEATER_URL:-https://theater.$DOMAIN}/$1/"
  say "== $url: 20 requests at once: how often, status, cluster, whole seconds" "== $url: 동시에 20번 요청: 횟수, 상태, 클러스터, 초(정수)"
  {
    for _ in $(seq 20); do
      curl -sk --max-time 10 -D - -w '\ntime: %{time_total}\n' "$url" | tr -d '\r' | awk '
        body == 1 && text == "" { text = substr($0, 1, 100) }
        /^HTTP\// { status = $2 }
        body == 0 && tolower($1) == "x-service-cluster:" { cluster = $2 }
        /^$/ { body = 1 }
        $1 == "time:" { seconds = int($2) }
        END {
          if (status == "") status = "-"
          if (cluster == "") cluster = "-"
          said = ""
          if (status ~ /^[45]/ && text != "") said = "  " text
          printf("%s %s %ds%s\n", status, cluster, seconds, said)
        }' &
    done
    wait
  } | sort | uniq -c
}

RULE=movie-service-dr
SAVED=""

# put_rule CONTEXT JSON: the spec of the rule.
put_rule() {
  kubectl --context "$1" -n "$NAMESPACE" patch destinationrules.networking.istio.io "$RULE" --type=json \
    -p "[{\"op\":\"replace\",\"path\":\"/spec\",\"value\":$2}]"
}

restore_rules() {
  local context number=0
  for context in $contexts; do
    number=$((number + 1))
    if [ -s "$SAVED/$number" ]; then
      put_rule "$context" "$(cat "$SAVED/$number")"
    elif [ -f "$SAVED/$number" ]; then
      kubectl --context "$context" -n "$NAMESPACE" delete destinationrules.networking.istio.io "$RULE"
    fi
  done
  rm -rf "$SAVED"
}

# in_force CONTEXT: waits until the sidecar that asks movie-service has the limits.
in_force() {
  kubectl --context "$1" -n "$NAMESPACE" get deployment api-gateway >/dev/null 2>&1 || return 0
  for _ in $(seq 20); do
    if kubectl --context "$1" -n "$NAMESPACE" exec deploy/api-gateway -c istio-proxy -- pilot-agent request GET clusters 2>/dev/null |
      grep 'movie-service.*::default_priority::max_connections::' | grep -qv '::1$'; then
      sleep 0.5
    else
      return 0
    fi
  done
  warn "'$1': the sidecar of api-gateway does not show the rule; asking all the same" \
    "'$1': api-gateway의 사이드카에서 규칙이 보이지 않지만 그대로 요청합니다"
}

# A circuit breaker that opens. The rule that was there is put back, also when this is interrupted.
exercise() {
  local context number=0 spec
  say "== circuit breaker: one connection to movie-service, one request may wait, the others are 503 (flag UO); a pod that fails is left out (UH)" \
    "== 서킷 브레이커: movie-service로 연결 하나, 대기 하나만 허용하고 나머지는 503 (플래그 UO). 실패하는 파드는 제외됩니다 (UH)"
  SAVED="$(mktemp -d)"
  trap restore_rules EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  for context in $contexts; do
    number=$((number + 1))
    spec="$(kubectl --context "$context" -n "$NAMESPACE" get destinationrules.networking.istio.io "$RULE" \
      --ignore-not-found -o 'jsonpath={.spec}')"
    printf '%s' "$spec" >"$SAVED/$number"
    if [ -n "$spec" ]; then
      put_rule "$context" "$(kubectl --context "$context" create -f "$HERE/fault-injection/breaker.yaml" \
        --dry-run=client -o 'jsonpath={.spec}')"
    else
      kubectl --context "$context" create -f "$HERE/fault-injection/breaker.yaml"
    fi
  done
  for context in $contexts; do
    in_force "$context"
  done
  ask movies
}

test_services() {
  ask users
  ask movies
  ask bookings
  exercise
}

case "$command" in
  setup) apply istio-circuit-breaker.yaml ;;
  recover | reset) recover ;;
  status) status ;;
  test) test_services ;;
  *) apply "fault-injection/$command.yaml" ;;
esac
