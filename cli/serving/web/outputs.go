package web

import (
	"fmt"
	"slices"
	"strings"

	"agflow/cli/serving"
)

// experts are the words of [serving.Answer] for who answered.
var experts = []string{"light", "heavy", "ensemble"}

// output is one that clients can ask for.
type output struct {
	name     string
	datatype string
	classes  bool // of shape [n, K], else [n]
	// values of all answers: []float32, []int64 or []string
	values func(answers []serving.Answer) any
}

var outputs = []output{
	{"logits", fp32, true, func(answers []serving.Answer) any {
		var all []float32
		for _, a := range answers {
			all = append(all, a.Logits...)
		}
		return all
	}},
	{"class", int64Type, false, each(func(a serving.Answer) int64 { return int64(a.Class) })},
	{"probability", fp32, false, each(func(a serving.Answer) float32 {
		return float32(a.Probability)
	})},
	{"expert", bytesType, false, each(func(a serving.Answer) string { return a.Expert })},
	{"prior", fp32, false, each(func(a serving.Answer) float32 { return a.Prior })},
	{"cost", fp32, false, each(func(a serving.Answer) float32 { return float32(a.Cost) })},
	{"id", bytesType, false, each(func(a serving.Answer) string { return a.ID })},
}

// each makes the values of answers from the value of one.
func each[T any](value func(serving.Answer) T) func([]serving.Answer) any {
	return func(answers []serving.Answer) any {
		all := make([]T, len(answers))
		for i, a := range answers {
			all[i] = value(a)
		}
		return all
	}
}

func outputsOf(m serving.Model) []tensorMetadata {
	var all []tensorMetadata
	for _, o := range outputs {
		shape := []int{-1}
		if o.classes {
			shape = append(shape, m.Classes)
		}
		all = append(all, tensorMetadata{o.name, o.datatype, shape})
	}
	return all
}

// wanted is an output that a client asks for.
type wanted struct {
	output
	binary bool
	top    int64 // of Triton's classification extension, 0 for none
}

// wantedOf reads what a client asks for: all outputs where it names none.
func wantedOf(asked []outputJSON, binary bool, m serving.Model) ([]wanted, error) {
	var all []wanted
	if asked == nil {
		for _, o := range outputs {
			all = append(all, wanted{output: o, binary: binary})
		}
		return all, nil
	}
	for _, j := range asked {
		k := slices.IndexFunc(outputs, func(o output) bool { return o.name == j.Name })
		if k < 0 {
			return nil, invalid("the output %.100q is unknown; the outputs are %s", j.Name,
				listed(names(outputs)))
		}
		if slices.ContainsFunc(all, func(w wanted) bool { return w.name == j.Name }) {
			return nil, invalid("the output %q is asked for twice", j.Name)
		}
		w := wanted{output: outputs[k], binary: binary}
		known := map[string]any{"binary_data": &w.binary}
		if w.classes {
			known["classification"] = &w.top
		}
		if err := j.Parameters.read("the parameters of "+j.Name, known); err != nil {
			return nil, err
		}
		if w.top > int64(m.Classes) {
			return nil, invalid("classification is %d, but there are %d classes", w.top, m.Classes)
		}
		all = append(all, w)
	}
	return all, nil
}

func names(of []output) []string {
	var all []string
	for _, o := range of {
		all = append(all, o.name)
	}
	return all
}

// listed joins words for a sentence.
func listed(words []string) string { return strings.Join(words, ", ") }

// of returns datatype, shape and values for answers.
func (w wanted) of(answers []serving.Answer, m serving.Model) (string, []int, any) {
	switch {
	case w.top > 0:
		return bytesType, []int{len(answers), int(w.top)}, classified(answers, int(w.top), m)
	case w.classes:
		return w.datatype, []int{len(answers), len(answers[0].Logits)}, w.values(answers)
	}
	return w.datatype, []int{len(answers)}, w.values(answers)
}

// classified gives the greatest logits as Triton's extension does: value:index:name.
func classified(answers []serving.Answer, top int, m serving.Model) []string {
	var all []string
	for _, a := range answers {
		for _, class := range greatest(a.Logits, top) {
			text := fmt.Sprintf("%f:%d", a.Logits[class], class)
			if name := nameOf(m, class); name != "" {
				text += ":" + name
			}
			all = append(all, text)
		}
	}
	return all
}

// greatest returns the classes of the greatest logits, the lowest class first of equals.
func greatest(logits []float32, top int) []int {
	classes := make([]int, len(logits))
	for c := range classes {
		classes[c] = c
	}
	slices.SortStableFunc(classes, func(a, b int) int {
		switch {
		case logits[a] > logits[b]:
			return -1
		case logits[a] < logits[b]:
			return 1
		}
		return 0
	})
	return classes[:top]
}

// nameOf is the name of a class, "" where it is unknown.
func nameOf(m serving.Model, class int) string {
	if class < 0 || class >= len(m.ClassNames) {
		return ""
	}
	return m.ClassNames[class]
}
