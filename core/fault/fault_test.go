package fault_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"agflow/core/fault"
)

// The text of an error is the contract with other languages: prefix, code, sentence.
func TestErrorText(t *testing.T) {
	err := fault.New(fault.Shape, "layer %q has %d channels", "blocks.0.mlp", 7)
	if got, want := err.Error(), `agflow:shape: layer "blocks.0.mlp" has 7 channels`; got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
	if err.Text != `layer "blocks.0.mlp" has 7 channels` || err.Code != fault.Shape {
		t.Fatalf("got code %q, text %q", err.Code, err.Text)
	}
}

func TestWrappedCausesAreFound(t *testing.T) {
	err := fault.New(fault.IO, "cannot read: %w, and %w", fs.ErrNotExist, fs.ErrPermission)
	if !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, fs.ErrPermission) {
		t.Fatal("a cause is lost")
	}
	if strings.Contains(err.Text, "%!") {
		t.Fatalf("bad format: %q", err.Text)
	}
}

func TestCodeOf(t *testing.T) {
	inner := fault.New(fault.Budget, "too small")
	for _, c := range []struct {
		err  error
		want fault.Code
	}{
		{inner, fault.Budget},
		{fmt.Errorf("while planning: %w", inner), fault.Budget},
		{fault.New(fault.File, "plan.arrow: %w", inner), fault.File},
		{errors.New("foreign"), fault.Internal},
		{nil, fault.Internal},
	} {
		if got := fault.CodeOf(c.err); got != c.want {
			t.Errorf("CodeOf(%v) = %q, want %q", c.err, got, c.want)
		}
	}
}

type explosive struct{}

func (explosive) Error() string { panic("again") }

// Whatever the panic value, the caller gets an error of code internal and no panic.
func TestRecoverTurnsPanicsIntoErrors(t *testing.T) {
	var none []int
	var missing *struct{ field int }
	for name, throw := range map[string]func(){
		"text":      func() { panic("broken") },
		"error":     func() { panic(errors.New("broken")) },
		"index":     func() { none[len(none)] = 1 },
		"nil":       func() { missing.field = 1 },
		"nil value": func() { panic(any(nil)) },
		"explosive": func() { panic(explosive{}) },
	} {
		work := func() (err error) {
			defer fault.Recover(&err)
			throw()
			return nil
		}
		err := work()
		if err == nil || fault.CodeOf(err) != fault.Internal ||
			!strings.HasPrefix(err.Error(), "agflow:internal: ") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestRecoverLeavesResultsAlone(t *testing.T) {
	want := fault.New(fault.Value, "no")
	work := func() (err error) {
		defer fault.Recover(&err)
		return want
	}
	if got := work(); got != error(want) {
		t.Fatalf("got %v", got)
	}
	func() { // a nil pointer causes no second panic
		defer fault.Recover(nil)
		panic("broken")
	}()
}
