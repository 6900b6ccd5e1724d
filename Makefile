# Cella's commands. Everything that takes long is cached outside the checkout ($CELLA_CACHE, default ~/.cache/cella), keyed by
# content; a cache only saves time.
SHELL := /bin/bash
CELLA_CACHE ?= $(HOME)/.cache/cella
export CELLA_CACHE
export CARGO_TARGET_DIR ?= $(CELLA_CACHE)/target
export CELLA_OVMF := $(CELLA_CACHE)/tools/ovmf/usr/share/ovmf/OVMF.amdsev.fd

.PHONY: help setup build guest-image demo test attacks conformance lint deny bench bench-model soak fuzz clean

help: ## say what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 20

setup: ## install and unpack what building, demo and tests need
	@scripts/setup

build: setup ## compile the host's programs
	@scripts/progress "compiling the host's programs" cargo build --locked --release -p cella-shim -p cella-kbs -p cellactl
	@RUSTFLAGS='-C target-feature=+crt-static' scripts/progress "compiling the example of a job" cargo build --locked --release --target x86_64-unknown-linux-gnu -p cella-finetune
	@scripts/progress "compiling the simulated platform" cargo build --locked --release -p cella-sim-platform

guest-image: build ## build kernel and initramfs, print the launch digest of each TEE profile
	@scripts/guest-image
	@scripts/launch-digests

demo: ## set up everything and get an answer from an encrypted model inside an attested micro-VM
	@scripts/demo

test: ## all tests: units, end to end in real micro-VMs, reproducibility of the guest image
	@scripts/test

attacks: ## try each threat of docs/threat-model.md against what is built, without its defence and with it; ends with refused=N of=N
	@scripts/attacks

conformance: ## critest with cella and runc on each containerd, or on CONTAINERD=2.0|2.1|newest
	@$(MAKE) -s guest-image
	@scripts/progress "compiling the judge" cargo build --locked --release -p cella-tests --bin cella-conformance
	@scripts/conformance run $(CONTAINERD)

lint: ## format, clippy with warnings denied, rustdoc links
	@cargo fmt --all --check
	@scripts/progress "clippy" cargo clippy --locked --release --workspace --all-targets --all-features -- -D warnings
	@RUSTDOCFLAGS='-D warnings' scripts/progress "rustdoc" cargo doc --locked --release --workspace --no-deps --document-private-items

deny: ## licences, sources, banned crates (installs cargo-deny once)
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	@cargo deny check licenses bans sources

bench: ## measure, print medians and ratios, and one line of figures
	@scripts/bench

bench-model: ## how fast a sealed model becomes locked memory, against the cipher alone and other tools (some 10 minutes, 17 GiB)
	@scripts/bench-model

soak: ## many short lives (SOAK_CYCLES, default 300): every exit status right, nothing left, nothing grown
	@scripts/soak

fuzz: ## run each fuzz target for FUZZ_SECONDS (default 60)
	@scripts/fuzz

clean: ## remove what was built (the cache of downloads and kernels stays; remove it with rm -rf ~/.cache/cella)
	@rm -rf "$(CARGO_TARGET_DIR)" "$(CELLA_CACHE)/guest-image" "$(CELLA_CACHE)/demo"
