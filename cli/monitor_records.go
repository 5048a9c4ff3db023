package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"time"

	"agflow/bridge/ipcfile"
	"agflow/core/fault"
	"agflow/core/routing/monitor"
)

// recordFile reads the records of one file in their order.
type recordFile struct {
	path   string
	file   *os.File
	lines  *bufio.Reader
	number int // of the line that head is from
	head   monitor.Record
	time   time.Time
	done   bool
}

// maxLine is beyond the length of every record: what is longer is refused by its beginning.
const maxLine = 1 << 16

func openRecords(path string) (*recordFile, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, ipcfile.IOFault(path, "read", err)
	}
	f := &recordFile{path: path, file: file, lines: bufio.NewReaderSize(file, maxLine)}
	if err := f.next(); err != nil {
		file.Close()
		return nil, err
	}
	return f, nil
}

// next reads the next record, or finds the end. Empty lines are none.
func (f *recordFile) next() error {
	for {
		line, err := f.lines.ReadSlice('\n')
		f.number++
		line = bytes.TrimSpace(line)
		switch {
		case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull):
			return ipcfile.IOFault(f.path, "read", err)
		case len(line) == 0 && err != nil:
			f.done = true
			return nil
		case len(line) == 0:
			continue
		}
		return f.read(line)
	}
}

func (f *recordFile) read(line []byte) error {
	record, err := monitor.ParseRecord(line)
	if err != nil {
		return f.wrong(err)
	}
	f.head = record
	if text := record.Time(); text != "" {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return f.wrong(err)
		}
		f.time = at
	}
	return nil
}

// wrong names the line that an error is about.
func (f *recordFile) wrong(err error) error {
	return fault.New(fault.File, "%s, line %d: %s; expected audit records that a server wrote",
		f.path, f.number, fault.Sentence(err))
}

// watchRecords merges files of records by their times. Records without a time keep that of the
// one before.
func watchRecords(watching *monitor.Monitor, paths []string) error {
	auditedAlone := true
	if err := inOrderOfTime(paths, func(r monitor.Record, _ *recordFile) error {
		auditedAlone = auditedAlone && (r.Image == nil || r.Image.Audited)
		return nil
	}); err != nil {
		return err
	}
	return inOrderOfTime(paths, func(r monitor.Record, from *recordFile) error {
		if err := watching.Replay(r, auditedAlone); err != nil {
			return from.wrong(err)
		}
		return nil
	})
}

// inOrderOfTime gives every record of files to a step, the earliest first. One record a file is in
// memory.
func inOrderOfTime(paths []string, step func(monitor.Record, *recordFile) error) error {
	var files []*recordFile
	defer func() {
		for _, f := range files {
			f.file.Close()
		}
	}()
	for _, path := range paths {
		f, err := openRecords(path)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	for {
		var first *recordFile
		for _, f := range files {
			if !f.done && (first == nil || f.time.Before(first.time)) {
				first = f
			}
		}
		if first == nil {
			return nil
		}
		if err := step(first.head, first); err != nil {
			return err
		}
		if err := first.next(); err != nil {
			return err
		}
	}
}
