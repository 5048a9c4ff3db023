package monitor

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"agflow/core/fault"
	"agflow/core/fuzzing"
)

const recordLine = `{"id": "a", "time": "2025-01-31T23:59:59.5Z", "prior": 0.75, ` +
	`"escalated": false, "audited": true, "share": 0.02, "least_share": 0.01, "answer": 3, ` +
	`"heavy": 4, "label": null}`

const lateLine = `{"id": "a", "time": "2025-02-01T00:00:00Z", "label": 4}`

func TestRecordsByHand(t *testing.T) {
	image, err := ParseRecord([]byte(recordLine))
	four := 4
	want := Image{ID: "a", Time: "2025-01-31T23:59:59.5Z", Prior: 0.75,
		Draw: Draw{true, 0.02, 0.01}, Answer: 3, Heavy: &four}
	if err != nil || image.Late != nil || !reflect.DeepEqual(*image.Image, want) {
		t.Fatalf("got %+v, %v", image.Image, err)
	}
	late, err := ParseRecord([]byte(lateLine))
	if err != nil || *late.Late != (Late{"a", "2025-02-01T00:00:00Z", 4}) ||
		late.Time() != late.Late.Time {
		t.Fatalf("got %+v, %v", late.Late, err)
	}
	m, err := New(simulatedRouter(t, 1600, 320), nil, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []Record{image, late, late} {
		if err := m.Replay(r, false); err != nil {
			t.Fatal(err)
		}
	}
	if r := m.Report(); r.Images != 1 || r.Labelled != 1 || r.Loss.Value != 1 {
		t.Errorf("got %+v", r)
	}
	late.Late.Label = -1
	requireCode(t, m.Replay(late, false), fault.Value)
}

// Of a stream of which only the audited images are known, every watch still watches all images:
// levels hold, and a drift of each kind is found.
func TestAuditedImagesAloneStandForAll(t *testing.T) {
	alarms, lives := map[string]int{}, 10
	for life := range 2 * lives {
		drifts := life >= lives
		s, o := newStream(uint64(life), 0.8), DefaultOptions()
		o.Share, o.RaisedShare = 0.2, 0.4
		drawing, watching := s.life(t, calm, 1600, o), s.life(t, calm, 1600, o)
		for range 20_000 {
			r, power := calm, 1.0
			if drifts {
				r.lost, power = 0.1, 1.3
			}
			prior, d := s.next(r)
			prior = float32(math.Pow(float64(prior), power))
			image := Image{Prior: prior, Escalated: prior < escalating, Answer: answers[d][0],
				Heavy: &classes[answers[d][1]], Label: &classes[0]}
			image.Draw = drawing.Audit(prior, image.Escalated)
			if image.Audited {
				if err := watching.Replay(Record{Image: &image}, true); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, w := range watching.watches() {
			if drifts && w.alarm == nil {
				t.Errorf("life %d: %s found nothing", life, w.name)
			}
			if !drifts && w.alarm != nil {
				alarms[w.name]++
			}
		}
	}
	requireLevel(t, alarms, lives)
	m, err := New(simulatedRouter(t, 1600, 320), nil, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	requireSays(t, m.ObserveAudited(Image{Prior: 0.9}), fault.Value, "is not audited")
}

func TestRecordsThatCannotBe(t *testing.T) {
	for name, c := range map[string]struct{ line, from, to, says string }{
		"empty":    {recordLine, recordLine, "", "not a JSON object"},
		"array":    {recordLine, recordLine, "[]", "not a JSON object"},
		"missing":  {recordLine, `"share": 0.02, `, "", "share is missing"},
		"unknown":  {recordLine, `"share"`, `"chance"`, "chance is not known"},
		"case":     {recordLine, `"id"`, `"ID"`, "ID is not known"},
		"null":     {recordLine, `0.75`, "null", "prior is null"},
		"time":     {recordLine, `2025-01-31T23:59:59.5Z`, "yesterday", "time is \"yesterday\""},
		"fraction": {recordLine, `"answer": 3`, `"answer": 3.5`, "answer is 3.5"},
		"late":     {lateLine, `"label": 4`, `"class": 4`, "class is not known"},
		"long":     {recordLine, `"a"`, `"` + strings.Repeat("x", 5000) + `"`, "at most 4096"},
	} {
		_, err := ParseRecord([]byte(strings.Replace(c.line, c.from, c.to, 1)))
		if fault.CodeOf(err) != fault.File || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, expected %q", name, err, c.says)
		}
	}
}

// FuzzRecord checks that a record that is read is written and read again unchanged, and that no
// record stops a monitor.
func FuzzRecord(f *testing.F) {
	fuzzing.Begin(f)
	f.Add([]byte(recordLine))
	f.Add([]byte(lateLine))
	m, err := New(simulatedRouter(f, 1600, 320), nil, DefaultOptions())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ParseRecord(line)
		if err != nil {
			requireCode(t, err, fault.File)
			return
		}
		encoded, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseRecord(encoded); err != nil || !reflect.DeepEqual(back, r) {
			if len(encoded) <= maxRecord {
				t.Fatalf("got %+v, %v; want %+v", back, err, r)
			}
		}
		if err := m.Replay(r, false); err != nil {
			fault.CodeOf(err)
		}
	})
}
