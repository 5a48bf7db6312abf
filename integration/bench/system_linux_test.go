package main

import (
	"os"
	"testing"
	"time"
)

func TestStatCPU(t *testing.T) {
	stat := "12 (a) (b 7) S 1 12 12 0 -1 4194560 900 0 0 0 150 25 3 4 20 0 9 0 100 2000 300 1844\n"
	if got, err := statCPU([]byte(stat)); err != nil || got != 1750*time.Millisecond {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "12 a S", "12 (a) S 1 2", "12 (a) S 1 12 12 0 -1 4 9 0 0 0 x 25 3"} {
		if _, err := statCPU([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestField(t *testing.T) {
	data := []byte("Name:\tmodfs\nVmHWM:\t  2048 kB\nmodel name\t: A: B\n")
	if got := kilobytes(field(data, "VmHWM")); got != 2<<20 {
		t.Errorf("VmHWM: %d", got)
	}
	if got := field(data, "model name"); got != "A: B" {
		t.Errorf("model name: %q", got)
	}
	if got := kilobytes(field(data, "VmRSS")); got != 0 {
		t.Errorf("a line that is not there: %d", got)
	}
}

func TestTouchMemory(t *testing.T) {
	for _, n := range []int64{0, 1, 1 << 20} {
		if err := touchMemory(n); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestProcessUsage(t *testing.T) {
	if _, peak, err := processUsage(os.Getpid()); err != nil || peak == 0 {
		t.Errorf("peak %d, %v", peak, err)
	}
}
