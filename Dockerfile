# syntax=docker/dockerfile:1

# Compiles on the builder's own platform for any other: Go needs no emulation for that. Not on Alpine: what opens
# ClickHouse's library makes the program a dynamic one even without cgo, and Alpine's Go would name musl in it.
FROM --platform=$BUILDPLATFORM golang:1.26.8-trixie AS build
WORKDIR /src

# The dependencies are a layer of their own: a change of code does not fetch them again.
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod \
    go mod download

COPY . .
ARG TARGETOS TARGETARCH
ARG VERSION=dev
RUN --mount=type=cache,target=/go/pkg/mod \
    --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/logthra .

# The program, the libc it names, and the roots that TLS to NATS and ClickHouse needs. This runs the gateway, the
# ingester and the tools; the embedded engines are for machines, not for this image.
FROM debian:trixie-slim
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/logthra /logthra
# Nobody's number, as a number, so that Kubernetes can tell that it isn't root.
USER 65532:65532
# HTTP, gRPC; the ingester's gRPC, its /ready and /metrics.
EXPOSE 3100 4317 9011 9012
ENTRYPOINT ["/logthra"]
