package fetch

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// errPanic is the class of errors that are mistakes of ours, and neither the proxy's nor the network's.
var errPanic = errors.New("panic")

// panicked notes a panic that was recovered, and returns it as an error.
func (c *Client) panicked(what string, v any) error {
	stack := debug.Stack()
	if c.cfg.OnPanic != nil {
		c.cfg.OnPanic(what, v, stack)
	} else {
		c.log.Error("panic", "in", what, "err", v, "stack", string(stack))
	}
	return fmt.Errorf("%s: %w: %v", what, errPanic, v)
}

// recovered is deferred by work in a goroutine that somebody else started, where a panic would end the process.
func (c *Client) recovered(what string, err *error) {
	if v := recover(); v != nil {
		*err = c.panicked(what, v)
	}
}
