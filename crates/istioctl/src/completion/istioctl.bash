# bash completion for istioctl. Load it with: source <(istioctl completion bash)

_istioctl() {
    local line directive=0 names=()
    while IFS='' read -r line; do
        case "$line" in
            :[0-9]*) directive="${line#:}" ;;
            *) names+=("${line%%$'\t'*}") ;;
        esac
    done < <("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:$COMP_CWORD}" 2>/dev/null)
    COMPREPLY=("${names[@]}")
    # 4: names of files do not fit here. Old versions of bash offer them all the same.
    if ((directive & 4)) && type compopt >/dev/null 2>&1; then
        compopt +o default
    fi
}

complete -o default -F _istioctl istioctl
