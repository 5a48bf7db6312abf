package main

import (
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// notifier tells systemd, or what else started this process with NOTIFY_SOCKET, how it is doing
// (https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html). A nil one tells nobody.
type notifier struct {
	socket   string
	watchdog time.Duration // how often it wants to hear WATCHDOG=1 at least; 0: it does not
}

// takeNotifier takes the settings out of the environment: what this process starts must not speak for it.
func takeNotifier() *notifier {
	n := &notifier{socket: os.Getenv("NOTIFY_SOCKET")}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 63)
	pid := os.Getenv("WATCHDOG_PID")
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		os.Unsetenv(name)
	}
	if n.socket == "" {
		return nil
	}
	if err == nil && usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	return n
}

// tell sends assignments such as READY=1. Nobody waits for that, and it is no error if nobody listens.
func (n *notifier) tell(assignments ...string) {
	if n == nil {
		return
	}
	// Each time anew: no descriptor stays open, and the listener may have been replaced. A leading @ stands for the NUL of an
	// abstract address, for package net as well.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetWriteDeadline(time.Now().Add(time.Second)) // a full queue must not stop us
	conn.Write([]byte(strings.Join(assignments, "\n")))
}
