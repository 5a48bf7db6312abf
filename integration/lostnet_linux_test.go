package integration

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"modfs/fetch/proxytest"
)

// blackhole is an address at which connections are neither made nor refused: its queue of them is full.
type blackhole struct {
	t    *testing.T
	fd   int
	held []int
	addr *net.TCPAddr
}

func newBlackhole(t *testing.T) *blackhole {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	if err == nil {
		err = unix.Listen(fd, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	b := &blackhole{t: t, fd: fd, addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*unix.SockaddrInet4).Port}}
	t.Cleanup(b.close)
	for range 8 { // more than fit in
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		b.held = append(b.held, c)
		unix.Connect(c, sa) // in progress, for ever
	}
	time.Sleep(100 * time.Millisecond) // the first ones are made
	if c, err := net.DialTimeout("tcp", b.addr.String(), 500*time.Millisecond); err == nil {
		c.Close()
		t.Skip("this kernel makes connections beyond the backlog")
	}
	return b
}

func (b *blackhole) close() {
	for _, fd := range append(b.held, b.fd) {
		unix.Close(fd)
	}
	b.held, b.fd = nil, -1
}

// relay has what connects to addr connected to another address.
func relay(t *testing.T, addr, to string) {
	t.Helper()
	var l net.Listener
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		var err error
		if l, err = net.Listen("tcp", addr); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			go func() { io.Copy(out, in); out.Close() }()
			go func() { io.Copy(in, out); in.Close() }()
		}
	}()
}

// A network that swallows everything costs one deadline, however many want something; what the store has works all along; and
// when the network is back, so are the modules, without anybody doing anything.
func TestLostNetwork(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for a connection to time out")
	}
	var mods []proxytest.Module
	for i := range 40 {
		mods = append(mods, proxytest.Module{Path: fmt.Sprintf("example.com/m%d", i), Version: "v1.0.0", Files: map[string]string{"x.go": "package x\n"}})
	}
	proxy := proxytest.New(t, append(mods, proxytest.Modules()...)...)
	m := mount(t, proxy, "--read-only", "--prefetch", "off")
	if _, err := m.read("example.com/a@v1.0.0/a.go"); err != nil {
		t.Fatal(err)
	}
	if out, err := m.modfs("unmount", m.dir); err != nil {
		t.Fatal(err, out)
	}
	hole := newBlackhole(t)
	m.env = append(m.env, "GOPROXY=http://"+hole.addr.String(), "GOSUMDB="+strings.Fields(proxy.SumDB())[0])
	m.start()
	const deadline = 8 * time.Second // of fetch, for a connection
	round := func() time.Duration {
		start := time.Now()
		var wg sync.WaitGroup
		for i := range mods {
			wg.Go(func() {
				_, err := os.ReadFile(m.path(fmt.Sprintf("example.com/m%d@v1.0.0/x.go", i)))
				if err == nil {
					t.Errorf("m%d: no error", i)
				}
			})
		}
		wg.Go(func() {
			if _, err := m.read("example.com/a@v1.0.0/sub/sub.go"); err != nil {
				t.Errorf("what the store has: %v", err)
			}
		})
		wg.Wait()
		return time.Since(start)
	}
	if d := round(); d > 4*deadline {
		t.Errorf("40 readers waited %v, want about one deadline of %v", d, deadline)
	}
	if d := round(); d > deadline {
		t.Errorf("40 more readers waited %v, want an answer at once", d)
	}
	_, err := m.read("example.com/b@v1.0.0/b.go")
	m.wantErrno(err, syscall.EHOSTUNREACH, "unreachable since ", "next try in ")
	if u := m.status().Upstreams; len(u) == 0 || u[0].DownSince.IsZero() {
		t.Errorf("status %+v does not say that the proxy is down", u)
	}
	addr := hole.addr.String()
	hole.close()
	relay(t, addr, strings.TrimPrefix(proxy.URL(), "http://"))
	m.eventually("the network is back", func() bool { _, err := m.read("example.com/b@v1.0.0/b.go"); return err == nil })
	if u := m.status().Upstreams; len(u) == 0 || !u[0].DownSince.IsZero() {
		t.Errorf("status %+v says that the proxy is down", u)
	}
}
