#!/usr/bin/env bash
# Runs a command on every host of a Cloud TPU slice, or of several, and starts it again until it is done:
#
#     launch/tpu_vm.sh [--dry-run] --name NAME --zone ZONE --accelerator TYPE [OPTION...] -- COMMAND...
#     launch/tpu_vm.sh --name mufun-8b --zone us-west4-a --accelerator v5litepod-256 --spot --bucket BUCKET -- \
#         mufun train --config configs/mufun_8b.py --workdir /mnt/BUCKET/8b --distributed --set data=/mnt/BUCKET/data
#
#   --project PROJECT          else the one that gcloud is set to
#   --slices N                 so many slices, joined over the data centre's network; default 1
#   --runtime-version VERSION  of the TPU VM; the default goes by the generation
#   --spot                     cheaper, and taken away when someone pays more
#   --bucket BUCKET            a Cloud Storage bucket, mounted on every host, at
#   --mount FOLDER             this folder; default /mnt/BUCKET
#   --commit COMMIT            of this repository, which the hosts get; default HEAD
#   --most-restarts N          after so many crashes in a row, each within 10 minutes, it is given up; default 5
#   --delete                   delete the queued resource when all is over, however it ended
#
# The queued resource NAME is created, or used where it is there, and waited for. The code is copied and installed, and
# COMMAND runs. What its exit code leads to: 0 is the end, 2 (a mistake of yours) too; 75 (it has saved, because the
# machine goes) and a lost machine start it again, on a new one if need be; so does a crash, --most-restarts times. The
# exit code is COMMAND's; 130 after Ctrl-C, 143 after SIGTERM, which end COMMAND too, with time to save. gcloud must be
# logged in. --dry-run prints what would run.
set -euo pipefail

POLL=30   # seconds between two looks at the queued resource, and before a command that crashed is started again
SHORT=600 # seconds: a run that crashes sooner counts as one that got nowhere
SILENT=10 # looks in a row that gcloud may fail to answer
CODE=mufun/code

fail() {
    echo "tpu_vm.sh: $1" >&2
    exit 2
}
say() { echo "tpu_vm.sh: $1" >&2; }

dry_run='' name='' project='' zone='' accelerator='' runtime_version='' bucket='' mount='' delete=''
slices=1 commit=HEAD most_restarts=5
spot=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
        --dry-run) dry_run=yes ;;
        --spot) spot=(--spot) ;;
        --delete) delete=yes ;;
        --name | --project | --zone | --accelerator | --runtime-version | --slices | --bucket | --mount | --commit | \
            --most-restarts)
            [ $# -gt 1 ] || fail "$1 needs a value"
            option=${1#--}
            printf -v "${option//-/_}" %s "$2"
            shift
            ;;
        *) fail "'$1' is no option; the command comes after --" ;;
    esac
    shift
done
[ $# -gt 1 ] || fail "no command: tpu_vm.sh --name NAME --zone ZONE --accelerator TYPE -- COMMAND..."
shift
[[ $name =~ ^[a-z][-a-z0-9]*$ ]] || fail "--name '$name': small letters, digits and dashes"
[ -n "$zone" ] || fail "--zone is missing: where your quota of TPUs is, for instance us-west4-a"
[ -n "$accelerator" ] || fail "--accelerator is missing: for instance v5litepod-256"
[[ $slices =~ ^[1-9][0-9]*$ ]] || fail "--slices '$slices' is no number of slices"
[[ $most_restarts =~ ^[0-9]+$ ]] || fail "--most-restarts '$most_restarts' is no number"
[ -n "$bucket" ] || [ -z "$mount" ] || fail "--mount $mount without --bucket: nothing to mount there"
[ -z "$bucket" ] || mount=${mount:-/mnt/$bucket}
if [ "$1 ${2:-}" = "mufun train" ] && [[ " $* " != *" --distributed "* ]]; then
    fail "mufun train without --distributed: every host would train alone"
fi
if [ -z "$runtime_version" ]; then
    case $accelerator in
        v5litepod-*) runtime_version=v2-alpha-tpuv5-lite ;;
        v5p-*) runtime_version=v2-alpha-tpuv5 ;;
        v6e-*) runtime_version=v2-alpha-tpuv6e ;;
        v4-*) runtime_version=tpu-ubuntu2204-base ;;
        *) fail "--accelerator $accelerator: v4-, v5litepod-, v5p- or v6e-N; for another give --runtime-version too" ;;
    esac
fi
cd "$(dirname "$0")/.."

place=(--zone "$zone")
[ -z "$project" ] || place+=(--project "$project")
place+=(--quiet)
nodes=("$name")
own=(--node-id "$name")
kind=tpu-vm
every=(--worker all)
if [ "$slices" -gt 1 ]; then
    nodes=()
    for ((slice = 0; slice < slices; slice++)); do nodes+=("$name-$slice"); done
    own=(--node-count "$slices" --node-prefix "$name")
    kind=queued-resources
    every=(--node all --worker all --batch-size all) # in batches, the first hosts would wait for the last for ever
fi

tpus() { call gcloud compute tpus "$@" "${place[@]}"; }
on_every_host() { tpus "$kind" ssh "$name" "${every[@]}" --command "$1"; }
call() {
    if [ -z "$dry_run" ]; then "$@"; else printf '%q ' "$@" | sed 's/ $/\n/'; fi
}

