#!/usr/bin/env bash
# Makes an empty Debian 12 root with debootstrap, puts a clone of this commit into it with nothing but git, and runs
# `./dev run` and `./dev test` there, each twice in a row; the second time must install nothing. Needs root, debootstrap
# and 8 GB of disk. With --as-user a user who has sudo does it, else root. As the machine's own apt, pip and Go settings are taken along, it works behind a mirror too.
#
# Usage: tests/house/fresh-machine.sh [--keep] [--as-user] [COMMAND...]
#                                                  each COMMAND instead of "run" and "test", for example "test unit"
set -euo pipefail

top=$(git -C "$(dirname "${BASH_SOURCE[0]}")" rev-parse --show-toplevel)
keep=
user=root
while [[ "${1:-}" == --* ]]; do
  case "$1" in
    --keep) keep=1 ;;
    --as-user) user=dev ;;
    *) echo "fresh-machine: no option is called $1" >&2; exit 2 ;;
  esac
  shift
done
[ $# -gt 0 ] || set -- run test
[ "$(id -u)" = 0 ] || { echo "fresh-machine: needs root" >&2; exit 1; }

root=$(mktemp -d /var/tmp/sluice-fresh.XXXXXX)
chmod 755 "$root"  # it is to be / for whoever is in it
mounted=()

clean_up() {
  local at
  for at in "${mounted[@]}"; do
    umount --lazy "$at"
  done
  if [ -n "$keep" ]; then
    echo "fresh-machine: kept $root"
  else
    rm -rf --one-file-system "$root"
  fi
}
trap clean_up EXIT

mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null | head -1)
echo "fresh-machine: an empty Debian 12 in $root"
debootstrap --variant=minbase bookworm "$root" ${mirror:+"$mirror"} >"$root.log" 2>&1 || { tail "$root.log" >&2; exit 1; }
rm -f "$root.log"

# How this machine reaches its package sources, and whom it trusts.
cp /etc/resolv.conf /etc/hosts "$root/etc/"
grep -l '^ *Acquire' /etc/apt/apt.conf.d/* 2>/dev/null | xargs -r cp -t "$root/etc/apt/apt.conf.d/"
[ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/"
for trust in /etc/ssl/certs /usr/local/share/ca-certificates; do
  [ ! -d "$trust" ] || { mkdir -p "$root$trust" && cp -rL "$trust/." "$root$trust/" 2>/dev/null || true; }
done
# A root that is no mount point lets nobody in it make a namespace for mounts, which a machine's or a container's does.
mount --bind "$root" "$root"
mounted=("$root")
for fs in proc sys dev dev/pts; do
  mount --bind "/$fs" "$root/$fs"
  mounted=("$root/$fs" "${mounted[@]}")
done

settings=()
while IFS= read -r name; do
  settings+=("$name=${!name}")
done < <(compgen -e | grep -E '^(PIP_(CERT|PROXY|INDEX_URL|EXTRA_INDEX_URL)|GOPROXY|GOSUMDB|GONOSUMDB|GONOSUMCHECK|GOFLAGS|GOINSECURE|GOPRIVATE|SSL_CERT_FILE|(https?|no)_proxy|(HTTPS?|NO)_PROXY)$')
# inside USER COMMAND
inside() {
  chroot "$root" /usr/bin/env -i HOME="$(chroot "$root" getent passwd "$1" | cut -d: -f6)" PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "${settings[@]}" \
    runuser -u "$1" -- bash -c "$2"
}
as_root() { inside root "$1"; }

as_root 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends git >/dev/null'
git clone -q --no-hardlinks "$top" "$root/srv/sluice"
if [ "$user" != root ]; then
  as_root 'DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends sudo >/dev/null'
  as_root "useradd --create-home $user && chown -R $user: /srv/sluice && echo '$user ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/$user"
fi

for command in "$@"; do
  for time in first second; do
    echo "fresh-machine: ./dev $command, the $time time"
    from=$SECONDS
    inside "$user" "cd /srv/sluice && ./dev $command 2>&1" | tee "$root/output.log"
    echo "fresh-machine: ./dev $command, the $time time: ok, $((SECONDS - from)) s"
    if [ "$time" = second ] && grep -qE 'dev: (installing|fetching|building the S3)' "$root/output.log"; then
      echo "fresh-machine: the second call set something up again" >&2
      exit 1
    fi
  done
done
echo "fresh-machine: all is well"
