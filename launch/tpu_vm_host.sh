#!/usr/bin/env bash
# What tpu_vm.sh calls on each host of a slice. It lies in FOLDER/code/launch, and uses FOLDER/venv and FOLDER/run.
#
#     tpu_vm_host.sh [--dry-run] install             mufun with jax for TPUs into FOLDER/venv
#     tpu_vm_host.sh [--dry-run] mount BUCKET PLACE  a Cloud Storage bucket as a folder
#     tpu_vm_host.sh [--dry-run] run NUMBER COMMAND...
#     tpu_vm_host.sh [--dry-run] stop                the command that runs, with time to save
#
# `run` prints what COMMAND prints, and ends with its exit code. COMMAND outlives the connection: where one of that NUMBER
# is there already, it is taken up and not started again; one of another number is stopped first.
set -euo pipefail

GRACE=120 # seconds from SIGTERM, which lets the command save, to SIGKILL
GOOGLE_APT=https://packages.cloud.google.com/apt # where Google's gcsfuse is
KEY=/usr/share/keyrings/gcsfuse.asc
PYTHONS=(python3.13 python3.12 python3.11)

fail() {
    echo "tpu_vm_host.sh: $1" >&2
    exit 2
}

dry_run=
if [ "${1:-}" = --dry-run ]; then
    dry_run=yes
    shift
fi
call() {
    if [ -z "$dry_run" ]; then "$@"; else printf '%q ' "$@" | sed 's/ $/\n/'; fi
}
folder=$(cd "$(dirname "$0")/../.." && pwd)
state=$folder/run

has() { command -v "$1" >/dev/null; }
apt_get() { call sudo apt-get -o DPkg::Lock::Timeout=600 "$@"; } # a new host upgrades itself for a while

install() {
    local python='' each
    for each in "${PYTHONS[@]}"; do
        if has "$each"; then python=$each && break; fi
    done
    if [ -z "$python" ] || ! "$python" -c 'import ensurepip' 2>/dev/null; then
        python=python3.11
        apt_get update
        apt_get install -y python3.11 python3.11-venv
    fi
    [ -x "$folder/venv/bin/python" ] || call "$python" -m venv "$folder/venv"
    call "$folder/venv/bin/pip" install --quiet --constraint "$folder/code/constraints.txt" --editable "$folder/code[tpu]"
}

mount_bucket() {
    local bucket=$1 place=$2
    if ! has gcsfuse; then
        call sudo curl -fsSL "$GOOGLE_APT/doc/apt-key.gpg" -o "$KEY"
        call sudo sh -c "echo 'deb [signed-by=$KEY] $GOOGLE_APT gcsfuse-$(lsb_release -cs) main' >/etc/apt/sources.list.d/gcsfuse.list"
        apt_get update
        apt_get install -y gcsfuse
    fi
    if mountpoint --quiet "$place"; then return; fi
    call sudo mkdir -p "$place"
    call sudo chown "$(id -u)" "$place"
    # Nothing is remembered of names and sizes: each host sees at once what another has written or renamed.
    call gcsfuse --metadata-cache-ttl-secs 0 "$bucket" "$place"
}

# The process that leads the group of the command, where it lives.
leader() {
    local pid
    [ -f "$state/pid" ] || return 1
    pid=$(<"$state/pid")
    kill -0 -- "-$pid" 2>/dev/null && echo "$pid"
}

stop() {
    local pid seconds
    pid=$(leader) || return 0
    call kill -s TERM -- "-$pid"
    [ -z "$dry_run" ] || return 0
    for ((seconds = 0; seconds < GRACE; seconds++)); do
        leader >/dev/null || return 0
        sleep 1
    done
    kill -s KILL -- "-$pid" 2>/dev/null || true
}

# shellcheck disable=SC2016 # the inner shell expands it
INNER='trap : INT TERM; code=0; "$@" || code=$?; echo "$code" >"$0"'

run() {
    local number=$1 from=20
    shift
    export PATH="$folder/venv/bin:$PATH"
    cd "$folder/code"
    if [ -n "$dry_run" ]; then
        call "$@"
        return
    fi
    mkdir -p "$state"
    if [ "$(cat "$state/number" 2>/dev/null)" != "$number" ]; then
        stop
        rm -f "$state"/exit-code*
        : >"$state/log"
        from=+1
        setsid bash -c "$INNER" "$state/exit-code-$number" "$@" </dev/null >>"$state/log" 2>&1 &
        echo "$!" >"$state/pid"
        echo "$number" >"$state/number"
    fi
    tail --lines "$from" --follow --sleep-interval 0.2 --pid "$(<"$state/pid")" "$state/log"
    # Without one, the command and the shell round it were killed.
    exit "$(cat "$state/exit-code-$number" 2>/dev/null || echo 137)"
}

case ${1:-} in
    install) install ;;
    mount)
        [ $# = 3 ] || fail "mount needs a bucket and a folder"
        mount_bucket "$2" "$3"
        ;;
    run)
        [ $# -gt 2 ] || fail "run needs a number and a command"
        shift
        run "$@"
        ;;
    stop) stop ;;
    *) fail "'${1:-}' is not install, mount, run or stop" ;;
esac
