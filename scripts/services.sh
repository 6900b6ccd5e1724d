# Services of a private instance: started in the background with a log and a pid file below $RUN, and ended by that pid.
# Sourced after lib.sh, never run.

# start NAME COMMAND...: in the background with a log and a pid file.
start() {
  local name=$1; shift
  # In a session of its own: Ctrl-C ends the script, which then ends its services in order.
  # Appended to: one that is started again does not take the words of its predecessor with it.
  setsid "$@" >>"$RUN/logs/$name.log" 2>&1 </dev/null &
  echo "$! $(awk '{ print $22 }' /proc/$!/stat)" >"$RUN/pids/$name"
}
# await NAME SECONDS COMMAND...: until COMMAND succeeds; fails at once when NAME has ended.
await() {
  local name=$1 limit=$((SECONDS + $2)); shift 2
  until "$@" >/dev/null 2>&1; do
    running "$name" || { tail -n 20 "$RUN/logs/$name.log" >&2; die "$name ended (log above)"; }
    [ $SECONDS -lt $limit ] || { tail -n 20 "$RUN/logs/$name.log" >&2; die "$name was not ready in time (log above)"; }
    sleep 0.1
  done
}
# running NAME: the process that we started, not another with its pid, and not one that only waits to be reaped.
running() { local pid start; read -r pid start <"$RUN/pids/$1" && [ "$(awk '$3 != "Z" { print $22 }' "/proc/$pid/stat" 2>/dev/null)" = "$start" ]; }
stop() {
  local name=$1 pid limit=$((SECONDS + 10))
  [ -e "$RUN/pids/$name" ] || return 0
  read -r pid _ <"$RUN/pids/$name"
  running "$name" && kill "$pid" 2>/dev/null
  while running "$name"; do
    [ $SECONDS -lt $limit ] || { kill -9 "$pid" 2>/dev/null; break; }
    sleep 0.1
  done
  rm -f "$RUN/pids/$name"
}
