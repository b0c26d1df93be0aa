# fish completion for istioctl. Load it with: istioctl completion fish | source

function __istioctl_ask
    set -l words (commandline -opc) (commandline -ct)
    istioctl __complete $words[2..-1] 2>/dev/null
end

function __istioctl_names
    __istioctl_ask | string match -v -r '^:[0-9]+$'
end

function __istioctl_files_fit
    __istioctl_ask | string match -q ':0'
end

complete -c istioctl -e
complete -c istioctl -f -a '(__istioctl_names)'
complete -c istioctl -n __istioctl_files_fit -F
