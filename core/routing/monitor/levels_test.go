package monitor

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// calibrationImages is the number of images that a life is calibrated on, anew.
const calibrationImages = 1600

// falseAlarms lets lives pass in which nothing ever changes, and returns in how many of them each
// watch raises an alarm.
func falseAlarms(t *testing.T, lives, images int, r rates, near float64) map[string]int {
	alarms := map[string]int{}
	o := DefaultOptions()
	for life := range lives {
		s := newStream(uint64(life), near)
		o.Seed = uint64(life)
		m := s.life(t, r, calibrationImages, o)
		for range images {
			s.feed(m, r, true)
		}
		for _, w := range m.watches() {
			if w.alarm != nil {
				alarms[w.name]++
			}
		}
	}
	t.Logf("%d lives of %d images, %+v, %.0f %% near: %v", lives, images, r, 100*near, alarms)
	return alarms
}

// requireLevel compares a number of alarms with the level, but for chance.
func requireLevel(t *testing.T, alarms map[string]int, lives int) {
	level := DefaultOptions().Level
	allowed := level*float64(lives) + 3*math.Sqrt(level*(1-level)*float64(lives))
	for name, n := range alarms {
		if float64(n) > allowed {
			t.Errorf("%s: %d alarms in %d lives, %.0f are allowed", name, n, lives, allowed)
		}
	}
}

// The levels hold at the worst case of every null: the loss is exactly the tolerance, and in
// service all is as on the calibration images, which are drawn anew in each life.
func TestLevelsHold(t *testing.T) {
	for _, near := range []float64{blind, 0.8} {
		requireLevel(t, falseAlarms(t, 60, 4000, atTheTolerance, near), 60)
	}
}

// The proof of the levels, over whole lives. It takes minutes.
func TestLevelsHoldForLife(t *testing.T) {
	if testing.Short() {
		t.Skip("200 million images: go test -run TestLevelsHoldForLife -v ./core/routing/monitor")
	}
	const lives, images = 2000, 100_000
	alarms := falseAlarms(t, lives, images, atTheTolerance, 0.8)
	for name, n := range alarms { // of so many lives, not beyond the level by chance either
		if float64(n) > DefaultOptions().Level*lives {
			t.Errorf("%s: %d alarms in %d lives", name, n, lives)
		}
	}
}

// The levels at other worst cases: few and many differences between the experts.
func TestLevelsHoldElsewhere(t *testing.T) {
	if testing.Short() {
		t.Skip("40 million images: go test -run TestLevelsHoldElsewhere -v ./core/routing/monitor")
	}
	const lives, images = 200, 100_000
	for _, r := range []rates{{0.005, 0}, {0.06, 0.055}} {
		requireLevel(t, falseAlarms(t, lives, images, r, blind), lives)
	}
}

// found is how a drift was found over many lives.
type found struct {
	delays []int // of the lives without an alarm before; notFound where there was none
	early  int
}

const notFound = math.MaxInt

func (f found) median() int { return f.delays[len(f.delays)/2] }

// String is the median.
func (f found) String() string {
	if f.median() == notFound {
		return "not found"
	}
	return fmt.Sprintf("%6d", f.median())
}

// share is the share of lives that found the drift.
func (f found) share() float64 {
	n := 0
	for _, d := range f.delays {
		n += int(truth(d < notFound))
	}
	return float64(n) / float64(len(f.delays))
}

// drifts lets lives lose more from an image on, and times the watch of accuracy, or of agreement
// where there are no labels.
func drifts(t *testing.T, lives, images, at int, points, near float64, labels bool) (f found) {
	o := DefaultOptions()
	bad := rates{calm.lost + points/100, calm.gained}
	for life := range lives {
		s := newStream(1000+uint64(life), near)
		o.Seed = uint64(life)
		m := s.life(t, calm, calibrationImages, o)
		w := m.accuracy
		if !labels {
			w = m.agreement
		}
		for i := 0; i < images && w.alarm == nil; i++ {
			r := calm
			if i >= at {
				r = bad
			}
			s.feed(m, r, labels)
		}
		switch {
		case w.alarm == nil:
			f.delays = append(f.delays, notFound)
		case w.alarm.Image <= int64(at):
			f.early++
		default:
			f.delays = append(f.delays, int(w.alarm.Image)-at)
		}
	}
	slices.Sort(f.delays)
	return f
}

// sent is the share of all images that the audit sends to the heavy expert while all is well.
func sent(t *testing.T, lives, images int, near float64) float64 {
	total := int64(0)
	o := DefaultOptions()
	for life := range lives {
		s := newStream(5000+uint64(life), near)
		o.Seed = uint64(life)
		m := s.life(t, calm, calibrationImages, o)
		for range images {
			s.feed(m, calm, true)
		}
		total += m.audited
	}
	return float64(total) / float64(lives*images)
}

// layouts are where the losses lie: the share of them in the fifth of the images nearest to the
// threshold. The audit by confidence must find them wherever they lie.
var layouts = []struct {
	name      string
	near      float64
	five, two int // greatest delays of a drift of so many points
}{
	{"95 % near", 0.95, 4000, 13_000}, {"80 % near", 0.8, 4000, 13_000},
	{"blind", blind, 7000, 22_000}, {"none near", 0, 7000, 22_000},
}

// The delays at an audit of at most 2 % of the images, over whole lives: the table of core's
// README. The losses' layout is an assumption.
func TestDelays(t *testing.T) {
	if testing.Short() {
		t.Skip("100 million images: go test -run TestDelays -v ./core/routing/monitor")
	}
	const lives, images = 200, 100_000
	for _, l := range layouts {
		share := sent(t, 40, 50_000, l.near)
		t.Logf("losses %s: %.2f %% of the images are sent while all is well", l.name, 100*share)
		if share > 0.02 {
			t.Errorf("%s: %.2f %% are sent", l.name, 100*share)
		}
		most := map[float64]int{5: l.five, 2: l.two, 1: notFound}
		for _, points := range []float64{5, 2, 1} {
			for _, at := range []int{2000, 30_000} {
				f := drifts(t, lives, images, at, points, l.near, true)
				t.Logf("losses %s, +%g points at %6d: median delay %s, found %.0f %%, early %d",
					l.name, points, at, f, 100*f.share(), f.early)
				if f.median() > most[points] {
					t.Errorf("%s: +%g points at %d take %s images", l.name, points, at, f)
				}
			}
		}
	}
}

// Without labels the agreement speaks: against what calibration showed, which knows less.
func TestDelaysWithoutLabels(t *testing.T) {
	if testing.Short() {
		t.Skip("15 million images: go test -run TestDelaysWithoutLabels -v ./core/routing/monitor")
	}
	for _, points := range []float64{5, 2} {
		for _, at := range []int{2000, 30_000} {
			f := drifts(t, 100, 100_000, at, points, 0.8, false)
			t.Logf("without labels, +%g points at %6d: median delay %s, found %.0f %%, early %d",
				points, at, f, 100*f.share(), f.early)
			if points == 5 && f.share() < 0.9 {
				t.Errorf("+%g points at %d: found in %.0f %% of lives", points, at, 100*f.share())
			}
		}
	}
}

// A drift of 5 points is found soon, in the fast tests, too.
func TestADriftIsFound(t *testing.T) {
	f := drifts(t, 20, 20_000, 2000, 5, 0.8, true)
	if f.median() > 6000 || f.share() < 1 {
		t.Errorf("got %v", f)
	}
}
