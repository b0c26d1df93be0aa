#!/usr/bin/env bash
# Removes the theater from the clusters. The mesh itself stays.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

help() {
  say "Usage: $PROGRAM [--all | --ctx1 | --ctx2 | --current] [-y | --yes] [-h | --help]
Removes the theater: the namespace $NAMESPACE with all bookings, the entry's VirtualService and the
API gateway's rights. Istio and its gateways stay.

  --all       both clusters, contexts ctx1 and ctx2 (this is the default)
  --ctx1      only ctx1
  --ctx2      only ctx2
  --current   only the cluster of the current context, whatever it is called
  -y, --yes   do not ask; nobody is asked either when standard input is not a terminal
  -h, --help  this text" \
    "사용법: $PROGRAM [--all | --ctx1 | --ctx2 | --current] [-y | --yes] [-h | --help]
극장을 지웁니다: 모든 예약을 포함한 네임스페이스 $NAMESPACE, 입구의 VirtualService, API 게이트웨이의
권한. Istio와 게이트웨이는 남습니다.

  --all       두 클러스터 모두, ctx1과 ctx2 컨텍스트 (기본값)
  --ctx1      ctx1에서만
  --ctx2      ctx2에서만
  --current   이름과 관계없이 현재 컨텍스트의 클러스터에서만
  -y, --yes   묻지 않습니다. 표준 입력이 터미널이 아니어도 묻지 않습니다
  -h, --help  이 도움말"
}

# remove CONTEXT: what is not there is no error.
remove() {
  say "== $1: removing the theater" "== $1: 극장을 지웁니다"
  local failed=0
  # The way in goes first: no request then meets a theater that is half gone.
  if kubectl --context "$1" get crd virtualservices.networking.istio.io >/dev/null 2>&1; then
    kubectl --context "$1" -n "$ISTIO_NAMESPACE" delete virtualservices.networking.istio.io theater-msa \
      --ignore-not-found || failed=1
  fi
  kubectl --context "$1" delete namespace "$NAMESPACE" --ignore-not-found --timeout="$TIMEOUT" || failed=1
  kubectl --context "$1" -n "$ISTIO_NAMESPACE" delete rolebinding,role theater-api-gateway --ignore-not-found || failed=1
  kubectl --context "$1" delete clusterrolebinding,clusterrole theater-api-gateway --ignore-not-found || failed=1
  return $failed
}

contexts="ctx1 ctx2"
chosen=""
while [ $# -gt 0 ]; do
  case "$1" in
    --all | --ctx1 | --ctx2 | --current)
      if [ -n "$chosen" ] && [ "$chosen" != "$1" ]; then
        wrong_usage "$chosen and $1 exclude each other" "$chosen 와(과) $1 은(는) 함께 쓸 수 없습니다"
      fi
      chosen="$1"
      ;;
    -y | --yes) ASSUME_YES=true ;;
    -h | --help) help; exit 0 ;;
    *) wrong_usage "unknown argument '$1'" "알 수 없는 인자 '$1'" ;;
  esac
  shift
done
check_kubectl
case "$chosen" in
  --ctx1) contexts=ctx1 ;;
  --ctx2) contexts=ctx2 ;;
  --current)
    contexts="$(kubectl config current-context 2>/dev/null)" || fail \
      "no context is current; choose one with: kubectl config use-context NAME" \
      "현재 컨텍스트가 없습니다. 다음으로 고르세요: kubectl config use-context 이름"
    ;;
esac
confirm "Remove the theater and all its bookings from: $contexts?" \
  "극장과 모든 예약을 다음에서 지울까요: $contexts?"
failed=""
for context in $contexts; do
  # One cluster that is away must not keep the other from being cleaned.
  if ! (check_context "$context") || ! remove "$context"; then
    failed="$failed $context"
  fi
done
if [ -n "$failed" ]; then
  fail "not everything could be removed from:$failed" "다음에서 모두 지우지는 못했습니다:$failed"
fi
say "Done." "완료."
