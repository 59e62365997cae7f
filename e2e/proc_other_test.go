//go:build !linux

package e2e

import (
	"syscall"
	"time"
)

func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// ClickHouse's server is not found here. It ends by itself when its parent was killed.
func children(int) []int { return nil }

func peakMemory(int) int64 { return 0 }

func cpuTime(int) time.Duration { return 0 }
