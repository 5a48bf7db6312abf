package main

import (
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func TestValues(t *testing.T) {
	const bad = "(error)"
	tests := []struct {
		name string
		v    pflag.Value
		in   string
		want string // what the flag then prints; bad: Set refuses it
	}{
		{"size", new(sizeValue), "10GiB", "10GiB"},
		{"size", new(sizeValue), "500MB", "477MiB"},
		{"size", new(sizeValue), "1.5 gib", "1.5GiB"},
		{"size", new(sizeValue), "10G", "9.3GiB"},
		{"size", new(sizeValue), "0", "0"},
		{"size", new(sizeValue), "-1", bad},
		{"size", new(sizeValue), "10 apples", bad},
		{"size", new(sizeValue), "", bad},
		{"size", new(sizeValue), "16EiB", bad},
		{"free", new(freeValue), "5%", "5%"},
		{"free", new(freeValue), "2.5 %", "2.5%"},
		{"free", new(freeValue), "2GiB", "2.0GiB"},
		{"free", new(freeValue), "0", "0"},
		{"free", new(freeValue), "100%", bad},
		{"free", new(freeValue), "-1%", bad},
		{"free", new(freeValue), "NaN%", bad},
		{"free", new(freeValue), "%", bad},
		{"age", new(ageValue), "30d", "720h0m0s"},
		{"age", new(ageValue), "1.5d", "36h0m0s"},
		{"age", new(ageValue), "1d12h", "36h0m0s"},
		{"age", new(ageValue), "90m", "1h30m0s"},
		{"age", new(ageValue), "0", "0"},
		{"age", new(ageValue), "-1h", bad},
		{"age", new(ageValue), "-1d", bad},
		{"age", new(ageValue), "d", bad},
		{"age", new(ageValue), "999999999d", bad},
		{"age", new(ageValue), "106751d24h", bad},
		{"age", new(ageValue), "forever", bad},
	}
	for _, tt := range tests {
		got := bad
		if err := tt.v.Set(tt.in); err == nil {
			got = tt.v.String()
		}
		if got != tt.want {
			t.Errorf("%s %q: %s, want %s", tt.name, tt.in, got, tt.want)
		}
	}
}

// TestSizeDefaults makes sure that a usage text says what the default is, which it says as String does.
func TestSizeDefaults(t *testing.T) {
	for _, s := range []string{"10GiB", "64MiB"} {
		n, err := parseSize(s)
		if err != nil || formatSize(n) != s {
			t.Errorf("%s is printed as %s (%v)", s, formatSize(n), err)
		}
	}
	if d, err := parseAge("1d"); err != nil || d != 24*time.Hour {
		t.Errorf("1d is %v (%v)", d, err)
	}
}
