package abi

import (
	"sync"
	"testing"

	"agflow/bridge/tables"
	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
)

// TestPartsOfLayers proves that a session takes layers in parts, 1 unless it is said, and refuses
// parts that do not fit.
func TestPartsOfLayers(t *testing.T) {
	newCaller(t)
	const layer = `{"layers":[{"name":"v","group":"head_dim","units":4,"unit_width":1`
	for parts, code := range map[string]fault.Code{
		``: "", `,"parts":0`: "", `,"parts":1`: "", `,"parts":2`: "",
		`,"parts":3`: fault.Shape, `,"parts":-1`: fault.Shape,
	} {
		id, err := StatisticsOpen(layer + parts + `}]}`)
		switch {
		case (err == nil) != (code == "") || err != nil && fault.CodeOf(err) != code:
			t.Errorf("%s: %v", parts, err)
		case err == nil:
			closeSessionOf(t, id)
		}
	}
}

func TestClosedSessionsAreRefused(t *testing.T) {
	newCaller(t)
	id := open(t)
	closeSessionOf(t, id)
	for _, stale := range []int64{id, 0, -1, 1 << 40} {
		if _, err := StatisticsClose(stale); fault.CodeOf(err) != fault.Closed {
			t.Errorf("session %d: %v", stale, err)
		}
	}
}

// TestConcurrentCalls proves (with -race) that sessions are safe: threads add to one shared and to
// their own session, and closing under way is an error, not a crash.
func TestConcurrentCalls(t *testing.T) {
	c := newCaller(t)
	shared := open(t)
	const threads, calls = 8, 50
	type pair struct{ y, g wire }
	pairs := make(chan pair, 2*threads*calls)
	for range 2 * threads * calls {
		pairs <- pair{c.matrix(2, 1, 2), c.matrix(2, 3, 4)}
	}
	var wait sync.WaitGroup
	for range threads {
		wait.Go(func() {
			own, err := StatisticsOpen(spec)
			if err != nil {
				t.Error(err)
			}
			for range calls {
				for _, id := range []int64{shared, own} {
					p := <-pairs
					_, err := StatisticsAdd(id, 0, 1, p.y.array, p.y.schema, p.g.array, p.g.schema)
					if err != nil {
						t.Error(err)
					}
				}
			}
			closeSessionOf(t, own)
		})
	}
	wait.Wait()
	c.result(tableOf(t, c, shared), func(rec arrow.Record) {
		table, err := tables.StatisticsFromRecord(rec)
		if err != nil || table.Batches[0] != threads*calls || table.SumYG[0] != 3*threads*calls {
			t.Errorf("%+v, %v", table, err)
		}
	})
	for range threads {
		out := c.empty()
		wait.Go(func() {
			if _, err := StatisticsClose(shared); err != nil && fault.CodeOf(err) != fault.Closed {
				t.Error(err)
			}
		})
		wait.Go(func() {
			if _, err := StatisticsTable(shared, out.array, out.schema); err == nil {
				free(out)
			} else if fault.CodeOf(err) != fault.Closed {
				t.Error(err)
			}
		})
	}
	wait.Wait()
}
