package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// hardware returns what the kernel says of the processor and the memory.
func hardware() (cpu string, memory int64) {
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		cpu = field(data, "model name")
	}
	if data, err := os.ReadFile("/proc/meminfo"); err == nil {
		memory = kilobytes(field(data, "MemTotal"))
	}
	return cpu, memory
}

// processUsage returns the processor time that a process has used, and the most memory that it had resident, in bytes.
func processUsage(pid int) (cpu time.Duration, peak int64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	if cpu, err = statCPU(data); err != nil {
		return 0, 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	if data, err = os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err != nil {
		return 0, 0, err
	}
	return cpu, kilobytes(field(data, "VmHWM")), nil
}

// tick is the unit of times in /proc, a hundredth of a second on all systems that Go runs on (proc_pid_stat(5), USER_HZ).
const tick = time.Second / 100

// statCPU returns utime and stime, the 14th and the 15th field of /proc/PID/stat. The second one is the command's name in
// parentheses, which may have anything in it.
func statCPU(data []byte) (time.Duration, error) {
	_, rest, ok := bytes.Cut(data[max(0, bytes.LastIndexByte(data, ')')):], []byte(") "))
	fields := strings.Fields(string(rest))
	if !ok || len(fields) < 13 {
		return 0, fmt.Errorf("unexpected %q", data)
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// field returns the value of the first line "NAME: VALUE" in a file of /proc, "" if there is none.
func field(data []byte, name string) string {
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// kilobytes returns the bytes of a value like "123 kB", 0 if it is none.
func kilobytes(value string) int64 {
	digits, _ := strings.CutSuffix(value, " kB")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}

// touchMemory takes limit bytes of memory, but no more than half of what is available, and gives them back.
func touchMemory(limit int64) error {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return err
	}
	n := int(min(limit, kilobytes(field(data, "MemAvailable"))/2))
	if n == 0 {
		return nil
	}
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	return os.NewSyscallError("munmap", unix.Munmap(mem))
}

func syncDisks() { syscall.Sync() }

// dropCaches makes the kernel forget all files, directories included, that are not waiting to be written.
func dropCaches() error {
	if os.Geteuid() != 0 {
		return &errNotMeasured{"only root can empty the kernel's caches"}
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return &errNotMeasured{"the kernel's caches cannot be emptied: " + err.Error()}
	}
	return nil
}
