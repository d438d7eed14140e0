//go:build linux

// Package systemd speaks the small protocols between a service and its manager:
// notifications (sd_notify(3)), sockets that the manager passes
// (sd_listen_fds(3)), files that the manager keeps for a service's next process
// (sd_pid_notify_with_fds(3)), and the watchdog (sd_watchdog_enabled(3)). It needs no
// library of systemd, and does nothing where there is no manager. Notifications it
// speaks from both sides: a [Notifier] sends them, and a [Receiver] is for a program
// that is the manager of others.
//
// It knows nothing of workers. It does not decide when to say what, nor what a
// notification that was received is to change, nor who may send it: a Receiver
// says which process did. A path for each service, in a directory that only its
// user may enter, says it better, as a process may be gone when it is looked up.
// Files that a service sends to a Receiver are not kept.
// systemd.service(5) describes Type=notify, NotifyAccess=, WatchdogSec= and
// FileDescriptorStoreMax=.
//
// # Ownership
//
// A [Notifier] owns one socket and closes it in [Notifier.Close]; files that are
// sent are borrowed. A [Receiver] owns its socket, the path and one goroutine, and
// ends all three with [Receiver.Close]; a [Notification] owns nothing. [Inherited]
// gives its files away, and takes the environment variables that named them out of
// the environment, so that no worker mistakes them for its own.
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
//
// And the manager of a service:
//
//	r, err := systemd.NewReceiver("/run/manager/web/notify")
//	...
//	defer r.Close()
//	service.Env = append(service.Env, systemd.NotifyEnvironment(r.Path()))
//	...
//	for {
//		n, err := r.Receive()
//		var dropped *systemd.DroppedError
//		switch {
//		case errors.As(err, &dropped):
//			continue // it said something that cannot be right
//		case err != nil:
//			return err // os.ErrClosed after Close
//		}
//		act(n)
//		n.Done() // sd_notify_barrier(3) in the service returns
//	}
package systemd
