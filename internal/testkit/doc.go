// Package testkit runs the daemon for tests of real processes: it builds the
// programs once, starts a master with a configuration in a directory of its own,
// waits for conditions, runs the commands as a user does, reads /proc, and makes
// sure at the end that nothing is left.
//
// # What it does not know
//
// What is right. It fails a test for what is wrong in every test: a daemon that
// does not come up or does not end, an exit code other than the one expected, a
// process that outlives its master, a data race in any of them.
//
// # Who owns what
//
// A [Daemon] belongs to the test that made it, and so to one goroutine: only that
// one may call what can fail the test. Its directory, processes and files are gone
// when the test has ended. What [Program] built stays until [Clean], which [Main]
// calls.
//
// Nothing here sleeps: [Until] asks again at short intervals and has a deadline.
//
// # Example
//
//	func TestMain(m *testing.M) { testkit.Main(m) }
//
//	func TestReload(t *testing.T) {
//		d := testkit.New(t)
//		d.Configure(`[pool.web] ...`)
//		d.Start()
//		if out := d.Run("reload"); out.Code != 0 {
//			t.Error(out)
//		}
//		d.Stop()
//	}
package testkit
