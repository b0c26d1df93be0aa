# What deploy-ctx1.sh, deploy-ctx2.sh, deploy-all.sh and cleanup.sh have in common. Sourced, never run.
# Written for bash 3.2, which is what macOS has.

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
PROGRAM="$(basename "$0")"
NAMESPACE=theater-msa
ISTIO_NAMESPACE=istio-system
# The services of each cluster, as the overlays under deploy/ leave them.
DEPLOYMENTS_CTX1="user-service movie-service booking-service api-gateway"
DEPLOYMENTS_CTX2="user-service movie-service booking-service redis"

# What --registry, --tag and so on set.
ASSUME_YES=false
WAIT=true
TIMEOUT="${TIMEOUT:-180s}"
DOMAIN="${DOMAIN:-localhost}"
REGISTRY="${REGISTRY:-}"
TAG="${TAG:-}"

# say ENGLISH KOREAN: the text in the reader's language, as `theater` chooses it.
say() {
  local language="${THEATER_LANG:-${LC_ALL:-${LC_MESSAGES:-${LANG:-}}}}"
  case "$language" in
    ko* | KO*) printf '%s\n' "$2" ;;
    *) printf '%s\n' "$1" ;;
  esac
}

# fail ENGLISH KOREAN: says so on standard error and ends with 1.
fail() {
  printf '%s: %s\n' "$PROGRAM" "$(say "$1" "$2")" >&2
  exit 1
}

warn() {
  printf '%s: %s\n' "$PROGRAM" "$(say "$1" "$2")" >&2
}

# wrong_usage ENGLISH KOREAN: a mistake on the command line, 2 as everywhere.
wrong_usage() {
  printf '%s: %s\n' "$PROGRAM" "$(say "$1" "$2")" >&2
  say "Try '$PROGRAM --help'." "'$PROGRAM --help'를 보세요." >&2
  exit 2
}

deploy_options_help() {
  say "
Options:
  --domain NAME     the page becomes https://theater.NAME (default: \$DOMAIN, else localhost)
  --registry NAME   take the four services' images from NAME/user-service and so on
                    (default: \$REGISTRY, else what the manifests say)
  --tag TAG         their tag (default: \$TAG, else what the manifests say)
  --timeout TIME    how long each deployment may take to become ready (default: \$TIMEOUT, else 180s)
  --no-wait         do not wait for the pods
  -y, --yes         do not ask; nobody is asked either when standard input is not a terminal
  -h, --help        this text" "
옵션:
  --domain 이름     페이지 주소가 https://theater.이름 이 됩니다 (기본값: \$DOMAIN, 없으면 localhost)
  --registry 이름   네 서비스의 이미지를 '이름/user-service' 등에서 가져옵니다
                    (기본값: \$REGISTRY, 없으면 매니페스트대로)
  --tag 태그        그 이미지의 태그 (기본값: \$TAG, 없으면 매니페스트대로)
  --timeout 시간    각 디플로이먼트의 준비를 기다리는 시간 (기본값: \$TIMEOUT, 없으면 180s)
  --no-wait         파드를 기다리지 않습니다
  -y, --yes         묻지 않습니다. 표준 입력이 터미널이 아니어도 묻지 않습니다
  -h, --help        이 도움말"
}

# value OPTION "$@": the argument that must follow an option.
value() {
  if [ $# -lt 3 ] || [ -z "$3" ]; then
    wrong_usage "$1 needs a value" "$1 옵션에는 값이 필요합니다"
  fi
  printf '%s' "$3"
}

# Reads the command line of a deploy script; the script defines `help`.
read_deploy_options() {
  while [ $# -gt 0 ]; do
    case "$1" in
      --domain=* | --registry=* | --tag=* | --timeout=*)
        local option="${1%%=*}" text="${1#*=}"
        shift
        set -- "$option" "$text" "$@"
        continue
        ;;
      --domain) DOMAIN="$(value "$1" "$@")" || exit 2; shift 2 ;;
      --registry) REGISTRY="$(value "$1" "$@")" || exit 2; shift 2 ;;
      --tag) TAG="$(value "$1" "$@")" || exit 2; shift 2 ;;
      --timeout) TIMEOUT="$(value "$1" "$@")" || exit 2; shift 2 ;;
      --no-wait) WAIT=false; shift ;;
      -y | --yes) ASSUME_YES=true; shift ;;
      -h | --help) help; exit 0 ;;
      *) wrong_usage "unknown argument '$1'" "알 수 없는 인자 '$1'" ;;
    esac
  done
  # A port belongs to the URL, not to the host a VirtualService names.
  HOST="theater.${DOMAIN%%:*}"
  case "$HOST" in
    *[!a-z0-9.-]* | *..* | *. | *- )
      wrong_usage "'$DOMAIN' is not a domain: small letters, digits, '-' and '.' only" \
        "'$DOMAIN'은(는) 도메인이 아닙니다. 소문자, 숫자, '-', '.'만 쓸 수 있습니다" ;;
  esac
  check_image_names "$REGISTRY" "$TAG"
}

# check_image_names REGISTRY TAG: both may stand in an image's name, and in an expression of sed.
check_image_names() {
  case "$1$2" in
    *[!A-Za-z0-9._:/-]*)
      wrong_usage "'$1' with tag '$2' is not an image name" "'$1', 태그 '$2'은(는) 이미지 이름이 아닙니다" ;;
  esac
}

