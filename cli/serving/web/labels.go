package web

import (
	"bytes"
	"errors"
	"net/http"

	"agflow/cli/serving"
	"agflow/core/fault"
	"agflow/core/strictjson"
)

// label is the class of an image that was answered before.
type label struct {
	ID    string `json:"id"`
	Label int    `json:"label"`
}

// unlabelled is a label that was not taken.
type unlabelled struct {
	ID    string `json:"id"`
	Error string `json:"error"`
}

// labels takes labels of answered images, one or a list. Of a list those that can be taken are.
func (s *server) labels(x *exchange, r *http.Request) error {
	body, err := x.body(r)
	if err != nil {
		return err
	}
	given, err := parseLabels(body, s.model().Classes)
	if err != nil {
		return err
	}
	failed := []unlabelled{}
	for _, one := range given {
		err := s.cascade.Label(one.ID, one.Label)
		if err != nil && !errors.Is(err, serving.ErrUnknownID) {
			return err
		}
		if err != nil {
			failed = append(failed, unlabelled{one.ID, fault.Sentence(err)})
		}
	}
	if len(failed) == len(given) {
		return serving.ErrUnknownID
	}
	return writeJSON(x, http.StatusOK, map[string]any{
		"accepted": len(given) - len(failed), "failed": failed,
	})
}

// parseLabels reads labels, and refuses all of them where one is no class.
func parseLabels(body []byte, classes int) (given []label, err error) {
	if err := checkJSON(body, "of labels"); err != nil {
		return nil, err
	}
	if trimmed := bytes.TrimSpace(body); len(trimmed) > 0 && trimmed[0] == '[' {
		err = strictjson.Whole(body, &given)
	} else {
		given = make([]label, 1)
		err = strictjson.Whole(body, &given[0])
	}
	if err != nil {
		return nil, invalid("the labels can't be read: %v; send {\"id\": ID, \"label\": CLASS}, "+
			"or an array of them", err)
	}
	if len(given) == 0 {
		return nil, invalid("there are no labels in the array; send at least one")
	}
	for _, one := range given {
		if one.Label < 0 || one.Label >= classes {
			return nil, invalid("the label of %.100q is %d, expected a class from 0 to %d",
				one.ID, one.Label, classes-1)
		}
	}
	return given, nil
}
