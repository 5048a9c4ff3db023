package serving

import (
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"agflow/bridge/ipcfile"
	"agflow/core/fault"
	"agflow/core/routing/monitor"
)

// WatchOptions say how a promise is watched.
type WatchOptions struct {
	monitor.Options
	State   string // file of the evidence, "" for none
	Records string // file that audit records are appended to, "" for none
	// Calibration reads what calibrated a router, nil where that is not at hand.
	Calibration func(Model) (*monitor.Calibration, error)
	Log         *slog.Logger
}

const (
	saveEvery   = 10 * time.Second // a killed server loses no more evidence
	reportEvery = 100              // images between two looks at alarms that need no audit
)

// watched is a monitor whose evidence survives the process.
type watched struct {
	*monitor.Monitor
	o     WatchOptions
	seen  atomic.Int64
	news  atomic.Bool  // since the alarm was looked at
	alarm atomic.Value // string

	mu      sync.Mutex
	records *os.File // nil for none
	saved   time.Time
	saving  sync.WaitGroup
	closed  bool // what is seen from then on is not kept
}

// NewWatch watches a cascade, from the evidence that was saved on. A state that can't be read, or
// is of another router, is kept under another name, and the evidence begins anew.
//
// Errors: value (options), and those of files that can't be read or written.
func NewWatch(model Model, o WatchOptions) (Watch, error) {
	w := &watched{o: o, saved: time.Now()}
	w.alarm.Store("")
	var calibration *monitor.Calibration
	var err error
	if o.Calibration != nil {
		if calibration, err = o.Calibration(model); err != nil {
			return nil, err
		}
	}
	w.Monitor, err = OpenMonitor(o.State, model.Router, calibration, o.Options)
	if fault.CodeOf(err) == fault.File {
		if err = w.keepAside(err); err == nil {
			w.Monitor, err = OpenMonitor(o.State, model.Router, calibration, o.Options)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := w.write(); err != nil { // so that a place that can't be written is known now
		return nil, err
	}
	if o.Records != "" {
		w.records, err = os.OpenFile(o.Records, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
		if err != nil {
			return nil, ipcfile.IOFault(o.Records, "write", err)
		}
	}
	w.news.Store(true)
	return w, nil
}

// keepAside gives a state that can't be continued another name.
func (w *watched) keepAside(because error) error {
	kept := w.o.State + ".before"
	w.o.Log.Warn("the evidence begins anew", "because", fault.Sentence(because), "kept as", kept)
	if err := os.Rename(w.o.State, kept); err != nil {
		return ipcfile.IOFault(w.o.State, "move", err)
	}
	return nil
}

// Observe counts an answered image.
func (w *watched) Observe(image monitor.Image) error {
	if err := w.Monitor.Observe(image); err != nil {
		return err
	}
	if n := w.seen.Add(1); !image.Audited {
		if n%reportEvery == 0 {
			w.news.Store(true)
		}
		return nil
	}
	w.news.Store(true)
	return w.record(monitor.Record{Image: &image})
}

// Label takes the label of an audited image.
func (w *watched) Label(id string, class int) error {
	if err := w.Monitor.Label(id, class); err != nil {
		return err
	}
	w.news.Store(true)
	now := time.Now().UTC().Format(time.RFC3339Nano)
	return w.record(monitor.Record{Late: &monitor.Late{ID: id, Time: now, Label: class}})
}

// record appends an audit record, and saves the evidence where that is due.
func (w *watched) record(r monitor.Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	if due := time.Since(w.saved) > saveEvery; due && w.o.State != "" {
		w.saved = time.Now()
		w.saving.Go(func() {
			if err := w.write(); err != nil {
				w.o.Log.Error("the evidence was not saved", "error", fault.Sentence(err))
			}
		})
	}
	if w.records == nil {
		return nil
	}
	line, err := r.MarshalJSON()
	if err == nil {
		_, err = w.records.Write(append(line, '\n'))
	}
	if err != nil {
		return ipcfile.IOFault(w.o.Records, "write", err)
	}
	return nil
}

// Alarm says what no longer holds, "" for nothing. A report takes a millisecond, so it is made once
// for the images of a batch.
func (w *watched) Alarm() string {
	if w.news.Swap(false) {
		w.alarm.Store(w.Monitor.Report().Alarm)
	}
	return w.alarm.Load().(string)
}

// write saves the evidence.
func (w *watched) write() error { return SaveMonitor(w.o.State, w.Monitor) }

// Close saves the evidence and closes the file of records; again, it does nothing.
func (w *watched) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	w.saving.Wait()
	err := w.write()
	if w.records != nil {
		err = errors.Join(err, w.records.Close())
	}
	return err
}

// Report is what the monitor says.
func (w *watched) Report() any { return w.Monitor.Report() }
