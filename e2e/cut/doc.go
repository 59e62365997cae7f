// Package cut tests that a query finds a line the moment that its push was answered, and counts it once, whatever the ingesters do
// meanwhile: gateway/engine/cut with real ingesters, NATS and ClickHouse.
package cut
