# The dispatcher: one static binary and nothing else. No syntax line, so that the classic builder can build it.
ARG GO_IMAGE=golang:1.26-trixie

FROM ${GO_IMAGE} AS build
# The label tells what the classic builder leaves of this stage from other images, so that it can be removed.
LABEL fob.stage=build
ARG GOPROXY
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG COMMIT=unknown
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-X main.commit=${COMMIT}" -o /dispatcher ./cmd/dispatcher

FROM scratch
COPY --from=build /dispatcher /dispatcher
# All addresses of the container. The host decides what it publishes.
ENV FOB_ADDR=0.0.0.0:9999 FOB_DATA=/var/lib/fob
VOLUME /var/lib/fob
EXPOSE 9999
ENTRYPOINT ["/dispatcher"]
CMD ["serve"]
