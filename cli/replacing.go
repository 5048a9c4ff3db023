package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"agflow/bridge/ipcfile"

	"github.com/urfave/cli/v2"
)

// A file of the default name may be another run's, so it is replaced only by what the same run
// writes, or with --force. A file that --output names is replaced as the user says.

// runKey is the metadata by which a table of a default name says which run wrote it.
const runKey = "agflow.run"

func replaceFlag() *cli.BoolFlag {
	return &cli.BoolFlag{
		Name: "force", Category: outputGroup, DisableDefaultText: true,
		Usage: "replace a file of another run that has the default name of --output",
	}
}

// hasDefaultOutput reports whether a command writes a file whose name need not be given.
func hasDefaultOutput(flags []cli.Flag) bool {
	return slices.ContainsFunc(flags, func(flag cli.Flag) bool {
		text, isText := flag.(*cli.StringFlag)
		return isText && text.Name == "output" && filepath.Ext(text.Value) != ""
	})
}

// protected reports whether there is a file of the default name that may be another run's.
func protected(c *cli.Context) bool {
	_, err := os.Stat(c.String("output"))
	return err == nil && !c.IsSet("output") && !c.Bool("force")
}

func otherRun(c *cli.Context) error {
	path := c.String("output")
	return failure("%s is of another run, or not agflow's, and the default name would replace it: "+
		"name another file with --output, or replace this one with --force", path)
}

// writeOutput lets a step write its output. Steps on files give the same bytes for the same
// inputs, so that other bytes are of another run.
func writeOutput(c *cli.Context, write func(path string) error) error {
	path := c.String("output")
	if !protected(c) {
		return write(path)
	}
	scratch, err := os.MkdirTemp("", "agflow-")
	if err != nil {
		return failure("no temporary file can be written (%v): check the rights and free space of "+
			"%s", err, os.TempDir())
	}
	defer os.RemoveAll(scratch)
	made := filepath.Join(scratch, filepath.Base(path))
	if err := write(made); err != nil {
		return err
	}
	before, err := os.ReadFile(path)
	if err != nil {
		return ipcfile.IOFault(path, "read", err)
	}
	if after, err := os.ReadFile(made); err != nil || !bytes.Equal(before, after) {
		return otherRun(c)
	}
	return nil
}

// checkRun refuses to start Python for an output of the default name that another run wrote.
func checkRun(c *cli.Context, run string) error {
	if !protected(c) {
		return nil
	}
	info, err := ipcfile.Inspect(c.String("output"))
	if err != nil || info.Metadata[runKey] != run {
		return otherRun(c)
	}
	return nil
}

// runOf identifies a run by its command, its options and what the files that it names hold.
func runOf(c *cli.Context, options map[string]any) string {
	asked := maps.Clone(options)
	delete(asked, "output")
	delete(asked, "workers") // any number gives the same bits
	read := map[string]string{}
	for flag, path := range inputPaths(c) {
		read[flag] = contentOf(path)
	}
	encoded, _ := json.Marshal([]any{c.Command.HelpName, asked, read}) // plain values always are
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:])
}

// sampled is how much of either end of a large file is read: what differs inside differs in the
// size or at an end, too, where formats have their tables of contents.
const sampled = 1 << 20

// contentOf is a fingerprint of a file, or of a folder's own files, and empty for other values of
// flags.
func contentOf(path string) string {
	found, err := os.Stat(path)
	if err != nil {
		return ""
	}
	sum := sha256.New()
	names := []string{path}
	if found.IsDir() {
		entries, _ := os.ReadDir(path)
		names = nil
		for _, entry := range entries {
			fmt.Fprintln(sum, entry.Name())
			if entry.Type().IsRegular() {
				names = append(names, filepath.Join(path, entry.Name()))
			}
		}
	}
	for _, name := range names {
		file, err := os.Open(name)
		if err != nil {
			continue // whoever reads it says so
		}
		size, _ := file.Seek(0, io.SeekEnd)
		fmt.Fprintln(sum, size)
		io.Copy(sum, io.NewSectionReader(file, 0, sampled))
		io.Copy(sum, io.NewSectionReader(file, max(0, size-sampled), sampled))
		file.Close()
	}
	return hex.EncodeToString(sum.Sum(nil))
}
