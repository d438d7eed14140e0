package systemd

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for message, want := range map[string]Notification{
		"":                         {},
		"\x00":                     {},
		"READY=1":                  {Ready: true},
		"READY=1\n":                {Ready: true},
		"READY=1\x00":              {Ready: true},
		"\n\r\nREADY=1\r\n\n":      {Ready: true},
		"READY=0\nREADY=1":         {Ready: true},
		"READY=1\nREADY=0":         {Ready: true},
		"READY=0":                  {},
		"READY":                    {},
		"READY=":                   {},
		"READY=11":                 {},
		" READY=1":                 {},
		"ready=1":                  {},
		"=1":                       {},
		"X_READY=1\nFOO=bar\n=":    {},
		"FDSTORE=1\nFDNAME=a":      {},
		"STOPPING=1\nREADY=1":      {Stopping: true, Ready: true},
		Reloading(5 * time.Second): {Reloading: true, Monotonic: 5 * time.Second},
		"MONOTONIC_USEC=x":         {},

		"STATUS=2 of 3":          {Status: "2 of 3", HasStatus: true},
		"STATUS=":                {HasStatus: true},
		"STATUS=\xff":            {HasStatus: true},
		"STATUS=a=b\\n\t\x1b[1m": {Status: "a=b\\n\t\x1b[1m", HasStatus: true},
		"STATUS=a\rSTATUS=b":     {Status: "a", HasStatus: true},
		"ERRNO=2":                {Errno: 2},
		"ERRNO=4096":             {},
		"ERRNO=-2":               {},
		"ERRNO=ENOENT":           {},
		"MAINPID=7":              {MainPID: 7},
		"MAINPID=2147483647":     {MainPID: 1<<31 - 1},
		"MAINPID=2147483648":     {},
		"MAINPID=0":              {},
		"MAINPID=-1":             {},
		"MAINPID=1\nMAINPID=2":   {MainPID: 1},
		"MAINPID=x\nMAINPID=2":   {},

		"WATCHDOG=1":                               {Watchdog: true},
		"WATCHDOG=trigger":                         {WatchdogTrigger: true},
		"WATCHDOG=1\nWATCHDOG=trigger":             {Watchdog: true},
		"WATCHDOG=2":                               {},
		"WATCHDOG_USEC=20000000":                   {WatchdogTimeout: 20 * time.Second, HasWatchdogTimeout: true},
		"WATCHDOG_USEC=0":                          {HasWatchdogTimeout: true},
		"WATCHDOG_USEC=18446744073709551615":       {HasWatchdogTimeout: true},
		"WATCHDOG_USEC=18446744073709551616":       {},
		"WATCHDOG_USEC=-1":                         {},
		"WATCHDOG_USEC=":                           {},
		ExtendTimeout(30 * time.Second):            {ExtendTimeout: 30 * time.Second},
		"EXTEND_TIMEOUT_USEC=9223372036854775807":  {ExtendTimeout: 9223372036854775 * time.Microsecond},
		"EXTEND_TIMEOUT_USEC=18446744073709551615": {},

		"BARRIER=1":     {Barrier: true},
		"\nBARRIER=1\n": {Barrier: true},
		"BARRIER=0\nX":  {},
	} {
		if got, err := parse([]byte(message)); got != want || err != nil {
			t.Errorf("%q: got %+v, %v, want %+v", message, got, err, want)
		}
	}
	for message, want := range map[string]error{
		"READY=1\x00\nSTATUS=x":    ErrZeroByte,
		"\x00\x00":                 ErrZeroByte,
		"\x00READY=1":              ErrZeroByte,
		"BARRIER=1\nREADY=1":       ErrBarrier,
		"X\nBARRIER=1":             ErrBarrier,
		"BARRIER=1\nBARRIER=1":     ErrBarrier,
		"BARRIER=1\n" + Watchdog(): ErrBarrier,
	} {
		if got, err := parse([]byte(message)); got != (Notification{}) || !errors.Is(err, want) {
			t.Errorf("%q: got %+v, %v, want %v", message, got, err, want)
		}
	}
}

// message writes n with what a service says it with.
func message(n Notification) string {
	var fields []string
	say := func(when bool, field string) {
		if when {
			fields = append(fields, field)
		}
	}
	say(n.Ready, Ready())
	say(n.Stopping, Stopping())
	say(n.Reloading && n.Monotonic != 0, Reloading(n.Monotonic))
	say(n.Reloading && n.Monotonic == 0, "RELOADING=1")
	say(!n.Reloading && n.Monotonic != 0, "MONOTONIC_USEC="+microseconds(n.Monotonic))
	say(n.HasStatus, "STATUS="+n.Status) // Status would replace control characters
	say(n.Errno != 0, "ERRNO="+strconv.Itoa(n.Errno))
	say(n.MainPID != 0, MainPID(n.MainPID))
	say(n.Watchdog, Watchdog())
	say(n.WatchdogTrigger, "WATCHDOG=trigger")
	say(n.HasWatchdogTimeout, "WATCHDOG_USEC="+microseconds(n.WatchdogTimeout))
	say(n.ExtendTimeout != 0, ExtendTimeout(n.ExtendTimeout))
	say(n.Barrier, "BARRIER=1")
	return strings.Join(fields, "\n")
}

// FuzzNotification holds what is true of any message: its meaning said again means the
// same, and no value leaves its range.
func FuzzNotification(f *testing.F) {
	for _, seed := range []string{"", "\x00", "READY=1\nSTATUS=up\nMAINPID=7", "BARRIER=1", "BARRIER=1\nREADY=1", "STATUS=\xff\xfe", "STATUS=a\x00b",
		"RELOADING=1\nMONOTONIC_USEC=18446744073709551615", "WATCHDOG=trigger\nWATCHDOG_USEC=9999999999999999999", "WATCHDOG_USEC=0",
		"ERRNO=4095\rEXTEND_TIMEOUT_USEC=1", "STOPPING=1\n\n=\n=1\nX", "MAINPID=-9223372036854775808"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := parse(data)
		if err != nil {
			if n != (Notification{}) || !errors.Is(err, ErrZeroByte) && !errors.Is(err, ErrBarrier) {
				t.Fatalf("%q: %+v, %v", data, n, err)
			}
			return
		}
		if n.Errno < 0 || n.Errno > 4095 || n.MainPID < 0 || n.WatchdogTimeout < 0 || n.ExtendTimeout < 0 || n.Monotonic < 0 ||
			strings.ContainsAny(n.Status, "\x00\r\n") || n.Watchdog && n.WatchdogTrigger || n.PID != 0 || n.barrier != nil {
			t.Fatalf("%q: %+v", data, n)
		}
		if again, err := parse([]byte(message(n))); err != nil || again != n {
			t.Fatalf("%q means %+v; said again as %q it means %+v, %v", data, n, message(n), again, err)
		}
	})
}
