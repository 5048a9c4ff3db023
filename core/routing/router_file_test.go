package routing

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"agflow/core/fault"
	"agflow/core/fuzzing"
)

func calibrated(t testing.TB) (Router, []byte) {
	router, err := NewRouter(pairOf(500), Request{Tolerance: number(0.05), Confidence: 0.9})
	if err != nil {
		t.Fatal(err)
	}
	content, err := router.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return router, content
}

var checksumDigits = regexp.MustCompile(`[0-9a-f]{64}`)

// resealed gives changed content the checksum that belongs to it, as a forger would.
func resealed(content []byte) []byte {
	zeros := []byte(strings.Repeat("0", 64))
	blank := checksumDigits.ReplaceAllLiteral(content, zeros)
	sum := sha256.Sum256(blank)
	return bytes.Replace(blank, zeros, []byte(hex.EncodeToString(sum[:])), 1)
}

func TestRouterRoundTrip(t *testing.T) {
	router, content := calibrated(t)
	back, err := ParseRouter(content)
	if err != nil || !reflect.DeepEqual(back, router) {
		t.Fatalf("got %+v, %v; want %+v", back, err, router)
	}
	if again, err := back.Encode(); err != nil || !bytes.Equal(again, content) {
		t.Errorf("the same router makes another file: %s, %v", again, err)
	}
}

// TestEveryFlipAndTruncationOfARouterIsRefused proves that no damage makes another router.
func TestEveryFlipAndTruncationOfARouterIsRefused(t *testing.T) {
	_, content := calibrated(t)
	for at := range content {
		if at < len(content)-1 { // without its last line break the file says the same
			_, err := ParseRouter(content[:at])
			requireCode(t, err, fault.File)
		}
		for bit := range 8 {
			damaged := bytes.Clone(content)
			damaged[at] ^= 1 << bit
			_, err := ParseRouter(damaged)
			requireCode(t, err, fault.File)
		}
	}
}

// TestOlderRouters proves that stored files of every older format become routers of this one.
func TestOlderRouters(t *testing.T) {
	for format, want := range map[int]Router{
		1: {Answers: HeavyAnswers, Threshold: Threshold{Samples: 400, Limit: 0.1}},
		2: {Answers: HeavyAnswers, Threshold: Threshold{Samples: 400, Limit: 0.1}},
		3: {Answers: EnsembleAnswers, LightWeight: 0.25, Threshold: Threshold{Samples: 306,
			Limit: 0.1}},
	} {
		content, err := os.ReadFile(fmt.Sprintf("testdata/router_format%d.json", format))
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseRouter(content)
		if err != nil {
			t.Fatal(err)
		}
		if got.Format != RouterFormat || got.Prior != MaxProbability || got.Temperature != 1 ||
			got.Answers != want.Answers || got.LightWeight != want.LightWeight ||
			got.Samples != want.Samples || got.Limit != want.Limit || got.Target != AccuracyTarget {
			t.Errorf("format %d: got %+v", format, got)
		}
		cost := Cost{Light: 10, Heavy: 100, Shared: 1, Unit: MACs}
		if ledger, err := NewLedger(cost, got.Ledger.Samples, got.Ledger.Escalated); err != nil ||
			ledger != got.Ledger {
			t.Errorf("format %d: got %+v, expected %+v (%v)", format, got.Ledger, ledger, err)
		}
		samples := float64(got.Samples)
		if got.Point.Escalation != got.Threshold.Escalation ||
			got.Point.AccuracyInterval != Wilson(got.AccuracyCascade, samples) ||
			got.Point.EscalationInterval != Wilson(got.Threshold.Escalation, samples) {
			t.Errorf("format %d: got %+v", format, got.Point)
		}
	}
}

// TestForgedRouters proves that what a router's user relies on is checked, checksum or not.
func TestForgedRouters(t *testing.T) {
	_, content := calibrated(t)
	old, err := os.ReadFile("testdata/router_format3.json")
	if err != nil {
		t.Fatal(err)
	}
	older, err := os.ReadFile("testdata/router_format2.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		content        []byte
		from, to, want string
	}{
		"newer":        {content, `"format": 4`, `"format": 5`, "upgrade agflow"},
		"zero":         {content, `"format": 4`, `"format": 0`, "expected 1 to 4"},
		"text":         {content, `"format": 4`, `"format": "4"`, "expected a whole number"},
		"no format":    {content, `"format": 4`, `"other": 4`, "has no format"},
		"temperature":  {content, `"temperature": 1`, `"temperature": 0`, "temperature is 0"},
		"case":         {content, `"temperature"`, `"Temperature"`, "Temperature is not known"},
		"null":         {content, `"temperature": 1`, `"temperature": null`, "is null"},
		"no threshold": {content, `"threshold"`, `"threshhold"`, "threshhold is not known"},
		"twice":        {content, `"prior": `, `"format": 4, "prior": `, "comes twice"},
		"answers":      {content, `"heavy"`, `"both"`, "its answers are"},
		"unit":         {content, `"cost_unit": "MACs"`, `"cost_unit": ""`, "unit of the costs"},
		"verdict":      {content, `"PASS"`, `"PASSED"`, "its verdict is"},
		"target":       {content, `"target": "accuracy"`, `"target": "x"`, "its target is"},
		"confidence":   {content, `"confidence": 0.9`, `"confidence": 9`, "its confidence is 9"},
		"fraction":     {content, `"samples": 500`, `"samples": 500.5`, "samples is 500.5"},
		"3: null": {old, `"threshold": 0.3750000298023224`, `"threshold": null`,
			"threshold is null"},
		"3: missing":   {old, `"light_weight": 0.25,`, ``, "light_weight is missing"},
		"3: unknown":   {old, `"temperature"`, `"checksum": "", "temperature"`, "not known"},
		"3: weight":    {old, `"light_weight": 0.25`, `"light_weight": 1.5`, "weight is 1.5"},
		"2: threshold": {older, `"threshold": 0.3750000298023224`, `"threshold": null`, "is null"},
		"2: an interval": {older, `"escalation_interval": [`, `"escalation_interval": [0,`,
			"has 3 values, expected 2"},
	} {
		if !bytes.Contains(c.content, []byte(c.from)) {
			t.Errorf("%s: there is no %s in %s", name, c.from, c.content)
		}
		forged := resealed(bytes.Replace(c.content, []byte(c.from), []byte(c.to), 1))
		_, err := ParseRouter(forged)
		requireCode(t, err, fault.File)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, expected %q", name, err, c.want)
		}
	}
}

// FuzzParseRouter checks that every router that is read can be written and read again unchanged.
// The checksum is set right, because no mutation would ever get past it.
func FuzzParseRouter(f *testing.F) {
	fuzzing.Begin(f)
	_, content := calibrated(f)
	f.Add(content)
	for format := 1; format < RouterFormat; format++ {
		old, err := os.ReadFile(fmt.Sprintf("testdata/router_format%d.json", format))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(old)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		router, err := ParseRouter(resealed(content))
		if err != nil {
			requireCode(t, err, fault.File)
			return
		}
		encoded, err := router.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseRouter(encoded); err != nil || !reflect.DeepEqual(back, router) {
			t.Fatalf("got %+v, %v; want %+v", back, err, router)
		}
	})
}
