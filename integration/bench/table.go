package main

import (
	"strings"
	"unicode/utf8"
)

// A table has a head and rows of as many cells. All but the first column are aligned to the right.
type table struct {
	head []string
	rows [][]string
}

// String returns the table for a terminal, or in Markdown, which can be read as it is, too.
func (t table) String(markdown bool) string {
	width := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	line := func(row []string, fill string) {
		var cells []string
		for i, cell := range row {
			pad := strings.Repeat(fill, width[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				cells = append(cells, cell+pad)
			} else {
				cells = append(cells, pad+cell)
			}
		}
		if markdown {
			b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
		} else {
			b.WriteString(strings.TrimRight(strings.Join(cells, "  "), " ") + "\n")
		}
	}
	line(t.head, " ")
	if markdown {
		rule := make([]string, len(t.head))
		for i := range rule {
			rule[i] = "-:"
		}
		rule[0] = "--"
		line(rule, "-")
	}
	for _, row := range t.rows {
		line(row, " ")
	}
	return b.String()
}
