package strictjson

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"agflow/core/fuzzing"
)

type inner struct {
	Ends [2]float64 `json:"ends"`
}

type Embedded struct {
	Samples int64 `json:"samples"`
}

type outer struct {
	Name string `json:"name"`
	Embedded
	Limit  *float64         `json:"limit"`
	Points []inner          `json:"points"`
	Counts map[string]uint8 `json:"counts"`
	Joint  bool             `json:"joint"`
}

const good = `{"name": "a", "samples": 3, "limit": null, "points": [{"ends": [0.5, 1]}],
	"counts": {"b": 2}, "joint": true}`

func TestWhole(t *testing.T) {
	want := outer{Name: "a", Embedded: Embedded{3}, Points: []inner{{[2]float64{0.5, 1}}},
		Counts: map[string]uint8{"b": 2}, Joint: true}
	var got outer
	if err := Whole([]byte(good), &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; expected %+v", got, err, want)
	}
}

func TestOver(t *testing.T) {
	got := outer{Name: "kept", Joint: true}
	if err := Over([]byte(`{"samples": 4, "limit": 0.5}`), &got); err != nil ||
		got.Name != "kept" || !got.Joint || got.Samples != 4 || *got.Limit != 0.5 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestRefusals proves that what encoding/json takes silently is an error that names the key.
func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct{ from, to, want string }{
		"empty":         {good, "", "unexpected end"},
		"two":           {good, good + good, "after top-level value"},
		"array":         {good, "[]", "the JSON is [], expected an object"},
		"null":          {good, "null", "the JSON is null"},
		"unknown":       {`"name"`, `"nme"`, "nme is not known here; the keys are name, samples"},
		"case":          {`"name"`, `"Name"`, "Name is not known"},
		"missing":       {`, "joint": true`, "", "joint is missing"},
		"nested":        {`"ends"`, `"end"`, "points[0].end is not known"},
		"twice":         {`"name": "a"`, `"name": "a", "name": "b"`, "name comes twice"},
		"twice escaped": {`"name": "a"`, `"name": "a", "n\u0061me": "b"`, "name comes twice"},
		"twice in maps": {`"b": 2`, `"b": 2, "b": 2`, "counts.b comes twice"},
		"null text":     {`"a"`, "null", "name is null, expected a text"},
		"short array":   {"[0.5, 1]", "[0.5]", "points[0].ends has 1 values, expected 2"},
		"long array":    {"[0.5, 1]", "[0.5, 1, 2]", "has 3 values, expected 2"},
		"fraction":      {"3,", "3.5,", "samples is 3.5, expected a whole number"},
		"overflow":      {`"b": 2`, `"b": 256`, "counts.b is 256, expected a whole number from 0"},
		"beyond":        {"0.5", "1e999", "points[0].ends[0] is 1e999, expected a number"},
		"NaN":           {"0.5", "NaN", "ends is NaN, expected a finite number"},
		"infinite":      {`"limit": null`, `"limit": -Infinity`, "limit is -Infinity"},
		"no UTF-8":      {`"a"`, "\"\xff\"", "not UTF-8"},
		"escapes":       {`"name"`, `"\u001b[31m"`, `"\x1b[31m" is not known`},
		"a long key":    {`"name"`, `"` + strings.Repeat("x", 999) + `"`, "xxx… is not known"},
	} {
		var got outer
		err := Whole([]byte(strings.Replace(good, c.from, c.to, 1)), &got)
		if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 300 {
			t.Errorf("%s: got %v, expected %q", name, err, c.want)
		}
	}
}

// TestNaNInTexts proves that words inside of texts are no numbers.
func TestNaNInTexts(t *testing.T) {
	got := outer{}
	if err := Over([]byte(`{"name": "\"NaN: -Infinity"}`), &got); err != nil {
		t.Error(err)
	}
}

func TestSeal(t *testing.T) {
	want := outer{Name: "a", Points: []inner{}, Counts: map[string]uint8{}}
	file, err := Seal(want)
	if err != nil {
		t.Fatal(err)
	}
	content, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	var got outer
	if err := Whole(content, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; expected %+v", got, err, want)
	}
	for at := range file {
		damaged := bytes.Clone(file)
		damaged[at] ^= 4
		if _, err := Open(damaged); err == nil {
			t.Fatalf("a flip at byte %d of %s is not found", at, file)
		}
	}
	if _, err := Seal(struct{}{}); err == nil {
		t.Error("an empty object has no place for a checksum")
	}
}

// FuzzStrict proves that what is read is what encoding/json reads too, and that what is written of
// it is read again.
func FuzzStrict(f *testing.F) {
	fuzzing.Begin(f)
	f.Add([]byte(good))
	f.Add([]byte(`{"name": "\u2028", "samples": -0, "limit": 1e-400, "points": []}`))
	f.Add([]byte(`{"name": NaN}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		var got, plain outer
		if Over(content, &got) != nil {
			return
		}
		if err := json.Unmarshal(content, &plain); err != nil || !reflect.DeepEqual(got, plain) {
			t.Fatalf("got %+v, encoding/json says %+v, %v", got, plain, err)
		}
		file, err := Seal(got)
		if err != nil {
			t.Fatal(err)
		}
		content, err = Open(file)
		if err != nil {
			t.Fatal(err)
		}
		var back outer
		if err := Over(content, &back); err == nil && !reflect.DeepEqual(back, got) {
			t.Fatalf("got %+v, wrote %+v", back, got)
		}
	})
}
