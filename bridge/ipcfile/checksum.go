package ipcfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"agflow/core/cancel"
	"agflow/core/fault"
)

// A checksum is the value of the metadata key agflow.checksum: "agflow-sha256-" and 64 hex digits.
// It stands twice in an Arrow file, in the schema message and in the footer. The digits are the
// SHA-256 of the whole file with both sets of digits written as zeros.
const (
	checksumPrefix = "agflow-sha256-"
	checksumDigits = sha256.Size * 2
)

var checksumZeros = strings.Repeat("0", checksumDigits)

// checksums finds the offsets of the digits of every checksum.
func checksums(file []byte) (offsets []int) {
	for at := 0; ; {
		next := bytes.Index(file[at:], []byte(checksumPrefix))
		if next < 0 {
			return offsets
		}
		at += next + len(checksumPrefix)
		if at+checksumDigits <= len(file) && isHex(file[at:at+checksumDigits]) {
			offsets = append(offsets, at)
		}
	}
}

func isHex(digits []byte) bool {
	for _, d := range digits {
		if (d < '0' || d > '9') && (d < 'a' || d > 'f') {
			return false
		}
	}
	return true
}

// digest computes the digits of a file whose checksums have theirs at two offsets.
func digest(file []byte, first, second int) string {
	hash := sha256.New()
	write := inPieces(hash.Write)
	write(file[:first])
	write([]byte(checksumZeros))
	write(file[first+checksumDigits : second])
	write([]byte(checksumZeros))
	write(file[second+checksumDigits:])
	return hex.EncodeToString(hash.Sum(nil))
}

// inPieces makes a function that writes do its work in pieces, so that it ends when it is
// cancelled.
func inPieces(write func([]byte) (int, error)) func([]byte) (int, error) {
	const size = 1 << 20
	return func(bytes []byte) (written int, err error) {
		for piece := range slices.Chunk(bytes, size) {
			cancel.Check()
			n, err := write(piece)
			written += n
			if err != nil {
				return written, err
			}
		}
		return written, nil
	}
}

// verify compares the bytes of a file with its checksums, before anything parses them. A file that
// has none was written by another program.
func verify(path string, file []byte) error {
	at := checksums(file)
	if len(at) == 0 && bytes.HasPrefix(file, []byte(magic)) {
		return nil
	}
	if err := refuseOtherForm(path, file); err != nil {
		return err
	}
	if len(at) != 2 {
		return fault.New(fault.File, "%s has %d agflow checksums, expected 2: it is damaged, or "+
			"no Arrow file; write it with agflow", path, len(at))
	}
	want := digest(file, at[0], at[1])
	first, second := string(file[at[0]:][:checksumDigits]), string(file[at[1]:][:checksumDigits])
	if first != want || second != want {
		return fault.New(fault.File, "%s doesn't match its checksum: it is damaged, or was "+
			"changed after agflow wrote it; write it again (another program that keeps the "+
			"metadata %s must drop it)", path, KeyChecksum)
	}
	return nil
}

// Verify checks the checksum of a file without parsing the file, and reports whether it has one. Of
// another program's file, which has none, the footer is read.
func Verify(path string) (own bool, err error) {
	err = withMapping(path, func(m *mapping) error {
		own = len(checksums(m.bytes)) > 0
		if err := verify(path, m.bytes); err != nil || own {
			return err
		}
		var info Info
		return info.describe(path, m.bytes)
	})
	return own, err
}
