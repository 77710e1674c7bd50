# The shell that submitted this job may have left variables of another job, or of torchrun.
unset {{foreign}}

# Starts a step and waits for it. Slurm sends stop signals to its processes; srun passes one that reaches only this shell.
srun() {
    local step='' status signalled=''
    trap 'signalled=yes; [ -z "$step" ] || kill -USR1 $step' TERM INT HUP USR1 USR2
    export FLEET_WORKING_FOLDER=$PWD  # a container may have another one
    command srun "$@" &
    step=$!
    [ -z "$signalled" ] || kill -USR1 $step  # the signal came before the step had a number
    while signalled=; wait $step; status=$?; [ $signalled ]; do :; done
    trap '' TERM INT HUP USR1 USR2
    return $status
}

# Ends the job when a line of the set-up fails. `|| true` at the end of a line lets it fail.
setup_failed() {
    trap - ERR EXIT
    echo "error: the set-up of the job failed on ${SLURMD_NODENAME:-$HOSTNAME} with exit status $1: ${2/#load_module/module load}" >&2
    echo "Correct --setup, --modules or the cluster file, or write \`|| true\` after a line that may fail" >&2
    exit 2
}
setup_line_failed() {  # status, number of the line, depth: 1 for a line of this script, more for a file that it reads
    [ "$3" -gt 1 ] || setup_failed "$1" "$(sed -n "$2p" "$0")"
}

# Loads an environment module. Old module commands return 0 even if there is no such module.
load_module() {
    local before=${LOADEDMODULES-}
    module load "$@" || return
    [ "${LOADEDMODULES-$1}" != "$before" ] || [[ ":$before" = *":$1"[:/]* || ":$before" = *":$1" ]]
}
