package monitor

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"agflow/core/fault"
)

func requireCode(t testing.TB, err error, code fault.Code) {
	t.Helper()
	if err == nil || fault.CodeOf(err) != code {
		t.Fatalf("got %v, expected an error of code %s", err, code)
	}
}

// requireSays requires an error of a code whose sentence has certain words.
func requireSays(t testing.TB, err error, code fault.Code, words string) {
	t.Helper()
	requireCode(t, err, code)
	if !strings.Contains(err.Error(), words) {
		t.Fatalf("got %v, expected %q in it", err, words)
	}
}

var checksumDigits = regexp.MustCompile(`"checksum": "sha256:[0-9a-f]{64}"`)

// resealed gives changed content the checksum that belongs to it, as a forger would.
func resealed(content []byte) []byte {
	blank := checksumDigits.ReplaceAllLiteral(content,
		[]byte(`"checksum": "sha256:`+strings.Repeat("0", 64)+`"`))
	sum := sha256.Sum256(blank)
	at := bytes.LastIndex(blank, []byte(strings.Repeat("0", 64)))
	if at < 0 {
		return blank
	}
	return append(append(blank[:at:at], hex.EncodeToString(sum[:])...), blank[at+64:]...)
}

func newStream(seed uint64, near float64) *stream {
	return &stream{rand.New(rand.NewPCG(seed, 99)), near}
}

var calm, atTheTolerance = rates{0.010, 0.008}, rates{0.010, 0.005}
