// Package clients holds real shippers and client libraries against a real Logthra: what each of them sends has to be in
// ClickHouse field by field, and what a client that reads shows has to be what was pushed. It is nothing but tests. Those of libraries in Go run with all
// others; those of npm's and Debian's clients, of the OpenTelemetry Collector and of logcli have the build tag clients, and need what
// install.sh brings. docs/shippers has a page for each that sends.
package clients
