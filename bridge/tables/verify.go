package tables

import (
	"path/filepath"

	"agflow/bridge/ipcfile"
	"agflow/core/fault"
	"agflow/core/strictjson"
)

// Verify checks the checksum of a file that agflow wrote, an Arrow file or, by its name, JSON,
// without reading more of it, and reports whether it has one: an Arrow file of another program has
// none.
func Verify(path string) (own bool, err error) {
	if filepath.Ext(path) != ".json" {
		return ipcfile.Verify(path)
	}
	return true, verifyJSON(path)
}

func verifyJSON(path string) error {
	content, err := ipcfile.ReadBytes(path, strictjson.MaxBytes)
	if err != nil {
		return err
	}
	format, err := strictjson.Format(content)
	if err != nil {
		return fault.New(fault.File, "%s can't be verified: %w; write it with agflow", path, err)
	}
	if format < ipcfile.Format {
		return fault.New(fault.File, "%s has format %d, which has no checksum yet: write it again",
			path, format)
	}
	if _, err := strictjson.Open(content); err != nil {
		return fault.New(fault.File, "%s can't be verified: %w; write it again", path, err)
	}
	return nil
}
