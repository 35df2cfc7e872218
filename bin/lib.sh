# shellcheck shell=bash
# What the scripts in here share; sourced by them.

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.longtake/tools
# rustup's folder too: a shell that was open when Rust was installed does not have it.
PATH=$tools/bin:$PATH:${HOME:-/root}/.cargo/bin

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "error: $*"
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# The folder of PostgreSQL's server programs, version 15 or newer: on PATH, or where packages put them.
postgres_bin() {
    local bin major path
    IFS=: read -ra path <<<"$PATH"
    local packaged=(/usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin
        /usr/local/opt/postgresql@*/bin /Applications/Postgres.app/Contents/Versions/*/bin)
    while read -r bin; do
        [[ -x $bin/postgres && -x $bin/initdb && -x $bin/pg_ctl ]] || continue
        major=$("$bin/postgres" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
        if ((major >= 15)); then
            printf '%s\n' "$bin"
            return
        fi
    done < <(printf '%s\n' "${path[@]}" && printf '%s\n' "${packaged[@]}" | sort -rV)
    return 1
}
