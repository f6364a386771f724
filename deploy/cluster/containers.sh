#!/usr/bin/env bash
# The cluster of deploy/compose.yaml in containers; `./dev cluster up|down|status --compose` runs it.
# Usage: containers.sh up [--no-build] | down [--delete] | status
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf '\033[1m%s\033[0m\n' "dev: $*" >&2; }
die() { say "$*"; exit 1; }

# Docker's own compose, or the older program of that name.
compose() {
  if docker compose version >/dev/null 2>&1; then
    docker compose -f deploy/compose.yaml "$@"
  elif command -v docker-compose >/dev/null; then
    docker-compose -f deploy/compose.yaml "$@"
  else
    die "Docker with compose is needed for this"
  fi
}

# Until every container says that it is healthy, or, where it has only something to do once, has done it; those that end
# are told from those that start slowly.
compose_wait() {
  local until=$((SECONDS + 300)) id state waiting
  while [ $SECONDS -lt $until ]; do
    waiting=
    for id in $(compose ps -a -q); do
      state=$(docker inspect --format '{{.Name}} {{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.ExitCode}}{{end}}' "$id")
      case "$state" in
        *" running healthy" | *" exited 0") ;;
        *) waiting+="${state#/}; " ;;
      esac
    done
    [ -n "$waiting" ] || return 0
    sleep 1
  done
  compose ps
  die "not healthy after 5 minutes: $waiting"
}

# Asks any broker that runs.
compose_status() {
  local broker
  for broker in broker-1 broker-2 broker-3; do
    compose exec -T "$broker" sluice cluster status 2>/dev/null </dev/null && return
  done
  die "no broker answers"
}

main() {
  case "${1:-} ${*:2}" in
    "up " | "up --no-build")
      if [ $# = 1 ]; then
        say "building images and starting containers (the first time compiles everything)"
        compose up -d --build
      else
        compose up -d
      fi
      compose_wait
      compose_status
      ;;
    "down ") compose down ;;
    "down --delete") compose down --volumes ;;
    "status ")
      compose ps
      compose_status
      ;;
    *)
      echo "usage: ./dev cluster up [--no-build] | down [--delete] | status, each with --compose" >&2
      exit 2
      ;;
  esac
}

main "$@"