# confirm ENGLISH KOREAN: asks on a terminal; anything but y or yes ends the script.
confirm() {
  if $ASSUME_YES || [ ! -t 0 ]; then
    return 0
  fi
  local answer=""
  printf '%s [y/N] ' "$(say "$1" "$2")"
  read -r answer || true
  case "$answer" in
    y | Y | yes | YES | Yes) ;;
    *) say "Nothing was changed." "아무것도 바꾸지 않았습니다."; exit 1 ;;
  esac
}

check_kubectl() {
  command -v kubectl >/dev/null 2>&1 || fail \
    "kubectl is not on the PATH; see https://kubernetes.io/docs/tasks/tools/" \
    "kubectl이 PATH에 없습니다. https://kubernetes.io/docs/tasks/tools/ 를 보세요"
}

# check_context CONTEXT: it exists and its cluster answers.
check_context() {
  kubectl config get-contexts "$1" >/dev/null 2>&1 || fail \
    "there is no context '$1' in the kubeconfig; rename yours with: kubectl config rename-context OLD $1" \
    "kubeconfig에 '$1' 컨텍스트가 없습니다. 다음으로 이름을 바꾸세요: kubectl config rename-context 기존이름 $1"
  local answer
  answer="$(kubectl --context "$1" --request-timeout=10s get --raw /readyz 2>&1)" || fail \
    "the cluster of context '$1' does not answer: $answer" \
    "'$1' 컨텍스트의 클러스터가 응답하지 않습니다: $answer"
}

# check_mesh CONTEXT: what the manifests need to be there before them.
check_mesh() {
  kubectl --context "$1" get crd virtualservices.networking.istio.io >/dev/null 2>&1 || fail \
    "Istio is not installed in '$1' (no CustomResourceDefinition virtualservices.networking.istio.io); see k8s/README.md" \
    "'$1'에 Istio가 없습니다(CustomResourceDefinition virtualservices.networking.istio.io 없음). k8s/README.md를 보세요"
  if [ -z "$(kubectl --context "$1" get nodes -l "cluster-name=$1" -o name)" ]; then
    fail "no node of '$1' has the label cluster-name=$1, so no pod could run there; set it with: kubectl --context $1 label nodes --all cluster-name=$1" \
      "'$1'의 어떤 노드에도 cluster-name=$1 레이블이 없어 파드가 뜰 수 없습니다. 다음을 실행하세요: kubectl --context $1 label nodes --all cluster-name=$1"
  fi
  kubectl --context "$1" -n "$ISTIO_NAMESPACE" get gateways.networking.istio.io cp-gateway >/dev/null 2>&1 || warn \
    "warning: '$1' has no Gateway $ISTIO_NAMESPACE/cp-gateway: nothing will reach the theater from outside; see k8s/README.md" \
    "경고: '$1'에 Gateway $ISTIO_NAMESPACE/cp-gateway가 없어 밖에서 극장에 닿을 수 없습니다. k8s/README.md를 보세요"
}

# render CLUSTER: the manifests for one cluster, with domain and images filled in.
render() {
  kubectl kustomize "$HERE/../deploy/$1" |
    sed -E \
      -e "s/^([[:space:]]*- )theater\.localhost\$/\1$HOST/" \
      -e "s#(image: )([^ ]+)/(user-service|movie-service|booking-service|api-gateway):([A-Za-z0-9._-]+)#\1${REGISTRY:-\\2}/\3:${TAG:-\\4}#"
}

# deploy_cluster CLUSTER: applies and waits. The context has the cluster's name.
deploy_cluster() {
  say "== $1: applying the manifests for https://$HOST" "== $1: https://$HOST 매니페스트를 적용합니다"
  render "$1" | kubectl --context "$1" apply -f - || fail \
    "not everything could be applied to '$1'; the lines above name the object and the reason" \
    "'$1'에 일부를 적용하지 못했습니다. 위에 객체와 이유가 있습니다"
  $WAIT || return 0
  local deployments deployment
  case "$1" in
    ctx1) deployments="$DEPLOYMENTS_CTX1" ;;
    *) deployments="$DEPLOYMENTS_CTX2" ;;
  esac
  for deployment in $deployments; do
    kubectl --context "$1" -n "$NAMESPACE" rollout status "deployment/$deployment" --timeout="$TIMEOUT" || fail \
      "deployment $deployment of '$1' is not ready within $TIMEOUT; look at: kubectl --context $1 -n $NAMESPACE describe pods -l app=$deployment" \
      "'$1'의 디플로이먼트 $deployment가 $TIMEOUT 안에 준비되지 않았습니다. 확인: kubectl --context $1 -n $NAMESPACE describe pods -l app=$deployment"
  done
}

# deploy_one CLUSTER "$@": everything deploy-ctx1.sh and deploy-ctx2.sh do.
deploy_one() {
  local cluster="$1"
  shift
  read_deploy_options "$@"
  check_kubectl
  check_context "$cluster"
  check_mesh "$cluster"
  confirm "Deploy the theater to '$cluster' as https://$HOST?" "극장을 '$cluster'에 https://$HOST 로 배포할까요?"
  deploy_cluster "$cluster"
}
