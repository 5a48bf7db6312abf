package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMountOptions(t *testing.T) {
	for list, want := range map[string]string{
		"":                                 "",
		"defaults,rw":                      "--read-only=false",
		"ro,noatime,nosuid,nodev":          "--read-only",
		"ro,rw":                            "--read-only --read-only=false",
		"allow_other,max_size=20GiB":       "--allow-other=true --max-size=20GiB",
		"allow-other=false,min-free=3%":    "--allow-other=false --min-free=3%",
		"noexec,resolve=daemon":            "--noexec --resolve=daemon",
		`proxy="https://a.example,direct"`: "--proxy=https://a.example,direct",
		`sumdb="a+b c",log_level=debug`:    "--sumdb=a+b c --log-level=debug",
		"seed=/a,seed=/b":                  "--seed=/a --seed=/b",
		"_netdev,nofail,noauto,user=me,users,owner,group,comment=a b": "",
		"x-systemd.automount,x-systemd.requires=a.service,X-foo":      "",
		"proxy=":              "--proxy=",
		"store=/a=b":          "--store=/a=b",
		",,ro,,":              "--read-only",
		"env.GOAUTH=off,ro":   "--read-only",
		"default_permissions": "",
		"over,private=a.b/c":  "--over=true --private=a.b/c",
	} {
		o, err := parseMountOptions([]string{list}, false)
		if err != nil {
			t.Errorf("%s: %v", list, err)
		} else if got := strings.Join(o.flags, " "); got != want {
			t.Errorf("%s: %s, want %s", list, got, want)
		}
	}
	for list, want := range map[string]string{
		"max_siez=1":       `unknown option "max_siez"`,
		"help":             `unknown option "help"`,
		"background":       `unknown option "background"`,
		"quiet":            `unknown option "quiet"`,
		"password=hunter2": `unknown option "password"`,
		"env.=x":           `unknown option "env."`,
		"max_size":         "max_size needs a value",
		"max_size=lots":    "option max_size: want a size",
		"layout=flat":      "want modcache or gopath",
		"allow_other=soon": "option allow_other",
		`proxy="a`:         "double quote",
		"ro=1":             `unknown option "ro"`,
	} {
		_, err := parseMountOptions([]string{list}, false)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", list, err, want)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Error("a value is shown:", err)
		}
	}
	if o, err := parseMountOptions([]string{"fancy=1,background", "ro"}, true); err != nil || !slices.Equal(o.flags, []string{"--read-only"}) {
		t.Errorf("sloppy: %+v, %v", o, err)
	}
	if _, err := parseMountOptions([]string{"max_size=lots"}, true); err == nil {
		t.Error("sloppy takes a size that is none")
	}
}

// FuzzMountOptions checks that whatever is accepted is a command line that 'modfs mount' accepts.
func FuzzMountOptions(f *testing.F) {
	for _, list := range []string{"", "ro,allow_other", `proxy="a,b",max_size=1g`, "env.A=b,x-c,remount", "seed=,seed=a", `"`, "no=1", "help"} {
		f.Add(list, true)
	}
	f.Fuzz(func(t *testing.T, list string, sloppy bool) {
		o, err := parseMountOptions([]string{list}, sloppy)
		if err != nil {
			return
		}
		if err := newMount().Flags().Parse(o.flags); err != nil {
			t.Errorf("%q: %q: %v", list, o.flags, err)
		}
	})
}

