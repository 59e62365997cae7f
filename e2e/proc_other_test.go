//go:build !linux

package e2e

import "syscall"

func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// ClickHouse's server is not found here. It ends by itself when its parent was killed.
func children(int) []int { return nil }

func peakMemory(int) int64 { return 0 }
