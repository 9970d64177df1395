#!/usr/bin/env bash
# A run on machines without a scheduler, over ssh: starts all nodes, and all of them again after a failure.
#
#   over_hosts.sh HOSTFILE RUN.toml
#
# HOSTFILE: a host a line, "HOST [slots=RANKS]" (default: RANKS_PER_NODE, or 1; the same on all); "#" begins a comment.
# The first host is where the nodes meet: the others must reach it by that name. RUN.toml, the data and run.output are
# at the same paths on all hosts, and so are this folder and PYTHON; ssh must not ask for a password.
#
# Ctrl-C or SIGTERM: a checkpoint is written everywhere, exit code 75. Should this script be killed, or its machine be
# lost, the hosts notice that their connection has closed, and do the same.
# Exit code: 0 done, 1 failure after MAX_RESTARTS (default 3) restarts, 2 bad input, 75 stopped.
# Needs bash 5.1 here. PYTHON (default: python), PORT (default: 29500), SSH (default: ssh -o BatchMode=yes -o ServerAliveInterval=15).
set -uo pipefail

if [ $# -ne 2 ]; then
    echo "usage: $0 HOSTFILE RUN.toml" >&2
    exit 2
fi
for file in "$@"; do
    if [ ! -r "$file" ]; then
        echo "$0: $file: no such file here, or it cannot be read" >&2
        exit 2
    fi
done
config=$(realpath "$2")
read -r -a ssh <<< "${SSH:-ssh -o BatchMode=yes -o ServerAliveInterval=15}"

# The hosts, and how many ranks each has.
hosts=()
ranks=''
while read -r host slots _; do
    [[ -z $host || $host == \#* ]] && continue
    [[ $slots == slots=* ]] && slots=${slots#slots=} || slots=${RANKS_PER_NODE:-1}
    if [ "${ranks:=$slots}" != "$slots" ]; then
        echo "$1: $host has $slots ranks and ${hosts[0]} has $ranks: give all hosts the same" >&2
        exit 2
    fi
    hosts+=("$host")
done < "$1"
if [ ${#hosts[@]} -eq 0 ]; then
    echo "$1: names no host" >&2
    exit 2
fi

# What a host runs. Its input is the connection to this script: when that ends, the launcher is asked to stop.
on_host() { # NODE_RANK
    local variables="PET_NNODES=${#hosts[@]} PET_NODE_RANK=$1 PET_NPROC_PER_NODE=$ranks PET_MAX_RESTARTS=0"
    variables+=" PET_MASTER_ADDR=${hosts[0]} PET_MASTER_PORT=${PORT:-29500}"
    printf 'cd %q || exit 2; exec 3<&0\n' "$PWD"
    printf 'env %s %q -m deploy.launch.agent -m trainer train %q 3<&- < /dev/null &\n' \
        "$variables" "${PYTHON:-python}" "$config"
    # shellcheck disable=SC2016  # for the host's shell to fill in
    printf '%s\n' 'launcher=$!' '{ cat <&3; kill -TERM "$launcher"; } > /dev/null 2>&1 &' \
        'wait "$launcher"; code=$?; kill $!; exit "$code"'
}

# All connections read from this pipe, which only this script holds open for writing: file descriptor 4.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkfifo "$folder/stop"
stopped=''
stop_all() { exec 4>&-; }
trap 'stopped=yes; stop_all' INT TERM

failures=0
while true; do
    exec 4<> "$folder/stop"
    for node in "${!hosts[@]}"; do
        "${ssh[@]}" "${hosts[$node]}" "bash -c $(printf '%q' "$(on_host "$node")")" < "$folder/stop" 4>&- &
    done
    [ -z "$stopped" ] || stop_all # asked between two starts
    # 2 if any host says so; 75 if hosts say so and none failed; else 1 if any failed.
    code=0
    left=${#hosts[@]}
    while [ "$left" -gt 0 ]; do
        connection=''
        wait -n -p connection
        ended=$?
        [ -n "${connection:-}" ] || continue # a signal ends wait, but no connection
        left=$((left - 1))
        case $ended in
            0) ;;
            2) code=2 ;;
            75) [ "$code" -ne 0 ] || code=75 ;;
            *) [ "$code" -eq 2 ] || code=1 ;;
        esac
        # A host that could not be reached: the others would wait for it for ten minutes.
        [ "$ended" -ne 255 ] || stop_all
    done
    stop_all
    if [ "$code" -ne 1 ] || [ -n "$stopped" ] || [ "$failures" -ge "${MAX_RESTARTS:-3}" ]; then
        exit "$code"
    fi
    failures=$((failures + 1))
    echo "$0: failure $failures of at most ${MAX_RESTARTS:-3}: starting all hosts again" >&2
done
