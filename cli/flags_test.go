package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every default of a flag is read from core/defaults; the number of cores is the machine's.
func TestNoFlagHasALiteralDefault(t *testing.T) {
	fields := regexp.MustCompile(`\bValue: +(.*)|New\w+Slice\((.*)`)
	read := regexp.MustCompile(`^(standard\[\w*(\[\]\w+)?\]\(|value,|runtime\.NumCPU\(\),)`)
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil || strings.HasSuffix(path, "_test.go") {
			continue
		}
		for _, field := range fields.FindAllStringSubmatch(string(content), -1) {
			found++
			if !read.MatchString(field[1] + field[2]) {
				t.Errorf("%s has the default %q: take it from core/defaults", path, field[0])
			}
		}
	}
	if found < 10 {
		t.Errorf("%d defaults of flags were found, expected those of flags.go at least", found)
	}
}
