//go:build arm64 || riscv64 || loong64

package census

import "golang.org/x/sys/unix"

// The table of asm-generic/unistd.h has neither poll(2) nor select(2).
var (
	oldAccepts           = []int{unix.SYS_ACCEPT}
	oldPolls, oldSelects []int
)
