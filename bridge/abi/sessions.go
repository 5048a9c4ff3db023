package abi

import (
	"sync"

	"agflow/core/fault"
	"agflow/core/statistics"
)

// session is one running accumulation. Its mutex lets one call at a time touch the sums.
type session struct {
	mu       sync.Mutex
	sums     *statistics.Accumulator // nil once closed
	metadata map[string]string
}

// sessions gives out numbers instead of pointers: a stale number is refused, a stale pointer would
// crash.
var sessions = struct {
	mu   sync.Mutex
	last int64
	open map[int64]*session
}{open: map[int64]*session{}}

func openSession(s *session) int64 {
	sessions.mu.Lock()
	defer sessions.mu.Unlock()
	sessions.last++
	sessions.open[sessions.last] = s
	return sessions.last
}

// withSession runs one step of a session while no other call can.
func withSession(id int64, step func(*session) error) error {
	sessions.mu.Lock()
	s, last := sessions.open[id], sessions.last
	sessions.mu.Unlock()
	if s == nil {
		return closedSession(id, last)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sums == nil { // closed while this call waited
		return closedSession(id, last)
	}
	return step(s)
}

func closeSession(id int64) error {
	err := withSession(id, func(s *session) error {
		s.sums = nil
		return nil
	})
	if err != nil {
		return err
	}
	sessions.mu.Lock()
	defer sessions.mu.Unlock()
	delete(sessions.open, id)
	return nil
}

func closedSession(id, last int64) error {
	if id >= 1 && id <= last {
		return fault.New(fault.Closed, "statistics session %d is closed; open a new one", id)
	}
	return fault.New(fault.Closed, "there is no statistics session %d; open one first", id)
}

// Sessions returns the number of open sessions.
func Sessions() (count int64, err error) {
	defer fault.Recover(&err)
	sessions.mu.Lock()
	defer sessions.mu.Unlock()
	return int64(len(sessions.open)), nil
}
