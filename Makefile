# `make help` lists the targets. scripts/setup installs what a target needs and this machine lacks.
.DEFAULT_GOAL := help
.PHONY: help run test test-quick test-engines fuzz ci bench bench-quick faults build install image fmt clean

PREFIX ?= /usr/local
IMAGE ?= flockofbirds/dispatcher
GO_IMAGE ?= golang:1.26-trixie
COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

# git does not trust a folder of another owner, such as a mounted one in a container, and then Go refuses to build. Build without a commit there.
export GOFLAGS := $(strip $(GOFLAGS) $(shell git rev-parse HEAD >/dev/null 2>&1 || echo -buildvcs=false))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## set up what is missing, build, and serve in the foreground (FOB_* settings; ARGS='--flag …')
	@exec scripts/run $(ARGS)

test: ## run every test, with the race detector and Docker (PKG=./internal/…, GO_TEST_FLAGS='-run …')
	@exec scripts/test $(GO_TEST_FLAGS) $(PKG)

test-quick: ## every test that needs no Docker, shortened, without the race detector: three to four minutes on 2 cores (PKG, GO_TEST_FLAGS)
	@exec scripts/test quick $(GO_TEST_FLAGS) $(PKG)

test-engines: ## run the Docker tests and the Compose walk-through on Docker 28.5, which it starts beside this machine's
	@exec scripts/test-engines $(GO_TEST_FLAGS) $(PKG)

fuzz: ## fuzz everything that reads input, FUZZTIME (50000x) times each target
	@exec scripts/fuzz

ci: ## check all: formatting, shellcheck, vet, staticcheck, the tests, a little fuzzing, the Compose walk-through
	@exec scripts/ci

bench: ## measure calls, cold starts and scale on a real engine: tables, and build/bench.json (ARGS='-only calls,cold')
	@exec scripts/bench $(ARGS)

bench-quick: ## the same in less than two minutes
	@exec scripts/bench -quick $(ARGS)

faults: ## break dispatchers on a real engine in every way that docs/inside/reliability.md lists: half an hour (ARGS='-seed 7 -only kill')
	@exec scripts/faults $(ARGS)

build: ## build the program, build/dispatcher: one static binary, also under the name build/fob
	@CGO_ENABLED=0 go build -trimpath -ldflags '-X main.commit=$(COMMIT)' -o build/dispatcher ./cmd/dispatcher
	@ln -sf dispatcher build/fob

install: build ## install the program and its completions below DESTDIR and PREFIX (/usr/local)
	@scripts/install "$(DESTDIR)$(PREFIX)"

image: ## build the dispatcher's image (IMAGE=name)
	docker build --build-arg GO_IMAGE=$(GO_IMAGE) --build-arg COMMIT=$(COMMIT) -t $(IMAGE) .

fmt: ## format the Go code
	gofmt -w .

clean: ## remove build/
	rm -rf build
