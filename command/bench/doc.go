// Package bench measures how fast a log system takes lines: it makes pushes, sends them over some connections at full speed
// or at a rate, and tells how long each took to be answered and what the processes that worked on them used.
//
// Pushes are made before the clock starts, as far as Config.Ahead reaches, so that little of what is measured is its own work.
package bench
