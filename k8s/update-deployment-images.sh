#!/usr/bin/env bash
# Writes the registry of one's own into the manifests beside this script, and takes it out again.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

help() {
  say "Usage: $PROGRAM [DOMAIN] [--registry NAME] [--tag TAG]
       $PROGRAM --restore
Lets the Deployments take the theater's images from harbor.DOMAIN/theater-msa. Each file that changes is
kept beside itself as FILE.bak, once: running this again, with whatever name, keeps what was there first.

  DOMAIN            your domain (default: \$DOMAIN)
  --registry NAME   take the images from NAME/user-service and so on instead
  --tag TAG         their tag (default: \$TAG, else latest)
  --restore         the manifests as they were; the .bak files go
  -h, --help        this text" \
    "사용법: $PROGRAM [도메인] [--registry 이름] [--tag 태그]
        $PROGRAM --restore
디플로이먼트가 극장 이미지를 harbor.도메인/theater-msa 에서 가져오게 합니다. 바뀌는 파일은 옆에 '파일.bak'으로
한 번만 보관합니다. 다른 이름으로 다시 실행해도 맨 처음 내용이 남습니다.

  도메인            내 도메인 (기본값: \$DOMAIN)
  --registry 이름   대신 '이름/user-service' 등에서 가져옵니다
  --tag 태그        그 태그 (기본값: \$TAG, 없으면 latest)
  --restore         매니페스트를 원래대로 되돌리고 .bak 파일을 지웁니다
  -h, --help        이 도움말"
}

# The manifests with an image of the theater in them.
MANIFESTS="api-gateway.yaml user-service-multicloud.yaml movie-service-multicloud.yaml booking-service-multicloud.yaml"

restore() {
  local file found=false
  for file in $MANIFESTS; do
    if [ -f "$HERE/$file.bak" ]; then
      mv "$HERE/$file.bak" "$HERE/$file"
      say "$file: restored" "$file: 되돌렸습니다"
      found=true
    fi
  done
  $found || say "There is nothing to restore." "되돌릴 것이 없습니다."
}

# update IMAGES TAG: every image of the theater, whatever registry and tag it has now.
update() {
  local file old new
  for file in $MANIFESTS; do
    [ -f "$HERE/$file" ] || fail "$HERE/$file is not there" "$HERE/$file 파일이 없습니다"
    old="$(cat "$HERE/$file")"
    new="$(printf '%s\n' "$old" | sed -E \
      "s#^([[:space:]]*(- )?image: )([^[:space:]]+/)?(user-service|movie-service|booking-service|api-gateway)(:[A-Za-z0-9._-]+)?[[:space:]]*\$#\1$1/\4:$2#")"
    if [ "$new" = "$old" ]; then
      say "$file: unchanged" "$file: 그대로입니다"
      continue
    fi
    [ -f "$HERE/$file.bak" ] || cp -p "$HERE/$file" "$HERE/$file.bak"
    # Written over, not replaced: owner and mode stay.
    printf '%s\n' "$new" >"$HERE/$file"
    say "$file: $(image "$HERE/$file")" "$file: $(image "$HERE/$file")"
  done
}

image() {
  sed -nE 's/^[[:space:]]*(- )?image: //p' "$1"
}

domain=""
registry="$REGISTRY"
restore=false
while [ $# -gt 0 ]; do
  case "$1" in
    --registry=*) registry="${1#*=}" ;;
    --registry) registry="$(value "$1" "$@")" || exit 2; shift ;;
    --tag=*) TAG="${1#*=}" ;;
    --tag) TAG="$(value "$1" "$@")" || exit 2; shift ;;
    --restore) restore=true ;;
    -h | --help) help; exit 0 ;;
    -*) wrong_usage "unknown argument '$1'" "알 수 없는 인자 '$1'" ;;
    *)
      [ -z "$domain" ] || wrong_usage "one domain at a time: '$domain' or '$1'" "도메인은 하나만: '$domain' 또는 '$1'"
      domain="$1"
      ;;
  esac
  shift
done
if $restore; then
  restore
  exit 0
fi
registry="${registry:-harbor.${domain:-$DOMAIN}/theater-msa}"
check_image_names "$registry" "${TAG:-latest}"
update "$registry" "${TAG:-latest}"
