package fetch_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"modfs/fetch"
)

// goEnv makes the go command see no settings but those in the lines of a file.
func goEnv(t *testing.T, lines ...string) {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command")
	}
	for _, name := range []string{"GOPROXY", "GONOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE", "GOINSECURE", "GOAUTH"} {
		t.Setenv(name, "")
	}
	name := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOENV", name)
}

func TestSettings(t *testing.T) {
	type flags map[string]string
	for _, test := range []struct {
		name  string
		file  []string
		env   flags
		flags flags
		want  fetch.Config
	}{
		{"file", []string{"GOPROXY=https://file.example", "GOPRIVATE=file.example/x", "GOSUMDB=off"}, nil, nil,
			fetch.Config{Proxy: "https://file.example", SumDB: "off", Auth: "netrc", Private: "file.example/x", NoProxy: "file.example/x", NoSumDB: "file.example/x"}},
		{"environment", []string{"GOPROXY=https://file.example", "GOSUMDB=off"}, flags{"GOPROXY": "https://env.example", "GONOPROXY": "x.example"}, nil,
			fetch.Config{Proxy: "https://env.example", SumDB: "off", Auth: "netrc", NoProxy: "x.example"}},
		{"flags", []string{"GOSUMDB=off"}, flags{"GOPROXY": "https://env.example"}, flags{"GOPROXY": "https://flag.example", "GOPRIVATE": "f.example"},
			fetch.Config{Proxy: "https://flag.example", SumDB: "off", Auth: "netrc", Private: "f.example", NoProxy: "f.example", NoSumDB: "f.example"}},
		{"empty flags", []string{"GOPROXY=https://file.example", "GOSUMDB=sum.example", "GOPRIVATE=x.example"}, nil,
			flags{"GOPROXY": "", "GOPRIVATE": "", "GOSUMDB": " "},
			fetch.Config{Proxy: "off", SumDB: "off", Auth: "netrc", Private: "none", NoProxy: "none", NoSumDB: "none"}},
		{"credentials", []string{"GOPROXY=off", "GOSUMDB=off", "GOAUTH=git /file"}, flags{"GOAUTH": "netrc; /bin/token --for x"}, nil,
			fetch.Config{Proxy: "off", SumDB: "off", Auth: "netrc; /bin/token --for x"}},
		{"credentials in the file", []string{"GOPROXY=off", "GOSUMDB=off", "GOAUTH=git /file"}, nil, nil,
			fetch.Config{Proxy: "off", SumDB: "off", Auth: "git /file"}},
		{"flags narrower than GOPRIVATE", []string{"GOPROXY=off", "GOSUMDB=off", "GOPRIVATE=x.example"}, nil, flags{"GONOPROXY": ""},
			fetch.Config{Proxy: "off", SumDB: "off", Auth: "netrc", Private: "x.example", NoProxy: "none", NoSumDB: "x.example"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			goEnv(t, test.file...)
			for k, v := range test.env {
				t.Setenv(k, v)
			}
			got, err := fetch.Settings(t.Context(), test.flags)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("Settings = %+v\nwant %+v", got, test.want)
			}
		})
	}
}

// The go command's defaults are good settings: New knows the key of the database that they name.
func TestDefaultSettings(t *testing.T) {
	goEnv(t)
	cfg, err := fetch.Settings(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Proxy == "" || cfg.SumDB == "" || strings.Contains(cfg.SumDB, "+") {
		t.Fatalf("Settings = %+v; want a proxy, and a database by its name", cfg)
	}
	newClient(t, cfg)
	// With another name it is no key at all.
	cfg.SumDB += ".example"
	if _, err := fetch.New(cfg); err == nil || !strings.Contains(err.Error(), "NAME+HASH+KEY") {
		t.Errorf("New with a database of another name: %v", err)
	}
}

// A go.mod that asks for another toolchain has no say.
func TestSettingsDirectory(t *testing.T) {
	goEnv(t, "GOPROXY=https://file.example", "GOSUMDB=off")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module x\n\ngo 1.999.0\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	if cfg, err := fetch.Settings(t.Context(), nil); err != nil || cfg.Proxy != "https://file.example" {
		t.Errorf("Settings = %+v, %v", cfg, err)
	}
}

func TestSettingsWithoutGo(t *testing.T) {
	goEnv(t)
	t.Setenv("PATH", t.TempDir())
	_, err := fetch.Settings(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "set GOPROXY and GOSUMDB") {
		t.Errorf("nothing is set: %v", err)
	}
	t.Setenv("GOPROXY", "https://env.example")
	if _, err := fetch.Settings(t.Context(), nil); err == nil || !strings.HasSuffix(err.Error(), "set GOSUMDB") {
		t.Errorf("no GOSUMDB: %v", err)
	}
	cfg, err := fetch.Settings(t.Context(), map[string]string{"GOSUMDB": "off", "GOPRIVATE": "x.example"})
	if err != nil || cfg.Proxy != "https://env.example" || cfg.NoProxy != "x.example" || cfg.NoSumDB != "x.example" {
		t.Errorf("Settings = %+v, %v", cfg, err)
	}
}

// A go command that fails is an error: what it would have said may be what keeps names private.
func TestSettingsBrokenGo(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\necho 'go: out of order' >&2\nexit 2\n"
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte(script), 0o777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	_, err := fetch.Settings(t.Context(), map[string]string{"GOPROXY": "off", "GOSUMDB": "off"})
	if err == nil || !strings.Contains(err.Error(), "out of order") {
		t.Errorf("Settings: %v", err)
	}
}

func TestBadSettings(t *testing.T) {
	for _, sumdb := range []string{
		"a b c", "sum.example", "sum.example.google.cn", "sum.example+0+x", "off http://x.example", "sum.example+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
	} {
		if _, err := fetch.New(fetch.Config{SumDB: sumdb}); err == nil || !strings.Contains(err.Error(), "GOSUMDB") {
			t.Errorf("GOSUMDB=%s: %v", sumdb, err)
		}
	}
	for _, proxy := range []string{
		",", " | ", "ftp://x.example", "https://", "file://host/x", "file:x", "file://", ":", "https://a.example:b/", "word",
		"https://a.example/?q", "http://user:secret@a.example", "https://user:secret@a .example", "x,https:///p",
	} {
		_, err := fetch.New(fetch.Config{Proxy: proxy})
		if err == nil || !strings.Contains(err.Error(), "GOPROXY") || strings.Contains(err.Error(), "secret") {
			t.Errorf("GOPROXY=%s: %v", proxy, err)
		}
	}
	for _, proxy := range []string{"", "off", "direct", "a.example", "a.example/path,direct", "https://user:secret@a.example|off", "file:///dir"} {
		c, err := fetch.New(fetch.Config{Proxy: proxy})
		if err != nil {
			t.Errorf("GOPROXY=%s: %v", proxy, err)
			continue
		}
		for _, u := range c.Upstreams() {
			if strings.Contains(u.URL, "secret") {
				t.Errorf("GOPROXY=%s: Upstreams shows %s", proxy, u.URL)
			}
		}
		c.Close()
	}
}
