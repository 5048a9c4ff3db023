package strictjson

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// A file ends with the key checksum: "sha256:" and the 64 hex digits of the SHA-256 of the file
// with zeros in their place, so that equal content makes equal files and any change is found.
const digits = sha256.Size * 2

var (
	zeros    = strings.Repeat("0", digits)
	checksum = regexp.MustCompile(`,\s*"checksum"\s*:\s*"sha256:([0-9a-f]{64})"\s*\}\s*$`)
)

// Seal returns the content of a JSON file of a value, which is an object, with its checksum.
func Seal(value any) ([]byte, error) {
	content, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return nil, err
	}
	body, isObject := bytes.CutSuffix(content, []byte("\n}"))
	if !isObject {
		return nil, errors.New("the content of a JSON file is an object with at least one key")
	}
	whole := fmt.Sprintf("%s,\n  \"checksum\": \"sha256:%s\"\n}\n", body, zeros)
	sum := sha256.Sum256([]byte(whole))
	at := strings.LastIndex(whole, zeros)
	return []byte(whole[:at] + hex.EncodeToString(sum[:]) + whole[at+digits:]), nil
}

// Open verifies the checksum of a JSON file and returns its content without it.
func Open(file []byte) (content []byte, err error) {
	at := checksum.FindSubmatchIndex(file)
	if at == nil {
		return nil, errors.New("it has no checksum at its end: it was damaged or edited")
	}
	hash := sha256.New()
	hash.Write(file[:at[2]])
	hash.Write([]byte(zeros))
	hash.Write(file[at[3]:])
	if hex.EncodeToString(hash.Sum(nil)) != string(file[at[2]:at[3]]) {
		return nil, errors.New("its checksum does not hold: it was damaged or edited")
	}
	return append(bytes.Clone(file[:at[0]]), '}'), nil
}

// Format returns the number of the format of a JSON file, which nothing else is known about.
func Format(file []byte) (int64, error) {
	if !json.Valid(file) {
		var anything any
		return 0, fmt.Errorf("it is not JSON (%w)", json.Unmarshal(file, &anything))
	}
	var found struct {
		Format json.RawMessage `json:"format"`
	}
	if err := json.Unmarshal(file, &found); err != nil {
		return 0, errors.New("it is not a JSON object")
	}
	if found.Format == nil {
		return 0, errors.New("it has no format")
	}
	var number int64
	if json.Unmarshal(found.Format, &number) != nil || string(found.Format) == "null" {
		return 0, fmt.Errorf("its format is %s, expected a whole number",
			cut(string(found.Format)))
	}
	return number, nil
}
