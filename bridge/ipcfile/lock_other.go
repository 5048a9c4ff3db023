//go:build !linux && !darwin

package ipcfile

import (
	"errors"
	"os"
)

// Without locks that end with their owner, nothing is collected.

func openTemporary(string) (*os.File, error) { return nil, errors.ErrUnsupported }

func canLock(*os.File) bool { return false }

func lock(*os.File) bool { return true }
