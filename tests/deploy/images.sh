# shellcheck shell=bash
# Of script/image: stand-ins for the images that deploy/ names, the relay's own image, and what that is made of.

# build ARGUMENT...: in the namespaces of this machine, which works inside of a container, too
build() {
    podman build --isolation=chroot --network=host --pull=never --format=docker "$@" &>"$work/build" ||
        { tail -n 40 "$work/build" >&2 && die "failed: podman build $*"; }
}

# stand_in TARGET IMAGE
stand_in() { build --file tests/deploy/stand-ins.Dockerfile --target "$1" --tag "$2" "$(realpath target/kafka/libs)"; }

# named NAME: the image with its registry and tag, as deploy/ has it
named() { grep -hoE "[a-z.]+/$1:[A-Za-z0-9.-]+" deploy/Dockerfile deploy/compose/compose.yaml | head -n 1; }

stand_ins() {
    stand_in rust "$(named library/rust)"
    stand_in distroless "$(named distroless/cc-debian12)"
    stand_in kafka "$(named apache/kafka)"
    stand_in prometheus "$(named prom/prometheus)"
    stand_in alertmanager "$(named prom/alertmanager)"
    stand_in host localhost/host:bookworm
}

# The build has no network: what it takes from crates.io is here before it starts.
fetch_crates() {
    local auditable crate
    auditable=$(sed -n 's/.*cargo install .*cargo-auditable@//p' deploy/Dockerfile)
    mkdir -p "$work/fetch/src"
    touch "$work/fetch/src/lib.rs"
    printf '[package]\nname = "fetch"\n[dependencies]\ncargo-auditable = "=%s"\n' "$auditable" >"$work/fetch/Cargo.toml"
    cargo fetch --quiet --manifest-path "$work/fetch/Cargo.toml" 2>"$work/last" || { cat "$work/last" >&2 && exit 1; }
    for crate in "$cargo_registry"/src/*/"cargo-auditable-$auditable"; do
        cargo fetch --quiet --locked --manifest-path "$crate/Cargo.toml"
    done
    cargo fetch --quiet --locked
}

the_image() {
    fetch_crates
    build --volume "$(rustc --print sysroot):/opt/rust:ro" --volume "$cargo_registry:/usr/local/cargo/registry" \
        --build-arg "PROFILE=$profile" --file deploy/Dockerfile --tag "$image" .
}

# Scanners find in the image which crates it is made of.
bill_of_materials() {
    podman save --quiet --format oci-archive --output "$work/image.tar" "$image"
    "$tools/syft" scan --quiet "oci-archive:$work/image.tar" --output "cyclonedx-json=$store/sbom.json"
    "$tools/python" - "$store/sbom.json" <<'END'
import json, re, sys
found = {(component["name"], component.get("version")) for component in json.load(open(sys.argv[1]))["components"]}
locked = set(re.findall(r'name = "(.*)"\nversion = "(.*)"', open("Cargo.lock").read()))
wanted = {crate for crate in locked if crate[0] in ["hyper", "rdkafka", "rdkafka-sys", "rustls", "tokio"]}
if wanted - found:
    sys.exit(f"image: the SBOM lacks {wanted - found}")
END
}
