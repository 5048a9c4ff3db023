package ipcfile

import (
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
)

// Version is written into every file as its producer's.
const Version = "0.1.0"

// Format is the number of the file layout that this package writes and reads.
const Format = "3"

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
	pairs[KeyFormat] = Format
	pairs[KeyProducer] = "agflow " + Version
}