func TestMountSource(t *testing.T) {
	for _, test := range []struct{ source, options, flags, err string }{
		{"modfs", "", "", ""},
		{"none", "store=/a", "--store=/a", ""},
		{"modfs:/var/lib/modfs", "", "--store=/var/lib/modfs", ""},
		{"/var/lib/modfs", "", "", "want modfs:DIR"},
		{"/home/me/modfs", "store=/a", "--store=/a", ""}, // what mount(8) made of modfs
		{"modfs:/a", "store=/a/", "--store=/a/ --store=/a", ""},
		{"modfs:/a", "store=/b", "", "/a according to the source, and /b"},
		{"modfs:", "", "", "want modfs:DIR"},
		{"modfs:a/b", "", "", "want modfs:DIR"},
		{"./a", "", "", "want modfs:DIR"},
	} {
		o, err := parseMountOptions([]string{test.options}, false)
		if err != nil {
			t.Fatal(err)
		}
		err = o.source(test.source)
		switch {
		case test.err == "" && (err != nil || strings.Join(o.flags, " ") != test.flags):
			t.Errorf("%s with %s: %q, %v, want %q", test.source, test.options, o.flags, err, test.flags)
		case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
			t.Errorf("%s with %s: %v, want %s", test.source, test.options, err, test.err)
		}
	}
}

// TestMountEnvironment checks what a daemon has that is started at boot, where there is nothing.
func TestMountEnvironment(t *testing.T) {
	for _, name := range []string{"HOME", "GOPROXY", "GOSUMDB"} {
		t.Setenv(name, "")
	}
	empty := t.TempDir()
	t.Setenv("PATH", empty)
	if _, err := os.Stat("/usr/local/go/bin/go"); err == nil {
		if err := new(mountOptions).environment(); err != nil || !strings.HasSuffix(os.Getenv("PATH"), ":/usr/local/go/bin") {
			t.Errorf("%v, PATH is %s", err, os.Getenv("PATH"))
		}
	} else {
		err := (&mountOptions{flags: []string{"--proxy=off"}}).environment()
		if err == nil || !strings.Contains(err.Error(), "give the option sumdb=") {
			t.Error("without a go command:", err)
		}
		if err := (&mountOptions{flags: []string{"--proxy=off", "--sumdb=off"}}).environment(); err != nil {
			t.Error(err)
		}
	}
	if home := os.Getenv("HOME"); !filepath.IsAbs(home) {
		t.Errorf("HOME is %q", home)
	}
	if err := (&mountOptions{env: []string{"GOAUTH=netrc=x"}}).environment(); os.Getenv("GOAUTH") != "netrc=x" && err == nil {
		t.Errorf("GOAUTH is %q", os.Getenv("GOAUTH"))
	}
	os.Unsetenv("GOAUTH")
}

func TestAsHelper(t *testing.T) {
	for line, want := range map[string]string{
		"/sbin/mount.modfs a b":  "a b",
		"mount.modfs-1.2 a b":    "a b",
		"modfs --fstab a b":      "a b",
		"modfs mount --fstab":    "-",
		"/opt/mount.modfs/modfs": "-",
		"modfs":                  "-",
	} {
		got, ok := asHelper(strings.Fields(line))
		if (want != "-") != ok || ok && strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v", line, got, ok)
		}
	}
	got := withoutNamespace(strings.Fields("a b -N 1 -o ro -N2 --namespace=/x --namespace y -v"))
	if strings.Join(got, " ") != "a b -o ro -v" {
		t.Errorf("%q", got)
	}
}

// TestHelperStatus checks the statuses of mount(8), where nothing comes to be mounted.
func TestHelperStatus(t *testing.T) {
	for line, want := range map[string]struct {
		status int
		text   string
	}{
		"modfs":                          {helperUsage, "accepts 2 arg(s)"},
		"modfs /m -o nonsense":           {helperUsage, `unknown option "nonsense"`},
		"modfs /m -x":                    {helperUsage, "unknown shorthand flag"},
		"modfs: /m":                      {helperUsage, "want modfs:DIR"},
		"modfs /m -o remount,ro":         {helperFailed, "unmount it, and mount it again"},
		"modfs /m -f -s -n -o x=y,ro":    {0, ""},
		"modfs:/s /m -fv -t modfs -o ro": {0, "modfs mount --background --quiet --read-only --store=/s -- /m"},
	} {
		var out bytes.Buffer
		if got := runHelper(strings.Fields(line), &out, &out); got != want.status || !strings.Contains(out.String(), want.text) {
			t.Errorf("mount.modfs %s: status %d: %s, want %d: %s", line, got, &out, want.status, want.text)
		}
	}
}
