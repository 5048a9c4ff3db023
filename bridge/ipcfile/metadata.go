package ipcfile

import (
	"strconv"
	"strings"

	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
)

// Version is written into every file as its producer's.
const Version = "0.1.0"

// Format is the number of the format that is written; all from 1 on are read. A table of an older
// format is upgraded by package tables.
const Format = 4

// Keys of the schema metadata of every file.
const (
	KeyKind     = "agflow.kind"
	KeyFormat   = "agflow.format"
	KeyProducer = "agflow.producer"
	KeyChecksum = "agflow.checksum"
)

const prefix = "agflow."

// Pairs returns agflow's own pairs of metadata; keys of other programs don't begin with "agflow."
// and are dropped.
func Pairs(metadata arrow.Metadata) map[string]string {
	pairs := make(map[string]string, metadata.Len())
	for i, key := range metadata.Keys() {
		if strings.HasPrefix(key, prefix) {
			pairs[key] = metadata.Values()[i]
		}
	}
	return pairs
}

// Stamp sets the format and the producer.
func Stamp(pairs map[string]string) {
	pairs[KeyFormat] = strconv.Itoa(Format)
	pairs[KeyProducer] = "agflow " + Version
}

// FormatOf returns the format that the metadata of a table names; that of a table in memory may be
// left out and is then Format.
//
// Errors: file (a newer format, or none that ever was).
func FormatOf(pairs map[string]string) (int, error) {
	text, given := pairs[KeyFormat]
	if !given {
		return Format, nil
	}
	format, err := strconv.Atoi(text)
	switch {
	case err != nil || format < 1:
		return 0, fault.New(fault.File,
			"has format %.40q, expected 1 to %d: agflow did not write it", text, Format)
	case format > Format:
		return 0, fault.New(fault.File,
			"has format %d, this version reads up to %d: upgrade agflow", format, Format)
	}
	return format, nil
}
