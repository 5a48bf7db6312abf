package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// sizeValue is a flag that holds a size in bytes, as people write sizes: 500MB, 10GiB, 1.5g. 0 is no limit.
type sizeValue int64

func (v *sizeValue) Set(s string) error {
	n, err := parseSize(s)
	if err == nil {
		*v = sizeValue(n)
	}
	return err
}

func (v *sizeValue) String() string { return formatSize(int64(*v)) }
func (v *sizeValue) Type() string   { return "size" }

func parseSize(s string) (int64, error) {
	n, err := humanize.ParseBytes(strings.TrimSpace(s))
	if err != nil || n > math.MaxInt64 {
		return 0, fmt.Errorf("want a size such as 500MB or 10GiB")
	}
	return int64(n), nil
}

// formatSize writes n the way parseSize reads it, without the space that humanize puts in.
func formatSize(n int64) string {
	if n == 0 {
		return "0"
	}
	return strings.ReplaceAll(humanize.IBytes(uint64(n)), " ", "")
}

// freeValue is a flag that holds a size, or a percentage of the partition.
type freeValue struct {
	bytes   int64
	percent float64
}

func (v *freeValue) Set(s string) error {
	p, isPercent := strings.CutSuffix(strings.TrimSpace(s), "%")
	if !isPercent {
		n, err := parseSize(s)
		if err != nil {
			return fmt.Errorf("want a size such as 2GiB or a percentage such as 5%%")
		}
		*v = freeValue{bytes: n}
		return nil
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(p), 64)
	if err != nil || !(f >= 0 && f < 100) { // written so that NaN is refused
		return fmt.Errorf("want a percentage from 0%% to less than 100%%")
	}
	*v = freeValue{percent: f}
	return nil
}

func (v *freeValue) String() string {
	if v.percent != 0 {
		return strconv.FormatFloat(v.percent, 'g', -1, 64) + "%"
	}
	return formatSize(v.bytes)
}

func (v *freeValue) Type() string { return "size" }

// ageValue is a flag that holds a duration: Go's syntax, and days before it (30d, 1d12h). 0 is no limit.
type ageValue time.Duration

func (v *ageValue) Set(s string) error {
	d, err := parseAge(strings.TrimSpace(s))
	if err == nil {
		*v = ageValue(d)
	}
	return err
}

func (v *ageValue) String() string {
	if *v == 0 {
		return "0"
	}
	return time.Duration(*v).String()
}

func (v *ageValue) Type() string { return "duration" }

func parseAge(s string) (time.Duration, error) {
	bad := fmt.Errorf("want a duration such as 12h or 30d")
	const day = 24 * time.Hour
	var sum time.Duration
	if days, rest, ok := strings.Cut(s, "d"); ok {
		f, err := strconv.ParseFloat(days, 64)
		if err != nil || !(f >= 0 && f < float64(math.MaxInt64/day)) {
			return 0, bad
		}
		sum = time.Duration(f * float64(day))
		if rest == "" {
			return sum, nil
		}
		s = rest
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || sum+d < 0 { // the last: overflow
		return 0, bad
	}
	return sum + d, nil
}

// choiceValue is a flag that holds one of a few words.
type choiceValue struct {
	word    string
	kind    string // what the words are, for the usage text
	choices []string
}

func (v *choiceValue) Set(s string) error {
	if !slices.Contains(v.choices, s) {
		return fmt.Errorf("want %s", orList(v.choices))
	}
	v.word = s
	return nil
}

func (v *choiceValue) String() string { return v.word }
func (v *choiceValue) Type() string   { return v.kind }

// usage returns the flag's description: text and the choices.
func (v *choiceValue) usage(text string) string { return text + ": " + orList(v.choices) }

func orList(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