# What can be told about the queued resource: the state of its request, and LOST where it is ACTIVE without its machines.
look() {
    local state node answer
    if ! answer=$(tpus queued-resources describe "$name" --format 'value(state.state)' 2>&1); then
        if [[ $answer == *NOT_FOUND* ]]; then echo MISSING; else echo "?$answer"; fi
        return
    fi
    state=${answer##*$'\n'}
    if [ "$state" = ACTIVE ]; then
        for node in "${nodes[@]}"; do
            answer=$(tpus tpu-vm describe "$node" --format 'value(state)' 2>&1) || true
            case ${answer##*$'\n'} in
                READY) ;;
                PREEMPTED | TERMINATED | STOPPED | *NOT_FOUND*) state=LOST && break ;;
                *) state=STARTING ;;
            esac
        done
    fi
    echo "$state"
}

there='' # whether the queued resource is, as far as is known
create() {
    there=yes
    tpus queued-resources create "$name" "${own[@]}" --accelerator-type "$accelerator" \
        --runtime-version "$runtime_version" ${spot[@]+"${spot[@]}"}
}
remove() { tpus queued-resources delete "$name" --force && there=''; }

# Creates the queued resource where there is none that is alive, and waits for its machines.
bring_up() {
    local state shown='' created='' silent=0
    while true; do
        state=$(look)
        [ "$state" = "$shown" ] || say "$name is ${state#\?}"
        shown=$state
        case $state in
            ACTIVE)
                there=yes
                return 0
                ;;
            MISSING)
                create || { there='' && return 1; }
                created=yes
                continue
                ;;
            FAILED | SUSPENDED | LOST)
                [ -z "$created" ] || [ "$state" != FAILED ] || return 1
                remove || return 1
                continue
                ;;
            \?*)
                silent=$((silent + 1))
                [ "$silent" -lt "$SILENT" ] || return 1
                ;;
            *) there=yes silent=0 ;;
        esac
        sleep "$POLL"
    done
}

# Copies the code to every host and installs it; mounts the bucket.
set_up() {
    local archive=$1/mufun.tar.gz remote
    remote="[ ! -x $CODE/launch/tpu_vm_host.sh ] || $CODE/launch/tpu_vm_host.sh stop; rm -rf $CODE && mkdir -p $CODE"
    remote+=" && tar -xzf mufun.tar.gz -C $CODE && $CODE/launch/tpu_vm_host.sh install"
    [ -z "$bucket" ] || remote+=$(printf ' && %s/launch/tpu_vm_host.sh mount %q %q' "$CODE" "$bucket" "$mount")
    call git archive --format tar.gz --output "$archive" "$commit" &&
        tpus "$kind" scp "$archive" "$name:" "${every[@]}" &&
        on_every_host "$remote"
}

# Runs the command as number $1 of these runs. A host that gcloud connects to anew takes up the run of that number.
run() {
    local number=$1
    shift
    on_every_host "$(printf '%s' "$CODE/launch/tpu_vm_host.sh run $number" && printf ' %q' "$@")"
}

if [ -n "$dry_run" ]; then
    echo "# Is it there, and are its machines?"
    look_plan=(queued-resources describe "$name" --format 'value(state.state)')
    tpus "${look_plan[@]}"
    for node in "${nodes[@]}"; do tpus tpu-vm describe "$node" --format 'value(state)'; done
    echo "# If it is not:"
    create
    echo "# When it is ACTIVE:"
    set_up "${TMPDIR:-/tmp}/tpu_vm.XXXXXX"
    run 1 "$@"
    echo "# When it was preempted, before it is created anew; with --delete, at the end:"
    remove
    exit
fi

git cat-file -e "$commit^{commit}" 2>/dev/null || fail "--commit $commit: no commit of this repository"
command -v gcloud >/dev/null || fail "gcloud is not installed"
[ "$commit" != HEAD ] || git diff --quiet HEAD || say "what is not committed is left out"
temporary=$(mktemp -d "${TMPDIR:-/tmp}/tpu_vm.XXXXXX")

finish() {
    local code=$?
    rm -rf "$temporary"
    if [ -z "$there" ]; then
        :
    elif [ -n "$delete" ]; then
        remove || say "$name could not be deleted, and costs money"
    else
        say "$name is still there, and costs money: gcloud compute tpus queued-resources delete $name --force --zone $zone"
    fi
    exit "$code"
}
trap finish EXIT

running='' # what talks to the hosts: in the background, for a signal to find this shell awake
told_to_end() {
    trap '' INT TERM
    if [ -n "$running" ]; then
        say "ending what runs on $name"
        on_every_host "$CODE/launch/tpu_vm_host.sh stop" || true
        wait "$running" || true
    fi
    exit "$1"
}
trap 'told_to_end 130' INT
trap 'told_to_end 143' TERM

number=0 # of the run, unique to it: a host knows by it whether it has begun already
crashes=0 # in a row, each within SHORT seconds
stamp=$(date +%s)
while true; do
    number=$((number + 1))
    started=$(date +%s)
    code=0
    up=''
    if bring_up; then
        up=yes
        started=$(date +%s)
        { set_up "$temporary" && run "$stamp-$number" "$@"; } &
        running=$!
        wait "$running" || code=$?
        running=
    else
        code=1
    fi
    case $code in
        0) exit 0 ;;
        2)
            say "exit code 2 is a mistake that no restart mends; ending"
            exit 2
            ;;
        75)
            say "it has saved and ended (75), starting it again"
            crashes=0
            continue
            ;;
    esac
    sleep "$POLL"
    if [ -n "$up" ] && [[ $(look) =~ ^(MISSING|FAILED|SUSPENDING|SUSPENDED|LOST|DELETING)$ ]]; then
        say "$name was taken away; starting on a new one"
        continue
    fi
    if [ $(($(date +%s) - started)) -ge "$SHORT" ]; then crashes=0; fi
    crashes=$((crashes + 1))
    if [ "$crashes" -gt "$most_restarts" ]; then
        say "exit code $code, $crashes times in a row within $SHORT s; giving up"
        exit "$code"
    fi
    say "exit code $code; starting it again ($crashes of $most_restarts in a row)"
done
