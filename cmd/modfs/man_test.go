package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write the man pages instead of comparing them")

// manDir has the man pages, one for each command.
const manDir = "../../docs/man"

// TestManPages compares the man pages with what the commands say of themselves.
func TestManPages(t *testing.T) {
	pages := manPages()
	if *update {
		if err := os.RemoveAll(manDir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(manDir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, page := range pages {
			if err := os.WriteFile(filepath.Join(manDir, name), page, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	const remedy = "run 'go generate ./cmd/modfs', which writes them anew"
	for name, page := range pages {
		if have, err := os.ReadFile(filepath.Join(manDir, name)); err != nil {
			t.Errorf("%v: %s", err, remedy)
		} else if !bytes.Equal(have, page) {
			t.Errorf("%s is not what the command says of itself: %s", filepath.Join(manDir, name), remedy)
		}
	}
	names, err := filepath.Glob(filepath.Join(manDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if pages[filepath.Base(name)] == nil {
			t.Errorf("%s is about no command: %s", name, remedy)
		}
	}
}

// TestManEscapes checks that no text of a command is taken for a request or an escape of man(7).
func TestManEscapes(t *testing.T) {
	cmd := &cobra.Command{
		Use: "x [-o FILE] DIR", Short: "Short", DisableFlagsInUseLine: true, Run: func(*cobra.Command, []string) {},
		Long: "One \\ and - that\n.goes on,\n'and on'.\n\n  .indented  text -a\n  more\n\nLast.",
	}
	cmd.Flags().IntP("number", "n", 3, "count `things`")
	cmd.Flags().Bool("is", false, "say so")
	page := string(manPage(cmd))
	for _, want := range []string{
		"One \\e and \\- that\n\\&.goes on,\n\\&'and on'.\n.PP\n.nf\n.RS\n\\&.indented  text \\-a\nmore\n.RE\n.fi\n.PP\nLast.\n",
		".TP\n\\fB\\-n\\fR, \\fB\\-\\-number\\fR \\fIthings\\fR\ncount things (default 3)\n",
		".TP\n\\fB\\-\\-is\\fR\nsay so\n",
		".SH SYNOPSIS\n.B x [\\-o FILE] DIR\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
}

// manPages returns the pages of all commands by the names of their files.
func manPages() map[string][]byte {
	root, _ := newRoot()
	root.InitDefaultHelpCmd()
	pages := make(map[string][]byte)
	var add func(cmd *cobra.Command)
	add = func(cmd *cobra.Command) {
		pages[manName(cmd)+"."+manSection(cmd)] = manPage(cmd)
		for _, sub := range cmd.Commands() {
			if sub.Name() != "help" {
				add(sub)
			}
		}
	}
	add(root)
	add(newHelper(new(helperFlags), nil))
	return pages
}

func manName(cmd *cobra.Command) string {
	if name := cmd.Annotations[manNameKey]; name != "" {
		return name
	}
	return strings.ReplaceAll(cmd.CommandPath(), " ", "-")
}

func manSection(cmd *cobra.Command) string {
	if strings.HasPrefix(manName(cmd), "mount.") {
		return "8" // mount(8) calls it
	}
	return "1"
}

// manPage writes the page of a command, in the language of man(7). It has no date, so that it changes only when the command does.
func manPage(cmd *cobra.Command) []byte {
	var b bytes.Buffer
	name := manName(cmd)
	fmt.Fprintf(&b, ".\\\" Written by 'go generate ./cmd/modfs'.\n.TH %s %s \"\" modfs\n", manText(strings.ToUpper(name)), manSection(cmd))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", manText(name), manText(cmd.Short))
	usage := cmd.UseLine()
	if cmd.Annotations[manNameKey] != "" {
		usage = cmd.Use
	}
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", manText(usage))
	b.WriteString(".SH DESCRIPTION\n")
	manParagraphs(&b, cmd.Long)
	if cmd.HasAvailableSubCommands() {
		b.WriteString(".SH COMMANDS\n")
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() && sub.Name() != "help" {
				fmt.Fprintf(&b, ".TP\n\\fB%s\\fR\n%s: see \\fB%s\\fR(1)\n", manText(sub.Name()), manText(sub.Short), manText(manName(sub)))
			}
		}
	}
	cmd.InitDefaultHelpFlag()
	if cmd.HasAvailableFlags() {
		b.WriteString(".SH OPTIONS\n")
		cmd.Flags().VisitAll(func(f *pflag.Flag) { manFlag(&b, f) })
	}
	exit := cmd.Annotations[exitKey]
	if exit == "" {
		exit = "0; 1 if something went wrong; 2 if the command line is wrong."
	}
	b.WriteString(".SH EXIT STATUS\n")
	manParagraphs(&b, exit)
	switch {
	case cmd.HasParent():
		fmt.Fprintf(&b, ".SH SEE ALSO\n\\fB%s\\fR(1)\n", manText(manName(cmd.Parent())))
	case cmd.HasSubCommands():
		fmt.Fprintf(&b, ".SH SEE ALSO\n\\fB%s\\fR(8)\n", manText(helperName))
	default:
		b.WriteString(".SH SEE ALSO\n\\fBmodfs\\-mount\\fR(1), \\fBmodfs\\-doctor\\fR(1), \\fBfstab\\fR(5), \\fBmount\\fR(8)\n")
	}
	return b.Bytes()
}

func manFlag(b *bytes.Buffer, f *pflag.Flag) {
	if f.Hidden || f.Deprecated != "" {
		return
	}
	b.WriteString(".TP\n")
	if f.Shorthand != "" {
		fmt.Fprintf(b, "\\fB\\-%s\\fR, ", f.Shorthand)
	}
	fmt.Fprintf(b, "\\fB%s\\fR", manText("--"+f.Name))
	kind, usage := pflag.UnquoteUsage(f)
	if kind != "" {
		fmt.Fprintf(b, " \\fI%s\\fR", manText(kind))
	}
	fmt.Fprintf(b, "\n%s", manText(usage))
	if !slices.Contains([]string{"", "0", "false", "[]", "0s"}, f.DefValue) {
		fmt.Fprintf(b, " (default %s)", manText(f.DefValue))
	}
	b.WriteByte('\n')
}

// manParagraphs writes paragraphs, which empty lines separate. One that is indented stays as it is.
func manParagraphs(b *bytes.Buffer, text string) {
	for i, p := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		lines := strings.Split(p, "\n")
		indented := strings.HasPrefix(p, "  ")
		if indented {
			b.WriteString(".nf\n.RS\n")
		}
		for _, line := range lines {
			b.WriteString(manText(strings.TrimPrefix(line, "  ")) + "\n")
		}
		if indented {
			b.WriteString(".RE\n.fi\n")
		}
	}
}

// manText escapes a line of text.
func manText(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
