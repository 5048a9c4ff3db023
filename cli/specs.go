package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"agflow/core/words"

	"github.com/urfave/cli/v2"
)

// The forms of --model and --data, and those in which the name of a file or a folder follows.
var (
	modelForms = []string{"example", "timm:", "torchvision:", "hf:", "onnx:"}
	dataForms  = []string{"example:train", "example:test", "parquet:", "npz:", "imagefolder:"}
	pathForms  = []string{"hf", "onnx", "parquet", "npz", "imagefolder"}
)

// pathsFrom are the files and folders whose path begins so, folders with a slash.
func pathsFrom(beginning string) (found []string) {
	folder, name := filepath.Split(beginning)
	entries, _ := os.ReadDir(filepath.Clean(folder)) // a folder that is not there has none
	for _, entry := range entries {
		hidden := strings.HasPrefix(entry.Name(), ".") && name == ""
		if hidden || !strings.HasPrefix(entry.Name(), name) {
			continue
		}
		path := folder + entry.Name()
		if entry.IsDir() {
			path += "/"
		}
		found = append(found, path)
	}
	return found
}

// checkModel refuses what cannot be the name of a model. Python says what is wrong with one that
// can be.
func checkModel(c *cli.Context, name, spec string) error {
	form, rest, isForm := strings.Cut(spec, ":")
	found, err := os.Stat(spec)
	switch file := exportedFile(spec); {
	case spec == "example":
		return nil
	case file != "":
		return checkInput("--"+name, file)
	case err == nil && found.IsDir():
		return checkModelFolder(name, spec)
	case err == nil:
		return usageError("--%s is %s, which is a file: name the model that its weights are of, "+
			"and give the file as --weights", name, spec)
	case form == "hf" && isForm:
		return checkModelFolder(name, rest)
	case isForm && rest != "":
		return nil
	case strings.ContainsAny(spec, `/\`):
		return missing("--"+name, spec, "folder of an expert or of a Hugging Face model")
	}
	cure := "a timm model is timm:" + spec
	if guess := words.Nearest(spec, []string{"example"}); guess != "" {
		cure = "did you mean " + guess + "?"
	}
	return usageError("--%s is %q, which is no folder, expected example, timm:NAME, "+
		"torchvision:NAME, hf:FOLDER, module:function, FILE.onnx or a folder: %s", name, spec, cure)
}

// exportedFile is the ONNX file that names a model; empty for other names.
func exportedFile(spec string) string {
	if file, found := strings.CutPrefix(spec, "onnx:"); found {
		return file
	}
	form, _, isForm := strings.Cut(spec, ":")
	if filepath.Ext(spec) != ".onnx" || isForm && !strings.Contains(form, "/") {
		return ""
	}
	return spec
}

func checkModelFolder(name, folder string) error {
	if err := checkFolder("--"+name, folder); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(folder, "config.json")); err != nil {
		return usageError("--%s is %s, which has no config.json: expected the folder of an "+
			"expert, which agflow prune writes, or of a Hugging Face model", name, folder)
	}
	return nil
}

// checkData refuses what cannot be the name of a data set, or is not there.
func checkData(c *cli.Context, name, spec string) error {
	flag := "--" + name
	form, rest, isForm := strings.Cut(spec, ":")
	switch {
	case slices.Contains(dataForms, spec):
		return nil
	case form == "example" && isForm:
		return oneOf(flag, spec, dataForms[:2])
	case form == "parquet" && rest != "":
		return checkParquet(flag, rest)
	case form == "npz" && rest != "":
		file, _, _ := strings.Cut(rest, "#")
		return checkInput(flag, file)
	case form == "imagefolder" && rest != "":
		return checkFolder(flag, rest)
	}
	cure := ""
	if found, err := os.Stat(spec); err == nil {
		cure = fmt.Sprintf(": write %s:%s", formOf(spec, found), spec)
	} else if guess := words.Nearest(form+":", dataForms); isForm && guess != "" {
		cure = fmt.Sprintf(": did you mean %s%s?", guess, rest)
	} else if guess := words.Nearest(spec, dataForms[:2]); guess != "" {
		cure = fmt.Sprintf(": did you mean %s?", guess)
	}
	return usageError("%s is %q, expected parquet:FILE, npz:FILE, imagefolder:DIR, example:train "+
		"or example:test%s", flag, spec, cure)
}

// formOf guesses the form of a data set from what is there.
func formOf(path string, found fs.FileInfo) string {
	parts, _ := filepath.Glob(filepath.Join(path, "*.parquet"))
	switch {
	case filepath.Ext(path) == ".npz":
		return "npz"
	case found.IsDir() && len(parts) == 0:
		return "imagefolder"
	}
	return "parquet"
}

// checkParquet takes a file, a folder of parquet files or a pattern. What ** in a pattern finds is
// left to Python.
func checkParquet(flag, path string) error {
	if found, err := os.Stat(path); err == nil && found.IsDir() {
		parts, err := os.ReadDir(path)
		if err == nil && !slices.ContainsFunc(parts, func(part os.DirEntry) bool {
			return filepath.Ext(part.Name()) == ".parquet"
		}) {
			return usageError("%s is the folder %s, which has no .parquet file: name the folder "+
				"of the parquet files, or a folder of images as imagefolder:%[2]s", flag, path)
		}
		return nil
	}
	if !strings.ContainsAny(path, "*?[") || strings.Contains(path, "**") {
		if strings.Contains(path, "**") {
			return nil
		}
		return checkInput(flag, path)
	}
	parts, err := filepath.Glob(path)
	if _, literal := os.Stat(path); err == nil && len(parts) == 0 && literal != nil {
		return missing(flag, path, "file that the pattern fits")
	}
	return nil
}

// checkInput refuses a file that is not there or is none.
func checkInput(flag, path string) error {
	found, err := os.Stat(path)
	switch {
	case err != nil:
		return missing(flag, path, "file")
	case found.IsDir():
		return failure("%s is %s, which is a folder: name a file", flag, path)
	case !found.Mode().IsRegular():
		return failure("%s is %s, which is a pipe or a device: give a file that is on disk as a "+
			"whole", flag, path)
	}
	return nil
}

func checkFolder(flag, path string) error {
	found, err := os.Stat(path)
	switch {
	case err != nil:
		return missing(flag, path, "folder")
	case !found.IsDir():
		return failure("%s is %s, which is a file: name a folder", flag, path)
	}
	return nil
}

// missing is the error for a path that is not there, with the nearest name in its folder.
func missing(flag, path, kind string) error {
	folder, name := filepath.Split(filepath.Clean(path))
	var names []string
	entries, err := os.ReadDir(filepath.Clean("./" + folder))
	if filepath.IsAbs(folder) {
		entries, err = os.ReadDir(folder)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	cure := "check the path (working folder " + workingFolder() + ")"
	if err != nil {
		cure = fmt.Sprintf("the folder %s is not there either, %s", filepath.Clean(folder), cure)
	} else if guess := words.Nearest(name, names); guess != "" {
		cure = "did you mean " + folder + guess + "?"
	}
	return failure("%s is %s, and there is no such %s: %s", flag, path, kind, cure)
}

func workingFolder() string {
	folder, err := os.Getwd()
	if err != nil {
		return "unknown"
	}
	return folder
}
