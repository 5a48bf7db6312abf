package fetch

import (
	"context"
	"errors"
	"net/http"
)

// Outcome is how a request ended: one of a few words.
type Outcome string

// The outcomes. Those of a server's answers are by its status.
const (
	OutcomeOK          Outcome = "ok"
	OutcomeNotFound    Outcome = "not_found"    // 404 and 410
	OutcomeForbidden   Outcome = "forbidden"    // 401, 403 and 407
	OutcomeRejected    Outcome = "rejected"     // any other 4xx
	OutcomeServerError Outcome = "server_error" // 5xx, and what else is no answer to a request
	OutcomeUnreachable Outcome = "unreachable"  // no connection could be made
	OutcomeTimeout     Outcome = "timeout"
	OutcomeBroken      Outcome = "broken"     // the connection broke
	OutcomeBadAnswer   Outcome = "bad_answer" // not what was asked for, or too large
	OutcomeCanceled    Outcome = "canceled"   // nobody wanted it any more
	OutcomeMismatch    Outcome = "mismatch"   // a checksum database that is not to be trusted
	OutcomeOther       Outcome = "other"      // none of its business: the store has no room, for example
)

// Outcomes are all of them.
var Outcomes = []Outcome{
	OutcomeOK, OutcomeNotFound, OutcomeForbidden, OutcomeRejected, OutcomeServerError, OutcomeUnreachable, OutcomeTimeout, OutcomeBroken,
	OutcomeBadAnswer, OutcomeCanceled, OutcomeMismatch, OutcomeOther,
}

// OutcomeOf returns the outcome of a request whose error is err. What an upstream has proved to have done wrong comes first, then
// what the request itself met.
func OutcomeOf(err error) Outcome {
	if err == nil {
		return OutcomeOK
	}
	if _, ok := errors.AsType[*finalError](err); ok {
		return OutcomeOther
	}
	for _, class := range [...]struct {
		err     error
		outcome Outcome
	}{
		{ErrMismatch, OutcomeMismatch}, {ErrSumDB, OutcomeMismatch},
		{ErrBadAnswer, OutcomeBadAnswer}, {ErrTooLarge, OutcomeBadAnswer},
		{ErrNotFound, OutcomeNotFound}, {ErrUnknown, OutcomeNotFound},
		{ErrForbidden, OutcomeForbidden},
		{ErrTimeout, OutcomeTimeout}, {context.DeadlineExceeded, OutcomeTimeout},
		{ErrUnreachable, OutcomeUnreachable}, {ErrOffline, OutcomeUnreachable},
		{errBroken, OutcomeBroken},
		{context.Canceled, OutcomeCanceled},
	} {
		if errors.Is(err, class.err) {
			return class.outcome
		}
	}
	if status, ok := errors.AsType[*statusError](err); ok {
		if status.code >= http.StatusBadRequest && status.code < http.StatusInternalServerError {
			return OutcomeRejected
		}
		return OutcomeServerError
	}
	return OutcomeOther
}
