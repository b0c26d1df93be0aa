#!/usr/bin/env bash
# Deploys the theater's part of ctx2: the three services, Redis, and the routing rules.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

help() {
  say "Usage: $PROGRAM [OPTIONS]
Deploys the part of ctx2: the three services, Redis, and the routing rules." \
    "사용법: $PROGRAM [옵션]
배포하는 것은 다음과 같습니다. ctx2: 세 서비스, Redis, 라우팅 규칙."
  deploy_options_help
}

deploy_one ctx2 "$@"
