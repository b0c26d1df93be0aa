#compdef istioctl
# zsh completion for istioctl. Load it with: source <(istioctl completion zsh)

_istioctl() {
    local line directive=0
    local -a names
    while IFS='' read -r line; do
        case "$line" in
            :[0-9]*) directive=${line#:} ;;
            *)
                line=${line//:/\\:}
                names+=("${line/$'\t'/:}")
                ;;
        esac
    done < <("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( ${#names} )); then
        _describe istioctl names
    elif (( ! (directive & 4) )); then
        _files
    fi
}

if [ "$funcstack[1]" = _istioctl ]; then
    _istioctl "$@"
else
    compdef _istioctl istioctl
fi
