package steer

import "testing"

// TestVerifier: the program is far from what the verifier has patience for, a
// million instructions since Linux 5.2.
func TestVerifier(t *testing.T) {
	k, err := newKernel()
	if err != nil {
		needBPF(t, err)
	}
	defer func() { _ = k.close() }()
	info, err := k.program.Info()
	if err != nil {
		t.Fatal(err)
	}
	n, _ := info.VerifiedInstructions()
	size, _ := info.JitedSize()
	t.Logf("%d instructions verified, %d bytes of machine code", n, size)
	if n > 50_000 {
		t.Errorf("the verifier went through %d instructions", n)
	}
}
