# Shared by the scripts: places, progress, and packages unpacked beside the system.
# Sourced, never run. Sets: ROOT (checkout), CACHE (outside the checkout), TOOLS (unpacked Debian packages).
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${CELLA_CACHE:-$HOME/.cache/cella}
TOOLS=$CACHE/tools
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}
mkdir -p "$CACHE"

# step TEXT: one progress line with the seconds since the script began.
step() { printf '[%4ds] %s\n' "$SECONDS" "$*" >&2; }
die() { printf 'cella: %s\n' "$*" >&2; exit 1; }
# free_port: a loopback port that nobody listens on now.
free_port() { perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(Listen=>1,LocalAddr=>"127.0.0.1",LocalPort=>0)->sockport'; }
sha256() { sha256sum "$1" | cut -d' ' -f1; }

# settle: before each build. Cargo knows a changed source by its time alone, and checkouts share the target directory: a source
# whose content is not what was built last gets a new time, or a build could take another checkout's bytes for this one's.
settle() {
  local seen=$CARGO_TARGET_DIR/.cella-sources now
  mkdir -p "$CARGO_TARGET_DIR"; [ -e "$seen" ] || : >"$seen"
  now=$(cd "$ROOT" && find . \( -name .git -o -name target -o -name .target -o -name .out \) -prune -o -type f \( -name '*.rs' -o -name '*.toml' -o -name '*.proto' \) -print0 |
    LC_ALL=C sort -z | xargs -0 sha256sum | LC_ALL=C sort)
  LC_ALL=C comm -13 "$seen" - <<<"$now" | cut -c67- | (cd "$ROOT" && xargs -r -d '\n' touch -c)
  printf '%s\n' "$now" >"$seen"
}

# mirror: the Debian mirror that this machine's apt already uses.
mirror() {
  local m
  m=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 2>/dev/null |
    awk '$2 ~ /^(bookworm|stable)$/ { sub("/$", "", $1); print $1; exit }')
  [ -n "$m" ] || die "no Debian bookworm mirror in /etc/apt; add one and run again"
  printf '%s\n' "$m"
}

# need COMMAND PACKAGE...: install Debian 12 packages unless the command is there.
need() {
  local cmd=$1; shift
  command -v "$cmd" >/dev/null 2>&1 && return 0
  install_packages "$@"
}

# install_packages NAME...: Debian 12's own packages that are missing, services kept from starting.
install_packages() {
  local missing=() p
  for p in "$@"; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  step "installing from Debian 12: ${missing[*]}"
  local hook=/usr/sbin/policy-rc.d made=
  if [ ! -e $hook ]; then printf '#!/bin/sh\nexit 101\n' >$hook; chmod 755 $hook; made=1; fi
  { [ -n "$(find /var/lib/apt/lists -name '*bookworm*Packages*' -print -quit 2>/dev/null)" ] || apt-get -q update; } >>"$CACHE/apt.log" 2>&1
  DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${missing[@]}" >>"$CACHE/apt.log" 2>&1 ||
    { apt-get -q update >>"$CACHE/apt.log" 2>&1 &&
      DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${missing[@]}" >>"$CACHE/apt.log" 2>&1; } ||
    { [ -z "$made" ] || rm -f $hook; tail -n 20 "$CACHE/apt.log" >&2; die "apt-get could not install: ${missing[*]} (log: $CACHE/apt.log)"; }
  [ -z "$made" ] || rm -f $hook
}

# beside_apt SUITE ARGS...: apt-get with lists of its own for one suite; the system's apt is not touched.
beside_apt() {
  local suite=$1 d=$CACHE/apt/$1; shift
  mkdir -p "$d/lists/partial" "$d/archives/partial" "$d/etc/preferences.d"
  [ -s "$d/etc/sources.list" ] || echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) $suite main" >"$d/etc/sources.list"
  local opts=(-q -o "Dir::Etc=$d/etc" -o "Dir::Etc::sourcelist=$d/etc/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$d/lists" -o "Dir::Cache=$d" -o "Dir::Cache::archives=$d/archives" -o APT::Sandbox::User=root)
  if [ ! -e "$d/updated" ]; then apt-get "${opts[@]}" update >>"$CACHE/apt.log" 2>&1 || die "no package list for $suite (log: $CACHE/apt.log)"; touch "$d/updated"; fi
  apt-get "${opts[@]}" "$@"
}

# unpack_beside SUITE DIR PACKAGE[=VERSION]...: download from another suite and unpack below DIR, once.
unpack_beside() {
  local suite=$1 dir=$2 p; shift 2
  local want="$suite $*"
  [ "$(cat "$dir/.unpacked" 2>/dev/null)" = "$want" ] && return 0
  step "unpacking beside the system, from $suite: $*"
  rm -rf "$dir" "$dir.part"; mkdir -p "$dir.part/.debs"
  (cd "$dir.part/.debs" && beside_apt "$suite" download "$@" >>"$CACHE/apt.log" 2>&1) ||
    { rm -f "$CACHE/apt/$suite/updated"; (cd "$dir.part/.debs" && beside_apt "$suite" download "$@" >>"$CACHE/apt.log" 2>&1); } ||
    die "could not download from $suite: $* (log: $CACHE/apt.log)"
  for p in "$dir.part"/.debs/*.deb; do dpkg -x "$p" "$dir.part"; done
  rm -rf "$dir.part/.debs"
  printf '%s\n' "$want" >"$dir.part/.unpacked"
  mv "$dir.part" "$dir"
}
