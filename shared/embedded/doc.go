// Package embedded runs Logthra's two engines on one machine, with nothing
// installed beforehand: NATS JetStream inside this process, and ClickHouse in
// a supervised child process.
//
// ClickHouse comes as libchdb.so, which [Library] fetches once for a user. It
// takes over signals and threads of the process it is loaded into, and it can
// crash, so this command starts itself again as the child that loads it: every
// main and TestMain that starts a ClickHouse calls [RunChild] first.
package embedded
