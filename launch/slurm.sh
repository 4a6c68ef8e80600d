#!/usr/bin/env bash
#SBATCH --job-name=mufun
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --signal=TERM@120
#SBATCH --requeue
# A batch job for SLURM on GPU nodes, started again after preemption and at its time limit:
#
#     sbatch --nodes 4 --time 24:00:00 launch/slurm.sh COMMAND...
#     sbatch --nodes 4 --time 24:00:00 launch/slurm.sh mufun train --config configs/mufun_8b.py --workdir runs/8b \
#         --distributed --set data=data --set mesh.fsdp=32
#     launch/slurm.sh --dry-run COMMAND...
#
# One task a GPU: jax gives task number i of a node the node's GPU i, so that a single task would leave seven idle. Every
# task must see all GPUs of its node, hence --gpus-per-node and not --gpus-per-task. For nodes of 4 GPUs say
# `sbatch --ntasks-per-node 4 --gpus-per-node 4 ...`. `mufun train --distributed` finds the tasks by SLURM's variables.
# Submit it from the checkout, whose .venv is used, and which all nodes see, as they see --workdir.
#
# 120 s before the time limit every task gets SIGTERM, saves and ends with exit code 75; the job then goes back into the
# queue, under its number, and goes on from there. So it does, by SLURM itself, when it is preempted or a node is lost.
# Any other exit code but 0 is the end of the job, and is its exit code. --dry-run prints what would run.
set -euo pipefail

LAST=120 # seconds that the other tasks may go on when the first one has ended
SAVED=75 # how `mufun train` ends when it was told to and has saved

fail() {
    echo "slurm.sh: $1" >&2
    exit 2
}

dry_run=
if [ "${1:-}" = --dry-run ]; then
    dry_run=yes
    shift
fi
[ $# -gt 0 ] || fail "no command: sbatch launch/slurm.sh COMMAND..."
if [ "$1 ${2:-}" = "mufun train" ] && [[ " $* " != *" --distributed "* ]]; then
    fail "mufun train without --distributed: every task would train alone"
fi
call() {
    if [ -z "$dry_run" ]; then "$@"; else printf '%q ' "$@" | sed 's/ $/\n/'; fi
}
[ -n "$dry_run" ] || [ -n "${SLURM_JOB_ID:-}" ] || fail "this is no job of SLURM's: sbatch launch/slurm.sh $*"

PATH=$PWD/.venv/bin:$PATH
export PATH
code=0
call srun --kill-on-bad-exit=0 "--wait=$LAST" "$@" || code=$?
if [ -n "$dry_run" ]; then
    echo "# On exit code $SAVED:"
    call scontrol requeue "${SLURM_JOB_ID:-JOB}"
    exit
fi
if [ "$code" = "$SAVED" ]; then
    echo "slurm.sh: it has saved and ended ($SAVED); job $SLURM_JOB_ID goes back into the queue" >&2
    scontrol requeue "$SLURM_JOB_ID" || echo "slurm.sh: it could not be requeued; submit it again" >&2
fi
exit "$code"
