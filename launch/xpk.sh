#!/usr/bin/env bash
# Runs a command on TPU slices of a GKE cluster, through Google's xpk (pip install xpk):
#
#     launch/xpk.sh [--dry-run] --name NAME --cluster CLUSTER --zone ZONE --tpu-type TYPE --image IMAGE [OPTION...] -- COMMAND...
#     launch/xpk.sh --name mufun-8b --cluster music --zone us-west4-a --tpu-type v5litepod-256 --storage BUCKET \
#         --image us-docker.pkg.dev/PROJECT/mufun/mufun:tpu -- \
#         mufun train --config configs/mufun_8b.py --workdir /mnt/BUCKET/8b --distributed --set data=/mnt/BUCKET/data
#
#   --project PROJECT   else the one that gcloud is set to
#   --slices N          so many slices, joined over the data centre's network; default 1
#   --spot              where the cluster makes nodes by itself: cheaper ones, taken away when someone pays more
#   --storage NAME      what `xpk storage attach NAME --type=gcsfuse --mount-point=...` has attached: a bucket
#   --most-restarts N   of any kind, preemptions too, after which it is given up; default 50
#
# Every exit code but 0 and 2 (a mistake of yours) starts all hosts again; 75 is a run that saved because the machine goes.
# A host that is told to end has 120 s in which to save. --dry-run prints what would run.
set -euo pipefail

GRACE=120         # seconds from SIGTERM to SIGKILL
AGAIN=1,3-126     # exit codes, beside 127 to 255, which xpk starts again anyway

fail() {
    echo "xpk.sh: $1" >&2
    exit 2
}

dry_run='' name='' cluster='' project='' zone='' tpu_type='' image='' storage='' slices=1 most_restarts=50
spot=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
        --dry-run) dry_run=yes ;;
        --spot) spot=(--spot) ;;
        --name | --cluster | --project | --zone | --tpu-type | --image | --storage | --slices | --most-restarts)
            [ $# -gt 1 ] || fail "$1 needs a value"
            option=${1#--}
            printf -v "${option//-/_}" %s "$2"
            shift
            ;;
        *) fail "'$1' is no option; the command comes after --" ;;
    esac
    shift
done
[ $# -gt 1 ] || fail "no command: xpk.sh --name NAME --cluster CLUSTER --zone ZONE --tpu-type TYPE --image IMAGE -- COMMAND..."
shift
[[ $name =~ ^[a-z][-a-z0-9]*$ ]] || fail "--name '$name': small letters, digits and dashes"
for option in cluster zone tpu_type image; do
    [ -n "${!option}" ] || fail "--${option//_/-} is missing"
done
[[ $slices =~ ^[1-9][0-9]*$ ]] || fail "--slices '$slices' is no number of slices"
[[ $most_restarts =~ ^[0-9]+$ ]] || fail "--most-restarts '$most_restarts' is no number"
if [ "$1 ${2:-}" = "mufun train" ] && [[ " $* " != *" --distributed "* ]]; then
    fail "mufun train without --distributed: every host would train alone"
fi
[ -n "$dry_run" ] || command -v xpk >/dev/null || fail "xpk is not installed: pip install xpk"

# `exec`: xpk passes SIGTERM to the shell that it starts, which would end and leave the command alone.
command="exec$(printf ' %q' "$@")"
words=(xpk workload create --workload "$name" --cluster "$cluster" --zone "$zone")
[ -z "$project" ] || words+=(--project "$project")
words+=(--tpu-type "$tpu_type" --num-slices "$slices" ${spot[@]+"${spot[@]}"} --docker-image "$image")
[ -z "$storage" ] || words+=(--storage "$storage")
words+=(--max-restarts "$most_restarts" --restart-on-exit-codes "$AGAIN" --termination-grace-period-seconds "$GRACE")
words+=(--command "$command")
if [ -n "$dry_run" ]; then
    printf '%q ' "${words[@]}" | sed 's/ $/\n/'
    exit
fi
"${words[@]}"
