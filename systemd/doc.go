//go:build linux

// Package systemd speaks the small protocols between a service and its manager:
// notifications (sd_notify(3)), sockets that the manager passes
// (sd_listen_fds(3)) and the watchdog (sd_watchdog_enabled(3)). It needs no
// library of systemd, and does nothing where there is no manager.
//
// It knows nothing of workers and does not receive notifications; it does not
// decide when to say what. systemd.service(5) describes Type=notify,
// NotifyAccess=, WatchdogSec= and FileDescriptorStoreMax=.
//
// # Ownership
//
// A [Notifier] owns one socket and closes it in [Notifier.Close]; files that are
// sent are borrowed. [Inherited] gives its files away, and takes the environment
// variables that named them out of the environment, so that no worker mistakes
// them for its own.
//
// # Example
//
//	n := systemd.NewNotifier()
//	defer n.Close()
//	sockets, err := systemd.Inherited()
//	...
//	err = n.Send(systemd.Ready(), systemd.Status("2 workers are ready"))
//	if every, ok := systemd.WatchdogInterval(); ok {
//		// n.Send(systemd.Watchdog()) each every/2, while all is well
//	}
package systemd
