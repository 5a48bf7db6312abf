package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// hidesMounts are the settings that give a service a mount namespace of its own, from which no mount reaches the host
// (systemd.exec(5), PrivateMounts=; exec_needs_mount_namespace in systemd's sources).
var hidesMounts = []string{
	"ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateMounts", "PrivateIPC", "PrivateUsers", "DynamicUser",
	"MountFlags", "MountAPIVFS", "ReadOnlyPaths", "ReadWritePaths", "InaccessiblePaths", "ExecPaths", "NoExecPaths",
	"ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "ProtectProc", "ProcSubset",
	"RootDirectory", "RootImage", "BindPaths", "BindReadOnlyPaths", "TemporaryFileSystem", "MountImages", "ExtensionImages",
	"ExtensionDirectories", "LogNamespace", "NetworkNamespacePath",
}

// setting is a line of a unit that is not a comment.
var setting = regexp.MustCompile(`(?m)^(\w+)=(.*)$`)

// TestUnits has systemd look at the units, and looks for what it does not complain of.
func TestUnits(t *testing.T) {
	for name, exe := range map[string]string{"user": "%h/go/bin/modfs", "system": "/usr/local/bin/modfs"} {
		t.Run(name, func(t *testing.T) {
			unit, err := os.ReadFile("../deploy/systemd/" + name + "/modfs.service")
			if err != nil {
				t.Fatal(err)
			}
			text := strings.ReplaceAll(string(unit), exe, filepath.Join(bin, "modfs"))
			starts := false
			for _, line := range setting.FindAllStringSubmatch(text, -1) {
				if slices.Contains(hidesMounts, line[1]) {
					t.Errorf("%s= gives the service a mount namespace: nobody else would see the mount", line[1])
				}
				if line[1] == "ExecStart" {
					starts = true
					accepted(t, strings.ReplaceAll(line[2], "${MODFS_MAX_SIZE}", "1GiB"))
				}
			}
			if !starts {
				t.Error("the unit starts nothing")
			}
			analyze(t, name, text)
		})
	}
}

// accepted checks that modfs knows all flags of a command line.
func accepted(t *testing.T, line string) {
	t.Helper()
	args := append(strings.Fields(line), "--help")
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", line, err, out)
	}
}

// analyze has systemd-analyze verify a unit, and, if it is the system's, rate it.
func analyze(t *testing.T, name, text string) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("no systemd-analyze: install systemd")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "modfs.service")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	checks := [][]string{{"verify", "--man=no", "--" + name, file}}
	if name == "system" {
		// The docs say what it is; 40 stands for 4.0.
		checks = append(checks, []string{"security", "--offline=yes", "--threshold=40", "--no-pager", file})
	}
	for _, args := range checks {
		cmd := exec.Command("systemd-analyze", args...)
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
		out, err := cmd.CombinedOutput()
		// It only warns of what it does not know, and of what it ignores.
		if err != nil || args[0] == "verify" && strings.Contains(string(out), "modfs.service:") {
			t.Errorf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
