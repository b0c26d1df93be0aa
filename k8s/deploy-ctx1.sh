#!/usr/bin/env bash
# Deploys the theater's part of ctx1: the three services, the API gateway with the page, and the routing rules.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

help() {
  say "Usage: $PROGRAM [OPTIONS]
Deploys the part of ctx1: the three services, the API gateway with the page, and the routing rules." \
    "사용법: $PROGRAM [옵션]
배포하는 것은 다음과 같습니다. ctx1: 세 서비스, 페이지를 가진 API 게이트웨이, 라우팅 규칙."
  deploy_options_help
}

deploy_one ctx1 "$@"
