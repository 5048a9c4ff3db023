//go:build python

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"agflow/bridge/pyhost"
	"agflow/cli/serving"

	"github.com/urfave/cli/v2"
)

// serveCascade starts Python, serves the cascade until a signal comes, and ends Python.
func serveCascade(c *cli.Context) (outcome, error) {
	options, err := serveOptionsOf(c)
	if err != nil {
		return outcome{}, err
	}
	program, err := interpreter(python(c))
	if err != nil {
		return outcome{}, err
	}
	pyhost.ForgetPreload()
	waitPassively()
	started, err := pyhost.Start(program)
	if err != nil {
		return outcome{}, pythonError(err)
	}
	loader := newExpertsLoader(started, options.loading)
	answered, err := options.serve(loader.load)
	if closing := loader.close(); err == nil && closing != nil {
		return outcome{}, pythonError(closing)
	}
	if err != nil {
		return outcome{}, err
	}
	return outcome{map[string]int64{"images": answered},
		fmt.Sprintf("answered %d images", answered)}, nil
}

// waitPassively keeps OpenMP's threads from spinning while they wait, which takes the cores from
// the threads that decode images and answer requests: on a busy machine a small image took 456 ms
// in place of 14. The environment may say otherwise.
func waitPassively() {
	const policy = "OMP_WAIT_POLICY"
	if _, said := os.LookupEnv(policy); !said {
		os.Setenv(policy, "PASSIVE")
	}
}

// expertsLoader loads experts with a hosted Python.
type expertsLoader struct {
	python    *pyhost.Interpreter
	options   string             // JSON, as agflow.serving.open_cascade takes it
	preparers chan pyhost.Thread // idle threads that prepare images, one a core
	reloader  pyhost.Thread
}

func newExpertsLoader(started *pyhost.Interpreter, options string) *expertsLoader {
	cores := runtime.NumCPU()
	l := &expertsLoader{
		python: started, options: options, preparers: make(chan pyhost.Thread, cores),
		reloader: started.NewThread(),
	}
	for range cores {
		l.preparers <- started.NewThread()
	}
	return l
}

// close ends Python, unless an image is still being decoded whose request was cut off: Python can't
// be ended beside it, and the process ends anyway.
func (l *expertsLoader) close() error {
	for range cap(l.preparers) {
		select {
		case <-l.preparers:
		case <-time.After(time.Second):
			return nil
		}
	}
	return l.python.Close()
}

// load loads the experts as they are in their folder now. The first time it does so on Python's
// main thread, where a signal can interrupt it; later beside the batches that run there.
func (l *expertsLoader) load(first bool) (serving.Experts, error) {
	on := l.reloader
	if first {
		on = l.python
		setInterrupt(l.python.Interrupt)
		defer setInterrupt(nil)
	}
	object, err := l.python.New(on, "agflow.serving", "open_cascade", l.options)
	if err != nil {
		return nil, err
	}
	e := &hostedExperts{expertsLoader: l, object: object}
	text, err := object.Call("describe", "")
	if err == nil {
		e.model, err = modelOf(text)
	}
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// hostedExperts are experts in Python's memory.
type hostedExperts struct {
	*expertsLoader
	object *pyhost.Object
	model  serving.Model
}

func (e *hostedExperts) Model() serving.Model { return e.model }

func (e *hostedExperts) Prepare(encoded []byte) ([]float32, error) {
	thread := <-e.preparers
	defer func() { e.preparers <- thread }()
	image := make([]float32, e.model.Channels*e.model.Height*e.model.Width)
	err := e.object.Fill(thread, "prepare", pyhost.Bytes(image), encoded)
	return image, faultOf(err)
}

func (e *hostedExperts) Light(images []float32, n int) ([]float32, error) {
	logits := make([]float32, n*e.model.Classes)
	err := e.object.Fill(e.python, "light", pyhost.Bytes(logits), pyhost.Bytes(images))
	return logits, faultOf(err)
}

func (e *hostedExperts) Heavy(images []float32, rows []int32) ([]float32, error) {
	logits := make([]float32, len(rows)*e.model.Classes)
	err := e.object.Fill(e.python, "heavy", pyhost.Bytes(logits), pyhost.Bytes(images),
		pyhost.Bytes(rows))
	return logits, faultOf(err)
}

func (e *hostedExperts) Close() error {
	_, err := e.object.Call("close", "")
	return errors.Join(err, e.object.Drop())
}
