# `make help` lists the targets. What a target needs and this machine lacks, scripts/setup brings.
.DEFAULT_GOAL := help
.PHONY: help run test test-engines fuzz ci bench bench-quick faults build image fmt clean

IMAGE ?= flockofbirds/dispatcher
GO_IMAGE ?= golang:1.26-trixie
COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

# Go stops where git does not trust the folder, as root in a container does another owner's; then it builds without a commit.
export GOFLAGS := $(strip $(GOFLAGS) $(shell git rev-parse HEAD >/dev/null 2>&1 || echo -buildvcs=false))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## set up what is missing, build, and serve in the foreground (FOB_* settings; ARGS='--flag …')
	@exec scripts/run $(ARGS)

test: ## every test, with the race detector and Docker (PKG=./internal/…, GO_TEST_FLAGS='-run …')
	@exec scripts/test $(GO_TEST_FLAGS) $(PKG)

test-engines: ## the Docker tests and the Compose walk-through on Docker 28.5, which it brings up beside this machine's
	@exec scripts/test-engines $(GO_TEST_FLAGS) $(PKG)

fuzz: ## look for input that breaks what reads it, FUZZTIME (10s) a target
	@exec scripts/fuzz

ci: ## vet, staticcheck, formatting, shellcheck, test, fuzz, compose walk-through
	@exec scripts/ci

bench: ## measure calls, cold starts and scale on a real engine: tables, and build/bench.json (ARGS='-only calls,cold')
	@exec scripts/bench $(ARGS)

bench-quick: ## bench in less than two minutes
	@exec scripts/bench -quick $(ARGS)

faults: ## break dispatchers on a real engine in every way of docs/inside/reliability.md: half an hour (ARGS='-seed 7 -only kill')
	@exec scripts/faults $(ARGS)

build: ## build/dispatcher, one static binary
	@CGO_ENABLED=0 go build -trimpath -ldflags '-X main.commit=$(COMMIT)' -o build/dispatcher ./cmd/dispatcher

image: ## the dispatcher's image (IMAGE=name)
	docker build --build-arg GO_IMAGE=$(GO_IMAGE) --build-arg COMMIT=$(COMMIT) -t $(IMAGE) .

fmt: ## format the Go code
	gofmt -w .

clean: ## remove what building left
	rm -rf build
