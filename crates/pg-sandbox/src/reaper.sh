# The watchdog of one sandbox: see reaper.rs. POSIX sh; $1 is the directory of the sandbox.
#
# It makes the directory and says "made", or says what is wrong and exits 1; standard output ends after that.
# Standard input is a pipe that only the owner holds. On it come lines "server PID", "group PID" and "none 0", the
# last of which says what runs now. Its end means that the owner is gone or has let go: stop what runs, remove
# the directory. Exits 0 if nothing is left.

dir=$1
trap '' HUP INT QUIT TERM PIPE
cd / || exit 1
# Fails if it exists: so no other account can own the directory.
mkdir -m 700 "$dir" 2>&1 || exit 1
echo made
exec >/dev/null 2>&1

nap() { sleep 0.02 2>/dev/null || sleep 1; }
NAPS_MAX=300 # 6 s for each step: an immediate shutdown takes some 50 ms

# The process is there, and it is ours: its command line names the directory. Ids are used again.
ours() {
    if [ -r "/proc/$1/cmdline" ]; then
        command=$(tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null)
    else
        command=$(ps -o command= -p "$1" 2>/dev/null)
    fi
    case $command in *"$dir"*) true ;; *) false ;; esac
}

# The same, for a process that may just be turning from the gate's shell into its program: it has no command line for
# that moment, and one look would take it for a stranger and let it live.
surely_ours() {
    looks=0
    until ours "$1"; do
        kill -s 0 "$1" 2>/dev/null && [ $looks -lt 10 ] || return 1
        nap
        looks=$((looks + 1))
    done
}

# "PID PARENT" of every process.
processes() {
    if [ -r /proc/self/stat ]; then
        for stat in /proc/[0-9]*/stat; do
            line=
            { read -r line <"$stat"; } 2>/dev/null
            id=${stat#/proc/}
            # What follows the last parenthesis begins with the state and the parent.
            fields=${line##*) }
            fields=${fields#* }
            [ -n "$line" ] && echo "${id%/stat} ${fields%% *}"
        done
    else
        ps -A -o pid= -o ppid=
    fi
}

children_of() {
    processes | while read -r id parent; do
        [ "$parent" = "$1" ] && echo "$id"
    done
}

each() { # each SIGNAL PID...: signals what is still there
    signal=$1
    shift
    for id in "$@"; do kill -s "$signal" "$id" 2>/dev/null; done
}

stop_server() {
    children=$(children_of "$1")
    # An immediate shutdown lets the server free its shared memory. It may be paused, and its children too.
    # shellcheck disable=SC2086 # one word per process
    each QUIT "$1" && each CONT "$1" $children
    naps=0
    # Until the process is gone: one that has just begun answers later. A zombie has no command line any more.
    while ours "$1" && [ $naps -lt $NAPS_MAX ]; do
        nap
        naps=$((naps + 1))
    done
    if ours "$1"; then
        # shellcheck disable=SC2046,SC2086
        each STOP "$1" && each KILL $(children_of "$1") $children "$1"
    fi
}

what=none
pid=0
while read -r next_what next_pid; do
    what=$next_what
    pid=$next_pid
done

if [ "$pid" -gt 0 ] && surely_ours "$pid"; then
    case $what in
    server) stop_server "$pid" ;;
    group) kill -s KILL -- "-$pid" ;;
    esac
fi

# A killed server leaves one small segment of System V shared memory; line 7 of its file is "key id".
if [ -r "$dir/data/postmaster.pid" ]; then
    segment=$(sed -n '7s/^ *[0-9]* *\([0-9]*\) *$/\1/p' "$dir/data/postmaster.pid")
    [ -n "$segment" ] && ipcrm -m "$segment" 2>/dev/null
fi

# More than once, for a dying process may still be making files.
naps=0
while [ -e "$dir" ] && [ $naps -lt $NAPS_MAX ]; do
    rm -rf "$dir" 2>/dev/null || nap
    naps=$((naps + 1))
done
[ ! -e "$dir" ]
