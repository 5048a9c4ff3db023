// Command generate writes the files that package callgen makes from bridge/abi. Run it as
//
//	go generate ./bridge/abi
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"agflow/bridge/internal/callgen"
)

// root is the module's folder, seen from bridge/abi, where go generate runs this command.
const root = "../.."

func main() {
	if err := write(); err != nil {
		fmt.Fprintln(os.Stderr, "agflow:", err)
		os.Exit(1)
	}
}

func write() error {
	files, err := callgen.Generate(os.DirFS(root))
	if err != nil {
		return err
	}
	for name, content := range files {
		path := filepath.Join(root, filepath.FromSlash(name))
		if err := os.WriteFile(path, content, 0o666); err != nil {
			return err
		}
	}
	return nil
}
