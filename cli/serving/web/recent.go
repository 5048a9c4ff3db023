package web

import (
	"slices"
	"sync"
	"time"

	"agflow/cli/serving"
	"agflow/core/routing"
)

// maxRecent is how many of the latest answers the live numbers are of.
const maxRecent = 4096

// totals are sums since the start.
type totals struct {
	Images    int64   `json:"images"`
	Escalated int64   `json:"escalated"`
	Audited   int64   `json:"audited"` // sent to the heavy expert for an audit alone
	Cost      float64 `json:"cost"`    // the sum over images, in passes of the heavy expert
	light     time.Duration
	heavy     time.Duration
}

// heavyImages is how many images the heavy expert computed.
func (t totals) heavyImages() int64 { return t.Escalated + t.Audited }

// costByClock is the measured time of both experts over that of the heavy expert for every image;
// false before it computed any.
func (t totals) costByClock() (float64, bool) {
	if t.heavyImages() == 0 || t.heavy == 0 {
		return 0, false
	}
	heavy := t.heavy.Seconds() / float64(t.heavyImages())
	return (t.light + t.heavy).Seconds() / float64(t.Images) / heavy, true
}

// answered is one image that was answered.
type answered struct {
	expert string
	cost   float64
	waited time.Duration
	at     time.Time
}

// tally keeps totals and the latest answers.
type tally struct {
	lock   sync.Mutex
	totals totals
	triton tritonStatistics
	latest []answered // a ring once it is full
	next   int
}

func (t *tally) batch(p serving.Pass, at time.Time) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.totals.Images += int64(p.Images)
	t.totals.Escalated += int64(p.Escalated)
	t.totals.Audited += int64(p.Audited)
	t.totals.light += p.Light
	t.totals.heavy += p.Heavy
	t.triton.batch(p, at)
}

// request counts a request for answers.
func (t *tally) request(answered bool, took time.Duration) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.triton.request(answered, took)
}

func (t *tally) answer(a answered) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.totals.Cost += a.cost
	if len(t.latest) < maxRecent {
		t.latest = append(t.latest, a)
		return
	}
	t.latest[t.next] = a
	t.next = (t.next + 1) % maxRecent
}

// read returns the totals and a copy of the latest answers, in no order.
func (t *tally) read() (totals, []answered) {
	t.lock.Lock()
	defer t.lock.Unlock()
	return t.totals, slices.Clone(t.latest)
}

// live are the numbers of the latest answers.
type live struct {
	Images          int     `json:"images"`
	Seconds         float64 `json:"seconds"` // since the first of them
	ImagesPerSecond float64 `json:"images_per_second"`
	// the share that the light expert did not answer, with its 95 % interval
	Escalation         float64              `json:"escalation"`
	EscalationInterval routing.Interval     `json:"escalation_interval"`
	Cost               float64              `json:"cost"` // the mean of what was charged
	Milliseconds       map[string]quantiles `json:"milliseconds"`
}

// quantiles are of the milliseconds from an image's queueing to its answer.
type quantiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// rateSpan is the time over which images a second are counted.
const rateSpan = 10 * time.Second

// liveOf returns the numbers of answers; nil for none.
func liveOf(latest []answered, now time.Time) *live {
	if len(latest) == 0 {
		return nil
	}
	numbers := live{Images: len(latest), Milliseconds: map[string]quantiles{}}
	waited := map[string][]time.Duration{}
	escalated, inSpan, oldest, oldestInSpan := 0, 0, now, now
	for _, a := range latest {
		waited["all"] = append(waited["all"], a.waited)
		waited[a.expert] = append(waited[a.expert], a.waited)
		numbers.Cost += a.cost / float64(len(latest))
		if a.expert != experts[0] {
			escalated++
		}
		if a.at.Before(oldest) {
			oldest = a.at
		}
		if now.Sub(a.at) < rateSpan {
			inSpan++
			if a.at.Before(oldestInSpan) {
				oldestInSpan = a.at
			}
		}
	}
	n := float64(len(latest))
	numbers.Seconds = now.Sub(oldest).Seconds()
	span := rateSpan
	if inSpan == len(latest) { // the ring, or the server, is younger than the span
		span = max(now.Sub(oldestInSpan), time.Second)
	}
	numbers.ImagesPerSecond = float64(inSpan) / span.Seconds()
	numbers.Escalation = float64(escalated) / n
	numbers.EscalationInterval = routing.Wilson(numbers.Escalation, n)
	for expert, times := range waited {
		numbers.Milliseconds[expert] = quantilesOf(times)
	}
	return &numbers
}

func quantilesOf(times []time.Duration) quantiles {
	slices.Sort(times)
	at := func(share float64) float64 {
		return float64(times[int(share*float64(len(times)-1)+0.5)].Microseconds()) / 1000
	}
	return quantiles{at(0.5), at(0.99)}
}
