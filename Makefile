# What people and CI run. Everything works on a bare machine with Rust, Go and a C compiler.
.DEFAULT_GOAL := help
.PHONY: help bench build demo test soak lint manifests release

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build every crate
	cargo build --workspace --all-targets

demo: ## Show it at work on a real control plane, until Ctrl-C; ONCE=1 ends after showing
	cargo build --bin manager
	@cargo run --quiet --package testbed --bin demo -- $(if $(filter-out 0,$(ONCE)),--once)

test: ## Run every test; builds the control plane's programs first (once, about 7 minutes)
	cargo run --quiet --package testbed -- build
	cargo test --workspace

MINUTES ?= 10

soak: ## Disturb managers and API server at random for MINUTES=10, and audit after each round; TESTBED_SEED=n repeats one
	cargo run --quiet --package testbed -- build
	SOAK_MINUTES=$(MINUTES) cargo test --quiet --test control_plane

bench: ## Measure against a raw server, under 5 minutes; bigger: BENCH="--sizes 1000,10000 --pools 1,1000"; Services: BENCH=externalip; all: BENCH=--help
	cargo build --release --bin manager --package ipam-in-cluster --bin bench --package bench
	@target/release/bench $(BENCH)

lint: ## Check the format and the lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings

manifests: ## Write the generated files of config/ anew
	cargo run --quiet --bin manager -- manifests config

# The host's architecture, or the other one where its target and linker are installed.
ARCH ?= $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,amd64)
RUST_TARGET = $(if $(filter arm64,$(ARCH)),aarch64,x86_64)-unknown-linux-gnu
VERSION ?= v$(shell sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
IMAGE ?= localhost/ipam-in-cluster:$(VERSION)

release: ## Write out/: components, samples, templates, and the image for ARCH as an OCI layout
	cargo build --quiet --bin manager
	MANAGER=target/debug/manager KUBECTL="$$(cargo run --quiet --package testbed -- kubectl)" .ci/release $(VERSION) $(IMAGE) out
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --bin manager --target $(RUST_TARGET)
	.ci/image target/$(RUST_TARGET)/release/manager /manager $(ARCH) $(IMAGE) out/image
