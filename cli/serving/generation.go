package serving

import (
	"crypto/rand"
	"encoding/hex"
	"math"
	"strconv"
	"sync"
	"sync/atomic"

	"agflow/core/routing/monitor"
)

// Watch watches the promise of a cascade in service; see package monitor.
type Watch interface {
	Audit(prior float32, escalates bool) monitor.Draw
	Observe(monitor.Image) error
	Label(id string, class int) error
	Report() any   // JSON-ready; metrics are made of a monitor.Report
	Alarm() string // what no longer holds, "" for nothing
	Close() error  // keeps the evidence for the next start
}

// OnAlarm says what an alarm of the watch does.
type OnAlarm string

const (
	LogAlarm    OnAlarm = "log"
	EscalateAll OnAlarm = "escalate" // every image goes to the heavy expert
	Unready     OnAlarm = "unready"  // readiness is refused, so that a balancer looks elsewhere
)

// generation is one loaded cascade, from one reload to the next. It ends when no caller holds it.
type generation struct {
	experts Experts
	model   Model
	watch   Watch // nil for none
	onAlarm OnAlarm
	ids     *ids

	mu      sync.Mutex
	holders int // the service itself is one
	ended   func()
}

// escalatesAll says whether an alarm sends every image to the heavy expert.
func (g *generation) escalatesAll() bool {
	return g.onAlarm == EscalateAll && g.alarm() != ""
}

func (g *generation) alarm() string {
	if g.watch == nil {
		return ""
	}
	return g.watch.Alarm()
}

func (g *generation) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holders++
}

func (g *generation) release() {
	g.mu.Lock()
	g.holders--
	last := g.holders == 0
	g.mu.Unlock()
	if last {
		g.ended()
	}
}

func (m Model) size() int { return m.Channels * m.Height * m.Width }

// fits says whether n images of this model have so many numbers.
func (m Model) fits(numbers, n int) bool {
	return n > 0 && n <= math.MaxInt/max(1, m.size()) && numbers == n*m.size()
}

// ids makes names of answers that no other process makes.
type ids struct {
	prefix string
	count  atomic.Uint64
}

func newIDs() *ids {
	random := make([]byte, 6)
	_, _ = rand.Read(random) // it never fails
	return &ids{prefix: hex.EncodeToString(random) + "-"}
}

func (i *ids) next() string { return i.prefix + strconv.FormatUint(i.count.Add(1), 36) }
