// Package e2e is the chaos harness: it runs every role as a process of its own, breaks them and the network
// between them in a planned way while numbered lines are pushed, and holds what ClickHouse has in the end
// against every answer that a push got. It is nothing but tests; docs/chaos.md says how to run and read them.
package e2e
