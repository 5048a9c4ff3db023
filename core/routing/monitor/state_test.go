package monitor

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"agflow/core/fault"
	"agflow/core/fuzzing"
	"agflow/core/strictjson"

	"pgregory.net/rapid"
)

// A monitor that was saved and restored, at any moments, is bit for bit the one that never ended.
func TestARestartChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		cut := rapid.IntRange(0, 1500).Draw(t, "cut")
		o := DefaultOptions()
		o.Seed, o.Share, o.RaisedShare = seed, 0.3, 0.6
		c := &Calibration{Priors: []float32{0.1, 0.5, 0.9}, Disagreements: 1}
		router := simulatedRouter(t, 3, 1)
		whole, err := New(router, c, o)
		if err != nil {
			t.Fatal(err)
		}
		halves, _ := New(router, c, o)
		first, second := newStream(seed, 0.8), newStream(seed, 0.8)
		for i := range 1500 {
			r := rates{0.1, 0.05}
			if i == cut {
				content, err := halves.State()
				if err != nil {
					t.Fatal(err)
				}
				if halves, err = Restore(content, router, c, o); err != nil {
					t.Fatal(err)
				}
			}
			first.feed(whole, r, i%3 != 0)
			second.feed(halves, r, i%3 != 0)
		}
		a, _ := whole.State()
		b, _ := halves.State()
		if !bytes.Equal(a, b) || !reflect.DeepEqual(whole.Report(), halves.Report()) {
			t.Fatalf("after a restart at %d the state is another:\n%s\n%s", cut, a, b)
		}
		if whole.Report().Labelled == 0 {
			t.Fatal("nothing was audited")
		}
	})
}

// saved is the state of a monitor that has seen something of everything.
func saved(t testing.TB) (*Monitor, *Calibration, []byte) {
	c := &Calibration{Priors: []float32{0.1, 0.5, 0.9}, Disagreements: 1}
	m, err := New(simulatedRouter(t, 3, 1), c, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		id := string(rune('a' + i%7))
		if err := m.Observe(imageOf(id, int8(i%3-1), i%2 == 0)); err != nil {
			t.Fatal(err)
		}
	}
	content, err := m.State()
	if err != nil {
		t.Fatal(err)
	}
	return m, c, content
}

func TestDamagedStatesAreRefused(t *testing.T) {
	m, c, content := saved(t)
	for at := 0; at < len(content)-1; at += 23 {
		damaged := bytes.Clone(content)
		damaged[at] ^= 4
		for _, wrong := range [][]byte{damaged, content[:at]} {
			_, err := Restore(wrong, m.router, c, m.options)
			requireSays(t, err, fault.File, "the state of the monitor can't be read")
		}
	}
}

func TestStatesOfOthersAreRefused(t *testing.T) {
	m, c, content := saved(t)
	other := m.router
	other.Limit = 0.01
	_, err := Restore(content, other, c, m.options)
	requireSays(t, err, fault.File, "it is of the router "+m.subject.Router[:12])
	_, err = Restore(content, m.router, nil, m.options)
	requireSays(t, err, fault.File, "it is of the calibration predictions")
	o := m.options
	o.Level = 0.01
	_, err = Restore(content, m.router, c, o)
	requireSays(t, err, fault.File, "level 0.05")
	o = m.options
	o.Share = 0.02
	if _, err = Restore(content, m.router, c, o); err != nil {
		t.Errorf("another share: %v", err)
	}
}

// What can't be is refused, checksum or not.
func TestForgedStates(t *testing.T) {
	m, c, content := saved(t)
	for name, change := range map[string]func(*state){
		"format":       func(s *state) { s.Format = 2 },
		"generator":    func(s *state) { s.Generator = "AAAA" },
		"images":       func(s *state) { s.Images = -1 },
		"thinned":      func(s *state) { s.Thinned = 1 },
		"escalated":    func(s *state) { s.Escalated = 99 },
		"below":        func(s *state) { s.BelowThreshold = 3 },
		"bins":         func(s *state) { s.Bins = s.Bins[1:] },
		"bin":          func(s *state) { s.Bins[0] = binCount },
		"bin twice":    func(s *state) { s.Bins[0] = s.Bins[1] },
		"counts":       func(s *state) { s.Counts[0]++ },
		"many":         func(s *state) { s.Counts[0] = 1 << 62 },
		"recent":       func(s *state) { s.Recent.CurrentOf = blockSize + 1 },
		"name":         func(s *state) { s.Watches[0].Name = PriorWatch },
		"numbers":      func(s *state) { s.Watches[0].Numbers = 41 },
		"sides":        func(s *state) { s.Watches[0].Capital = nil },
		"bets":         func(s *state) { s.Watches[0].Capital[0] = []float64{1} },
		"capital":      func(s *state) { s.Watches[0].Capital[0][0] = -1 },
		"alarm":        func(s *state) { s.Watches[0].Alarm = &Alarm{Image: 1, Evidence: 2} },
		"trend":        func(s *state) { s.Losing = -1 },
		"weights":      func(s *state) { s.Losses.Weights[0] = 0 },
		"values":       func(s *state) { s.Losses.Values[0] = 2 },
		"disagreement": func(s *state) { s.Disagreements.Values[0] = -1 },
		"window":       func(s *state) { s.Losses.Values = s.Losses.Values[1:] },
		"awaited":      func(s *state) { s.Awaited.IDs[0] = "" },
		"awaited id":   func(s *state) { s.Awaited.IDs[0] = strings.Repeat("x", 200) },
		"answers":      func(s *state) { s.Awaited.Answers = nil },
	} {
		s, err := parseState(content)
		if err != nil {
			t.Fatal(err)
		}
		change(&s)
		forged, err := strictjson.Seal(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = Restore(forged, m.router, c, m.options); fault.CodeOf(err) != fault.File {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// FuzzState checks that a state that is read can be used, and is written again unchanged.
func FuzzState(f *testing.F) {
	fuzzing.Begin(f)
	m, c, content := saved(f)
	f.Add(content)
	f.Fuzz(func(t *testing.T, content []byte) {
		got, err := Restore(resealed(content), m.router, c, m.options)
		if err != nil {
			requireCode(t, err, fault.File)
			return
		}
		again, err := got.State()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Restore(again, m.router, c, m.options)
		if err != nil {
			t.Fatal(err)
		}
		if twice, _ := back.State(); !bytes.Equal(again, twice) {
			t.Fatalf("got %s, wrote %s", twice, again)
		}
		s := newStream(1, 0.8)
		for range 10 {
			s.feed(got, calm, true)
		}
		got.Report()
	})
}
