// Logthra takes logs from the shippers that people run already, makes them durable in NATS JetStream before it
// answers, and lands them in ClickHouse in large batches, exactly once.
package main

import (
	"os"

	"github.com/casteloig/logthra/command"
	"github.com/casteloig/logthra/shared/embedded"
)

// version is set by the linker for releases.
var version = ""

func main() {
	embedded.RunChild()
	os.Exit(command.Main(version, os.Args[1:]))
}
