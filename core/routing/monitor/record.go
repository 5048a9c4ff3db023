package monitor

import (
	"encoding/json"

	"agflow/core/fault"
	"agflow/core/strictjson"
)

// Record is one line of a file of audit records, which a server writes in order of time: an image
// that it answered, or a label that came later.
type Record struct {
	Image *Image
	Late  *Late
}

// Late is a label that came after its image.
type Late struct {
	ID    string `json:"id"`
	Time  string `json:"time"`
	Label int    `json:"label"`
}

// maxRecord is the greatest length of a record, in bytes.
const maxRecord = 4096

// MarshalJSON returns the record as one line of JSON.
func (r Record) MarshalJSON() ([]byte, error) {
	if r.Image != nil {
		return json.Marshal(r.Image)
	}
	return json.Marshal(r.Late)
}

// Time is when the image was answered, or the label came: RFC 3339, "" where it is not known.
func (r Record) Time() string {
	if r.Image != nil {
		return r.Image.Time
	}
	return r.Late.Time
}

// ParseRecord reads a record: an image has the key prior, a label that came later has not.
//
// Errors: file (not JSON, a key that is missing or not known, a time that is none).
func ParseRecord(line []byte) (r Record, err error) {
	var keys map[string]json.RawMessage
	if len(line) > maxRecord {
		return r, fault.New(fault.File, "it has %d bytes, expected at most %d", len(line),
			maxRecord)
	}
	if err = json.Unmarshal(line, &keys); err != nil {
		return r, fault.New(fault.File, "it is not a JSON object (%w)", err)
	}
	if _, isImage := keys["prior"]; isImage {
		r.Image = &Image{}
		err = strictjson.Whole(line, r.Image)
	} else {
		r.Late = &Late{}
		err = strictjson.Whole(line, r.Late)
	}
	if err == nil {
		err = validTime(r.Time())
	}
	if err != nil {
		return Record{}, fault.New(fault.File, "%s", fault.Sentence(err))
	}
	return r, nil
}

// Replay counts a record of a file, of all images or of the audited ones alone. A label that no
// image awaits is no error: its image may not have been audited.
//
// Errors: those of Observe and Label.
func (m *Monitor) Replay(r Record, auditedAlone bool) error {
	if r.Image != nil && auditedAlone {
		return m.ObserveAudited(*r.Image)
	}
	if r.Image != nil {
		return m.Observe(*r.Image)
	}
	m.lock.Lock()
	m.now = r.Late.Time
	m.lock.Unlock()
	if err := m.Label(r.Late.ID, r.Late.Label); err != nil && err != error(ErrUnknownID) {
		return err
	}
	return nil
}
