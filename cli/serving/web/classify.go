package web

import (
	"math"
	"net/http"
	"net/url"
	"strconv"

	"agflow/cli/serving"
)

// classification is the answer to an encoded image.
type classification struct {
	Class       int     `json:"class"`
	Name        string  `json:"name,omitempty"` // where the model knows names
	Probability float64 `json:"probability"`
	Expert      string  `json:"expert"`
	Prior       float32 `json:"prior"`
	Cost        float64 `json:"cost"`
	ID          string  `json:"id"`
	Model       string  `json:"model"`
	Revision    string  `json:"revision"`
	Top         []place `json:"top,omitempty"`
}

// place is a class with its probability, of the most probable ones.
type place struct {
	Class       int     `json:"class"`
	Name        string  `json:"name,omitempty"`
	Probability float64 `json:"probability"`
}

// classify answers an encoded image.
func (s *server) classify(x *exchange, r *http.Request) error {
	timeout, err := x.ownTimeout(r)
	if err != nil {
		return err
	}
	body, err := x.body(r)
	if err != nil {
		return err
	}
	encoded, err := encodedImage(r.Header.Get("Content-Type"), body)
	if err != nil {
		return err
	}
	if err := checkPixels(encoded, s.Limits.Pixels); err != nil {
		return err
	}
	held := s.cascade.Hold()
	defer held.Release()
	m := held.Model()
	top, err := topOf(r.URL.RawQuery, m.Classes)
	if err != nil {
		return err
	}
	ctx, cancel := x.deadline(r, timeout)
	defer cancel()
	image, err := held.Prepare(ctx, encoded)
	if err != nil {
		return err
	}
	answers, err := held.Answer(ctx, image, 1)
	if err != nil {
		return err
	}
	x.answered(answers)
	return writeJSON(x, http.StatusOK, classificationOf(answers[0], m, top))
}

func classificationOf(a serving.Answer, m serving.Model, top int) classification {
	answer := classification{
		Class: a.Class, Name: nameOf(m, a.Class), Probability: a.Probability, Expert: a.Expert,
		Prior: a.Prior, Cost: a.Cost, ID: a.ID, Model: m.Name, Revision: m.Revision,
	}
	total := 0.0
	for _, v := range a.Logits {
		total += math.Exp(float64(v) - float64(a.Logits[a.Class]))
	}
	for _, class := range greatest(a.Logits, min(top, len(a.Logits))) {
		answer.Top = append(answer.Top, place{
			class, nameOf(m, class),
			math.Exp(float64(a.Logits[class])-float64(a.Logits[a.Class])) / total,
		})
	}
	return answer
}

// topOf reads ?top=K, of how many classes the probabilities are asked for.
func topOf(rawQuery string, classes int) (int, error) {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return 0, invalid("the query can't be read: %v", err)
	}
	for name := range query {
		if name != "top" {
			return 0, invalid("the query has %.100q, which is unknown here; it may have top", name)
		}
	}
	if !query.Has("top") {
		return 0, nil
	}
	top, err := strconv.Atoi(query.Get("top"))
	if err != nil || top < 1 || top > classes {
		return 0, invalid("top is %.40q, expected a number of classes from 1 to %d",
			query.Get("top"), classes)
	}
	return top, nil
}
