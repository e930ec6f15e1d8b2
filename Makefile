# What people and CI run. Everything works on a bare machine with Rust, Go and a C compiler.
.DEFAULT_GOAL := help
.PHONY: help build demo test lint manifests

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build every crate
	cargo build --workspace --all-targets

demo: ## Show it at work on a real control plane, until Ctrl-C; ONCE=1 ends after showing
	cargo build --bin manager
	@cargo run --quiet --package testbed --bin demo -- $(if $(filter-out 0,$(ONCE)),--once)

test: ## Run every test; builds the control plane's programs first (once, about 6 minutes)
	cargo run --quiet --package testbed -- build
	cargo test --workspace

lint: ## Check the format and the lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings

manifests: ## Write the generated files of config/ anew
	cargo run --quiet --bin manager -- manifests config
