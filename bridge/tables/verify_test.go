package tables

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestVerifyJSON proves that a router is verified as Arrow files are, and what is said of one
// without a checksum.
func TestVerifyJSON(t *testing.T) {
	routers := parsers(t)["router"].sound
	path := filepath.Join(t.TempDir(), "router.json")
	sound := routers["router.json"]
	for name, c := range map[string]struct {
		content []byte
		says    string
	}{
		"sound": {sound, ""}, "empty": {nil, "is not JSON"},
		"damaged": {bytes.Replace(sound, []byte("PASS"), []byte("FAIL"), 1), "does not hold"},
		"format3": {routers["router_format3.json"], "has format 3, which has no checksum yet"},
	} {
		if err := os.WriteFile(path, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Verify(path)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, expected %q", name, err, c.says)
		}
	}
}
