#!/usr/bin/env bash
# Runs a command as several processes on this machine, as a pod runs it on several hosts:
#
#     launch/local_pod.sh [--dry-run] N COMMAND...
#     launch/local_pod.sh 2 mufun train --config configs/nano.py --workdir runs/pod --set mesh.data=2 \
#         --set mesh.simulated_devices=1
#
# Each process is told by MUFUN_COORDINATOR, MUFUN_PROCESSES and MUFUN_PROCESS where the others are, and who it is;
# `mufun train` reads them. Process 0 prints here; the others into WORKDIR/processes (of `--workdir WORKDIR` in the
# command; else into a temporary folder). When one process fails, the others are ended, and the exit code is the first
# one's. Ctrl-C and SIGTERM are passed on; the processes then have 60 s (LOCAL_POD_SAVE_SECONDS) in which to save, and the
# exit code is 75 where process 0 ended with that ("saved: start me again"), else 130 or 143. --dry-run prints what would
# run.
set -euo pipefail

# Seconds from the signal that ends a process to the one that kills it:
GRACE=5                                  # when another process has failed, and a checkpoint cannot be saved any more
SAVE_GRACE=${LOCAL_POD_SAVE_SECONDS:-60} # when the launcher is told to end, and a checkpoint can
SAVED=75                                 # how `mufun train` ends when it was told to and has saved

fail() {
    echo "local_pod.sh: $1" >&2
    exit 2
}

dry_run=
if [ "${1:-}" = --dry-run ]; then
    dry_run=yes
    shift
fi
[[ "${1:-}" =~ ^[1-9][0-9]*$ ]] || fail "'${1:-}' is no number of processes: local_pod.sh [--dry-run] N COMMAND..."
count=$1
shift
[ $# -gt 0 ] || fail "no command: local_pod.sh [--dry-run] N COMMAND..."

# Below 32768, where the system takes ports for outgoing connections; 0.1 % chance of a race with another program.
free_port() {
    local port
    while true; do
        port=$((20000 + RANDOM % 12000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
}

log_folder() {
    local before=
    for word in "$@"; do
        [ "$before" = --workdir ] && echo "$word/processes" && return
        [[ "$word" = --workdir=* ]] && echo "${word#--workdir=}/processes" && return
        before=$word
    done
    if [ -n "$dry_run" ]; then echo "${TMPDIR:-/tmp}/local_pod.XXXXXX"; else mktemp -d "${TMPDIR:-/tmp}/local_pod.XXXXXX"; fi
}

export MUFUN_COORDINATOR MUFUN_PROCESSES=$count
MUFUN_COORDINATOR=127.0.0.1:$(free_port)
logs=$(log_folder "$@")

if [ -n "$dry_run" ]; then
    for ((number = 0; number < count; number++)); do
        printf 'MUFUN_COORDINATOR=%s MUFUN_PROCESSES=%s MUFUN_PROCESS=%s' "$MUFUN_COORDINATOR" "$count" "$number"
        printf ' %q' "$@"
        [ "$number" = 0 ] || printf ' >%q 2>&1' "$logs/process-$number.log"
        printf '\n'
    done
    exit
fi

mkdir -p "$logs"
ends=$(mktemp -u "${TMPDIR:-/tmp}/local_pod.XXXXXX")
mkfifo "$ends"
exec 3<>"$ends" # one line for each process that ends, in the order in which they do
rm "$ends"

pids=()
alive() {
    local pid
    for pid in "${pids[@]}"; do
        kill -0 -- "-$pid" 2>/dev/null && return 0
    done
    return 1
}

# Ends all that still runs, with what it has started: first by signal $1, after $2 seconds for good.
end_all() {
    local pid tenths
    trap '' INT TERM
    for pid in ${pids[@]+"${pids[@]}"}; do kill -s "$1" -- "-$pid" 2>/dev/null || true; done
    for ((tenths = 0; tenths < $2 * 10; tenths++)); do
        alive || return 0
        sleep 0.1
    done
    for pid in "${pids[@]}"; do kill -s KILL -- "-$pid" 2>/dev/null || true; done
}

# Passes signal $1 on, and ends with process 0's code where that one saved, else with code $2.
told_to_end() {
    local number code
    end_all "$1" "$SAVE_GRACE"
    while read -r -t 0.1 number code <&3; do
        if [ "$number $code" = "0 $SAVED" ]; then exit "$SAVED"; fi
    done
    exit "$2"
}
trap 'told_to_end INT 130' INT
trap 'told_to_end TERM 143' TERM

run() {
    local code=0
    trap : INT TERM # the whole group gets them: this shell must live to say how the command ended
    "$@" 3>&- || code=$?
    echo "$MUFUN_PROCESS $code" >&3
}

set -m # every process leads a group of its own: its loader's workers end with it
for ((number = 0; number < count; number++)); do
    export MUFUN_PROCESS=$number
    if [ "$number" = 0 ]; then
        run "$@" <&0 &
    else
        run "$@" </dev/null >"$logs/process-$number.log" 2>&1 &
    fi
    pids+=($!)
done
set +m

stop() {
    local number=$1 code=$2
    echo "local_pod.sh: process $number of $count ended with exit code $code; ending the others" >&2
    if [ "$number" != 0 ]; then
        echo "local_pod.sh: the end of $logs/process-$number.log:" >&2
        tail -n 20 "$logs/process-$number.log" >&2
    fi
    end_all TERM "$GRACE"
    exit "$code"
}

running=$count
while [ "$running" -gt 0 ]; do
    if read -r -t 1 number code <&3; then
        [ "$code" = 0 ] || stop "$number" "$code"
        pids[number]=
        running=$((running - 1))
        continue
    fi
    # A process whose whole group was killed has written no line.
    for ((number = 0; number < count; number++)); do
        if [ -n "${pids[number]}" ] && ! kill -0 "${pids[number]}" 2>/dev/null; then
            code=0
            wait "${pids[number]}" 2>/dev/null || code=$?
            [ "$code" = 0 ] || stop "$number" "$code"
        fi
    done
done
