package ipcfile

import (
	"bytes"

	"agflow/core/fault"
)

// otherForms are the first bytes of files that people hold for Arrow files.
var otherForms = []struct{ begins, is string }{
	{"PAR1", "a parquet file"},
	{"\x93NUMPY", "a numpy file"},
	{"PK\x03\x04", "a zip archive, such as npz"},
	{"FEA1", "a feather file of version 1"},
	{"\xff\xff\xff\xff", "an Arrow stream"},
}

// refuseOtherForm says what a file is that is no Arrow file; nil where its beginning does not tell.
func refuseOtherForm(path string, file []byte) error {
	for _, form := range otherForms {
		if bytes.HasPrefix(file, []byte(form.begins)) {
			return fault.New(fault.File, "%s is %s, expected an Arrow file: convert it, with "+
				"pyarrow.feather.write_feather(table, path, compression=\"uncompressed\")",
				path, form.is)
		}
	}
	return nil
}
