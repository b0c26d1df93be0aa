#!/usr/bin/env bash
# Deploys the theater to both clusters, ctx2 first because the store is there, and lets the page read ctx2.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

help() {
  say "Usage: $PROGRAM [OPTIONS]
Deploys the theater to both clusters (contexts ctx1 and ctx2) and gives the page in ctx1 an account
of ctx2 that may read what the page shows." \
    "사용법: $PROGRAM [옵션]
두 클러스터(ctx1, ctx2 컨텍스트)에 극장을 배포하고, ctx1의 페이지가 ctx2를 읽을 수 있는
계정을 건네줍니다."
  deploy_options_help
  say "
CTX2_SERVER   address of ctx2's API server as pods of ctx1 reach it (default: that of the kubeconfig)" \
    "
CTX2_SERVER   ctx1의 파드가 쓰는 ctx2 API 서버 주소 (기본값: kubeconfig의 주소)"
}

# config JSONPATH: a field of the kubeconfig's part about ctx2.
config() {
  kubectl config view --raw --minify --flatten --context ctx2 -o "jsonpath={$1}"
}

# The page in ctx1 shows the pods of ctx2, too: it reads them with a kubeconfig in a Secret.
connect_page() {
  local server ca token
  server="${CTX2_SERVER:-$(config '.clusters[0].cluster.server')}"
  case "$server" in
    *://127.* | *://localhost* | *://\[::1\]*)
      # An address of this machine means nothing inside a pod. `theater up` has made the Secret itself.
      kubectl --context ctx1 -n "$NAMESPACE" get secret remote-cluster-kubeconfig >/dev/null 2>&1 || warn \
        "warning: the page cannot show the pods of ctx2: $server is an address of this machine only; run again with CTX2_SERVER=https://ADDRESS:PORT as pods of ctx1 reach it (https://203.0.113.65:6443 in the built-in clusters)" \
        "경고: 페이지가 ctx2의 파드를 보여 줄 수 없습니다. $server는 이 컴퓨터에서만 통하는 주소입니다. ctx1의 파드가 쓸 수 있는 주소를 CTX2_SERVER=https://주소:포트 로 주고 다시 실행하세요(내장 클러스터라면 https://203.0.113.65:6443)"
      return 0
      ;;
  esac
  say "== giving the page in ctx1 read access to ctx2" "== ctx1의 페이지에 ctx2 읽기 권한을 줍니다"
  ca="$(config '.clusters[0].cluster.certificate-authority-data')"
  token="$(kubectl --context ctx2 -n "$NAMESPACE" create token api-gateway --duration=8760h)" || fail \
    "ctx2 gives no token for the service account $NAMESPACE/api-gateway" \
    "ctx2가 서비스 계정 $NAMESPACE/api-gateway의 토큰을 주지 않습니다"
  local authority=""
  # Without an own authority the cluster is known to the public ones.
  if [ -n "$ca" ]; then
    authority="certificate-authority-data: $ca"
  fi
  # Over standard input: what is secret must not be an argument, which every process can read.
  kubectl --context ctx1 -n "$NAMESPACE" create secret generic remote-cluster-kubeconfig \
    --from-file=kubeconfig=/dev/stdin --dry-run=client -o yaml <<KUBECONFIG |
apiVersion: v1
kind: Config
current-context: ctx2
clusters:
- name: ctx2
  cluster:
    server: $server
    $authority
users:
- name: ctx2
  user:
    token: $token
contexts:
- name: ctx2
  context:
    cluster: ctx2
    user: ctx2
KUBECONFIG
    kubectl --context ctx1 apply --server-side --force-conflicts -f - || fail \
    "the Secret $NAMESPACE/remote-cluster-kubeconfig could not be written to ctx1" \
    "ctx1에 Secret $NAMESPACE/remote-cluster-kubeconfig를 쓰지 못했습니다"
}

read_deploy_options "$@"
check_kubectl
for cluster in ctx1 ctx2; do
  check_context "$cluster"
  check_mesh "$cluster"
done
confirm "Deploy the theater to ctx1 and ctx2 as https://$HOST?" \
  "극장을 ctx1과 ctx2에 https://$HOST 로 배포할까요?"
deploy_cluster ctx2
deploy_cluster ctx1
connect_page
say "Done: https://theater.$DOMAIN" "완료: https://theater.$DOMAIN"
