package main

import (
	"fmt"
	"io"
	"os"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"
)

// bars are progress bars on a terminal, which are gone when all is done. nil are none.
type bars struct {
	p   *mpb.Progress
	all []*mpb.Bar
}

// newBars returns bars on say. There are none unless out is a terminal, too: what reads a pipe may print to the same screen.
func newBars(out, say io.Writer) *bars {
	if !isTerminal(out) || !isTerminal(say) {
		return nil
	}
	return &bars{p: mpb.New(mpb.WithOutput(say), mpb.WithWidth(64))}
}

// add adds a bar below the others, with what is said before it and after it. Its total is set with SetTotal, as often as one likes: it
// goes when it is aborted, or with all.
func (b *bars) add(before decor.Decorator, after ...decor.Decorator) *mpb.Bar {
	bar := b.p.AddBar(0, mpb.BarRemoveOnComplete(), mpb.PrependDecorators(before), mpb.AppendDecorators(after...))
	b.all = append(b.all, bar)
	return bar
}

// line prints a line to w, which is where the bars are: above them.
func (b *bars) line(w io.Writer, text string) {
	if b != nil {
		w = b.p
	}
	fmt.Fprintln(w, text)
}

// end takes the bars away, and waits for that.
func (b *bars) end() {
	if b == nil {
		return
	}
	for _, bar := range b.all {
		bar.Abort(true)
	}
	b.p.Wait()
}

// byteProgress is a bar of bytes. A nil one is none.
type byteProgress struct {
	bars *bars
	bar  *mpb.Bar
	all  int64
}

func newByteProgress(out, say io.Writer) *byteProgress {
	p := &byteProgress{bars: newBars(out, say)}
	if p.bars == nil {
		return nil
	}
	p.bar = p.bars.add(decor.CountersKibiByte("% .1f / % .1f"), speedAndETA()...)
	return p
}

func speedAndETA() []decor.Decorator {
	return []decor.Decorator{decor.AverageSpeed(decor.SizeB1024(0), "% .1f"), decor.Name(" "), decor.AverageETA(decor.ET_STYLE_GO)}
}

// add is for modfs.VerifyOptions.
func (p *byteProgress) add(total, more int64) {
	if total > 0 {
		p.all += total
		p.bar.SetTotal(p.all, false)
	}
	p.bar.IncrInt64(more)
}

// above prints a line, above the bar.
func (p *byteProgress) above(out io.Writer, line string) {
	if p == nil {
		fmt.Fprintln(out, line)
		return
	}
	p.bars.line(out, line)
}

// end takes the bar away, and waits for it.
func (p *byteProgress) end() {
	if p != nil {
		p.bars.end()
	}
}

// isTerminal reports whether w is a terminal: it is asked for its size, as musl's isatty does. Other devices, such as /dev/null, have none.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	return err == nil
}
